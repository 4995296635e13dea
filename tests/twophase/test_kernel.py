"""The eNTK against a plain Jacobian."""

import copy
import functools
import inspect
import math
from dataclasses import replace

import pytest
import torch
from odd_modules import MODULES, NUM, Applied, Residual, seeded
from samples import SHAPES, small_dataset, small_setting
from torch import nn
from torch.utils.checkpoint import checkpoint

from twophase import entk, kernel_distance, lanes
from twophase.config import Protocol, Trial
from twophase.errors import BadInput
from twophase.evaluation import Evaluator
from twophase.kernel import KINDS
from twophase.kernels import layerwise, planning
from twophase.kernels.blocks import Factor, Sizes, add_pairwise, add_unfolded
from twophase.kernels.planning import make_plan
from twophase.kernels.recording import Runs
from twophase.kernels.rules import RULES
from twophase.models import MODELS, OneLane
from twophase.seeding import stream
from twophase.training import LaneTrainer, build_model, initial_state, reference_order

EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""Sums of some thousand products in float64, in another order, relative to the kernel's greatest entry."""


def plain_jacobian(module, inputs):
    """∂f_c(x_n)/∂θ by one backward pass per logit and input: [N, C, P]."""
    module.eval()
    parameters = [value for value in module.parameters() if value.requires_grad]
    rows = []
    for n in range(len(inputs)):
        logits = module(inputs[n : n + 1].clone())[0]
        for logit in logits:
            gradients = torch.autograd.grad(logit, parameters, retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
            rows.append(torch.cat([gradient.flatten() for gradient in filled]))
    return torch.stack(rows).view(len(inputs), len(logits), -1)


def by_hand(module, inputs, labels):
    """Each kind by its own formula, not by readouts."""
    jacobian = plain_jacobian(module, inputs)
    num, classes, _ = jacobian.shape
    full = torch.einsum("ncp,mdp->ncmd", jacobian, jacobian)
    losses = nn.functional.cross_entropy(module(inputs.clone()), labels, reduction="none")
    parameters = [value for value in module.parameters() if value.requires_grad]
    rows = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in losses
    ]
    flat = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
    signs = torch.randint(0, 2, (num, classes), generator=stream(0, "kernel projection")) * 2.0 - 1
    projected = torch.einsum("nc,ncmd,md->nm", signs.double(), full, signs.double())
    return {
        "full": full.reshape(num * classes, num * classes),
        "trace": torch.einsum("ncmc->nm", full),
        "pseudo": full.sum((1, 3)) / classes,
        "loss_gradient": flat @ flat.T,
        "projection": projected.fill_diagonal_(0.0),
    }


def planned(module, inputs):
    return make_plan(Runs(module, inputs), None, is_summed=False, memory_bytes=1 << 30)


def assert_same(found, expected):
    scale = expected.abs().max().clamp(min=1e-300)  # with one logit the loss and its gradient are 0
    torch.testing.assert_close(found / scale, expected / scale, **EXACT)


def trained(model, input_shape, **leaves):
    """A network of the zoo a few steps into its training, in float64, with inputs and labels."""
    setting = small_setting(model, precision="float64", **leaves)
    dataset = small_dataset(input_shape).to(torch.device("cpu"), torch.float64)
    start = lanes.take(initial_state(setting, dataset, 0), [0] * 4)
    trainer = LaneTrainer(setting, dataset, start, seed=0)
    trainer.advance(5, [reference_order(setting, 0)])
    network = build_model(setting, dataset, seed=0)
    lanes.write(lanes.fork(trainer.state), network)
    return OneLane(network), dataset.train_inputs[:NUM], dataset.train_labels[:NUM]


@pytest.mark.parametrize("input_shape", [SHAPES["1d"], SHAPES["2d-3"]], ids=["1d", "2d-3"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_zoo_against_a_plain_jacobian(model, input_shape):
    module, inputs, labels = trained(model, input_shape)
    for kind, expected in by_hand(module, inputs, labels).items():
        assert_same(entk(module, inputs, kind, labels=labels), expected)
    # A network of a user's own is one call for torch.
    assert bool(planned(module, inputs).lone) == (model == "custom")


@pytest.mark.parametrize(
    ("model", "norm_layer"),
    [("mlp", "batch"), ("mlp", "layer"), ("resnet", "group"), ("vgg", "layer"), ("vit", "none")],
)
def test_every_normalisation_of_the_zoo_has_a_rule(model, norm_layer):
    module, inputs, labels = trained(model, SHAPES["2d"], norm_layer=norm_layer)
    assert_same(entk(module, inputs), by_hand(module, inputs, labels)["full"])
    assert not planned(module, inputs).lone


@functools.cache
def holders():
    """A module for each layer that has a rule, the layers whose rules it rests on, and its kernel by hand."""
    modules = [(seeded(build), inputs_of(shape)) for build, shape, _ in MODULES.values()]
    leaves = [("mlp", "batch"), ("mlp", "layer"), ("resnet", "group"), ("vit", "layer")]
    modules += [trained(model, SHAPES["2d"], norm_layer=norm)[:2] for model, norm in leaves]
    found = {}
    for module, inputs in modules:
        if ({type(part) for part in module.modules()} & RULES.keys()) - found.keys():
            layers = planned(module.eval(), inputs).layers
            found = dict.fromkeys((type(layer.module) for layer in layers), (module, inputs)) | found
    return found


def wrong_readings(reading):
    """The same rule with a mistake, of each kind that a rule can have."""
    slightly = 1 + 1e-8  # ten thousand times the tolerance, were the layer all there is
    yield replace(reading, outputs=lambda y: reading.outputs(y) * slightly)
    if reading.has_weight and reading.has_bias:
        yield replace(reading, has_bias=False)
        yield replace(reading, features=lambda x: reading.features(x) * slightly)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_a_wrong_rule_would_be_seen(kind, monkeypatch):
    module, inputs = holders()[kind]
    with torch.random.fork_rng():
        expected = by_hand(module, inputs, torch.zeros(len(inputs), dtype=torch.int64))["full"]
    right = RULES[kind]
    count = len(list(wrong_readings(next(filter(None, map(right, (m for m in module.modules() if type(m) is kind)))))))
    assert count >= 1
    for number in range(count):
        monkeypatch.setitem(RULES, kind, lambda layer, number=number: list(wrong_readings(right(layer)))[number])
        with pytest.raises(AssertionError):
            assert_same(entk(module, inputs), expected)
    monkeypatch.setitem(RULES, kind, right)
    assert_same(entk(module, inputs), expected)


@pytest.fixture(autouse=True)
def _global_seed_kept():
    with torch.random.fork_rng():
        yield


def inputs_of(shape):
    generator = torch.Generator().manual_seed(1)
    if isinstance(shape, int):
        tokens = torch.randint(0, shape, (NUM, 3), generator=generator)
        tokens[0] = torch.tensor([2, 4, 4])  # the padding, and one token twice
        return tokens
    inputs = torch.randn(shape, dtype=torch.float64, generator=generator)
    inputs[:4, 0] = inputs[:4, 0].abs()  # the first inputs have one expert, and are the shortest
    inputs[:4, -1] = 0.0
    return inputs


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("build", "shape", "lone"), MODULES.values(), ids=MODULES)
def test_any_module_against_a_plain_jacobian(build, shape, lone):
    module, inputs = seeded(build).eval(), inputs_of(shape)
    labels, before = torch.arange(len(inputs)) % module(inputs.clone()).shape[1], inputs.clone()
    for kind, expected in by_hand(module, inputs, labels).items():
        found = entk(module, inputs, kind, labels=labels)
        assert_same(found, expected)
        assert torch.equal(found, found.T)
    assert torch.equal(inputs, before)
    assert {piece.name for piece in planned(module, inputs).lone} == lone


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_on_memory_changes_nothing_but_rounding(kind):
    module, inputs, labels = trained("cnn", SHAPES["1d"])
    whole = entk(module, inputs, kind, labels=labels)
    assert torch.equal(whole, whole.T)
    for budget in (20_000, 200_000):
        assert_same(entk(module, inputs, kind, labels=labels, memory_bytes=budget), whole)


@pytest.mark.parametrize("name", ["two tokens of one", "groups, dilation, circular", "experts"])
def test_a_bound_on_memory_changes_no_form_s_kernel(name):
    build, shape, _ = MODULES[name]
    module, inputs = seeded(build), inputs_of(shape)
    for kind in ("full", "trace"):
        assert_same(entk(module, inputs, kind, memory_bytes=8_000), entk(module, inputs, kind))


@pytest.mark.parametrize("name", ["cnn", "groups, dilation, circular", "two tokens of one"])
def test_large_layers_are_done_row_by_row_and_from_factors(name, monkeypatch):
    """Each way that only larger networks take, on small ones."""
    monkeypatch.setattr(layerwise, "SMALL_BYTES", 0)
    monkeypatch.setattr(planning, "FEW_ELEMENTS", 0)
    if name in MODELS:
        module, inputs, labels = trained(name, SHAPES["1d"])
        assert any(
            not layer.is_pairwise and not layer.is_kept_unfolded for layer in planned(module.eval(), inputs).layers
        )
    else:
        module, inputs = seeded(MODULES[name][0]).eval(), inputs_of(MODULES[name][1])
        labels = torch.zeros(len(inputs), dtype=torch.int64)
    for kind, expected in by_hand(module, inputs, labels).items():
        assert_same(entk(module, inputs, kind, labels=labels), expected)


class Doubled(torch.autograd.Function):
    """2 y, by a backward pass that looks at values, or hands them to numpy."""

    @staticmethod
    def forward(ctx, y, look):
        ctx.look = look
        return 2 * y

    @staticmethod
    def backward(ctx, gradient):
        ctx.look(gradient)
        return 2 * gradient, None


@pytest.mark.parametrize("look", [lambda g: bool(g.any()), lambda g: g.numpy().sum()], ids=["value", "numpy"])
def test_a_backward_pass_that_takes_one_row_at_a_time_gets_one(look, monkeypatch):
    tried, at_once = [], layerwise._all_at_once
    monkeypatch.setattr(layerwise, "_all_at_once", lambda *args: tried.append(at_once(*args)))
    own = seeded(lambda: nn.Linear(6, 5))
    head = seeded(lambda: nn.Linear(5, 3))
    module = nn.Sequential(own, Applied(lambda _, x: Doubled.apply(torch.tanh(x), look)), head)
    inputs = inputs_of((NUM, 6))
    assert_same(entk(module, inputs), by_hand(module, inputs, torch.zeros(NUM, dtype=torch.int64))["full"])
    assert tried == [None]


@pytest.mark.parametrize("kind", ["full", "trace"])
def test_memory_is_bounded(monkeypatch, kind):
    """What is kept of layers' gradients at a time is within half of the budget, but for what one layer needs."""
    held, keep = [], layerwise._Assembly._keep

    def spy(self, group, some):
        kept = keep(self, group, some)
        held.append(sum(t.numel() for f in kept.factors.values() for t in (f.x, f.gamma)) + kept.features.numel())
        return kept

    monkeypatch.setattr(layerwise._Assembly, "_keep", spy)
    module, inputs, _ = trained("cnn", SHAPES["2d-3"])
    entk(module, inputs, kind)
    assert len(held) == 1
    for budget in (16_000, 60_000):
        held.clear()
        entk(module, inputs, kind, memory_bytes=budget)
        assert len(held) > 1
        assert max(held) * 8 <= budget // 2


CONVOLUTIONS = {
    "1d": (nn.Conv1d, (30,), {}),
    "2d": (nn.Conv2d, (7, 6), {"bias": False}),
    "3d": (nn.Conv3d, (4, 5, 3), {}),
    "groups": (nn.Conv2d, (7, 6), {"groups": 2}),
    "stride, dilation": (nn.Conv2d, (9, 8), {"stride": (2, 1), "dilation": (1, 2), "padding": (0, 2)}),
    "same": (nn.Conv2d, (6, 5), {"kernel_size": (3, 2), "padding": "same"}),
    "reflect": (nn.Conv2d, (6, 5), {"padding_mode": "reflect"}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_convolution_s_own_backward_pass_gives_what_patches_give(name, rows):
    build, shape, options = CONVOLUTIONS[name]
    layer = build(4, 6, **{"kernel_size": 3, "padding": 1, **options}).double()
    x = torch.randn(5, 4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reading = RULES[build](layer)
    features, outputs = reading.features(x), reading.outputs(layer(x))
    gamma = torch.randn(5, rows, *outputs.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("nrgot,ngkt->nrgok", gamma, features).flatten(2)
    assert_same(reading.weight_gradients(x, gamma), expected)


@pytest.mark.parametrize("options", [{}, {"groups": 2, "stride": (2, 1)}, {"padding_mode": "circular", "bias": False}])
def test_large_convolutions_go_through_their_own_backward_pass(options):
    channels = 8 * options.get("groups", 1)

    def build():
        convolution = nn.Conv2d(channels, 4, 3, padding=1, **options)
        return nn.Sequential(convolution, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))

    inputs = torch.randn(NUM, channels, 10, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = seeded(build)
    assert planned(module, inputs).layers[0].weight_gradients is not None
    for kind, expected in by_hand(module, inputs, torch.zeros(NUM, dtype=torch.int64)).items():
        for budget in (10_000, 1 << 30):
            found = entk(module, inputs, kind, labels=torch.zeros(NUM, dtype=torch.int64), memory_bytes=budget)
            assert_same(found, expected)


@pytest.mark.parametrize("form", [add_unfolded, add_pairwise])
@pytest.mark.parametrize(("positions", "groups"), [(1, 1), (3, 1), (30, 1), (1, 2), (3, 2), (30, 2)])
def test_both_forms_are_the_sum_that_they_stand_for(form, positions, groups):
    generator = torch.Generator().manual_seed(0)
    sizes = Sizes(groups, 3, 4, positions, has_weight=True, has_bias=True)
    sides = [
        Factor(*(torch.randn(n, *shape, positions, dtype=torch.float64, generator=generator) for shape in shapes))
        for n, shapes in ((5, ((groups, 4), (2, groups, 3))), (4, ((groups, 4), (2, groups, 3))))
    ]
    gradients = [
        torch.cat(
            [
                torch.einsum("nrgot,ngkt->nrgok", side.gamma, side.x).flatten(2),
                torch.einsum("nrgot->nrgo", side.gamma).flatten(2),
            ],
            2,
        ).flatten(0, 1)
        for side in sides
    ]
    for other in (0, 1):
        expected = gradients[0] @ gradients[other].T
        for workspace in (1, 1 << 20):
            kernel = torch.zeros_like(expected)
            form(kernel, sides[0], sides[other], sizes, workspace)
            # Of a block on the diagonal the upper triangle is nobody's.
            keep = torch.tril if other == 0 else lambda block: block
            assert_same(keep(kernel), keep(expected))


def test_a_projection_estimates_the_full_kernel_s_inner_products():
    module, inputs, _ = trained("mlp", SHAPES["1d"])
    other, _, _ = trained("mlp", SHAPES["1d"], lr=0.3)
    classes = 3

    def off_diagonal(module):
        full = entk(module, inputs).view(NUM, classes, NUM, classes)
        return full * (1 - torch.eye(NUM)).view(NUM, 1, NUM, 1)

    first, second = off_diagonal(module), off_diagonal(other)
    products = []
    for seed in range(60):
        a, b = (entk(net, inputs, "projection", seed=seed) for net in (module, other))
        assert not a.diagonal().any()
        products.append(float((a * b).sum()))
    error = torch.tensor(products).std() / math.sqrt(len(products))
    # Four standard errors: one in 15,000 honest draws falls outside, and the draws here are fixed.
    assert abs(sum(products) / len(products) - float((first * second).sum())) < 4 * error
    assert torch.equal(entk(module, inputs, "projection", seed=1), entk(module, inputs, "projection", seed=1))
    assert not torch.equal(entk(module, inputs, "projection", seed=1), entk(module, inputs, "projection", seed=2))


@pytest.mark.parametrize("kind", ["full", "trace"])
def test_a_submodule_under_two_names_is_computed_and_left_alone(kind):
    shared = seeded(lambda: nn.Linear(6, 6))
    module = nn.Sequential(shared, nn.Tanh(), shared, seeded(lambda: nn.Linear(6, 3)))
    inputs = torch.randn(NUM, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = by_hand(module, inputs, torch.zeros(NUM, dtype=torch.int64))[kind]
    for budget in (500, 1 << 30):
        assert_same(entk(module, inputs, kind, memory_bytes=budget), expected)
    assert type(shared.weight) is nn.Parameter
    before = shared.weight.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(inputs).sum().backward()
    optimizer.step()
    assert not torch.equal(shared.weight, before)


def test_a_module_is_left_as_it_was():
    module = seeded(Residual)
    module.train()
    module.drop.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    entk(module, torch.ones(3, 6, dtype=torch.float64))
    assert module.training
    assert module.norm.training
    assert not module.drop.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(value.grad is None for value in module.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_centring_takes_the_mean_gradient_away():
    module, inputs, _ = trained("mlp", SHAPES["1d"])
    jacobian = plain_jacobian(module, inputs)
    jacobian = (jacobian - jacobian.mean(0)).flatten(0, 1)
    found = entk(module, inputs, is_centred=True)
    assert_same(found, jacobian @ jacobian.T)
    assert torch.equal(found, found.T)
    expected = torch.einsum("ncmc->nm", found.view(NUM, 3, NUM, 3))
    assert_same(entk(module, inputs, "trace", is_centred=True), expected)


def test_precision_is_a_choice():
    module, inputs, _ = trained("cnn", SHAPES["1d"])
    single = copy.deepcopy(module).float()
    exact = entk(single.double(), inputs.float().double())
    single.float()
    found = entk(single, inputs.float(), dtype=torch.float64)
    assert found.dtype == torch.float64
    assert torch.equal(found, exact)
    assert next(single.parameters()).dtype == torch.float32
    rounded = entk(single, inputs.float())
    assert rounded.dtype == torch.float32
    # Products of float32 gradients; a hundred times its rounding.
    assert float((rounded - exact).abs().max() / exact.abs().max()) < 1e-5
    assert entk(single.half(), inputs.half()).dtype == torch.float32


class Returns(nn.Linear):
    """A layer that returns something else."""

    def __init__(self, change):
        super().__init__(4, 2)
        self._change = change

    def forward(self, x):
        return self._change(super().forward(x))


ONES = torch.ones(3, 4)
REFUSED = {
    "kind": ({"kind": "ful"}, "unknown kernel 'ful'; did you mean 'full'"),
    "kinds": ({"kind": ["full"]}, r"unknown kernel \['full'\]"),
    "no module": ({"module": torch.relu}, "module must be a torch.nn.Module, got builtin_function"),
    "no parameters": ({"module": nn.Flatten()}, "module must have a parameter that requires a gradient"),
    "lazy": ({"module": nn.LazyLinear(2)}, "parameters of known shape, got lazy 'weight'"),
    "numpy": ({"inputs": ONES.numpy()}, "inputs must be a torch.Tensor, got ndarray; torch.as_tensor makes one"),
    "no inputs": ({"inputs": ONES[:0]}, r"inputs must hold at least one input .* got shape \(0, 4\)"),
    "scalar": ({"inputs": torch.tensor(1.0)}, "inputs must hold at least one input"),
    "seed": ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
    "float memory": ({"memory_bytes": 1e9}, r"memory_bytes must be a whole number >= 1, .*got 1000000000.0"),
    "no memory": ({"memory_bytes": 0}, "memory_bytes must be a whole number >= 1"),
    "dtype": ({"dtype": torch.float16}, "dtype must be torch.float32, torch.float64 or None, got torch.float16"),
    "centred": ({"kind": "projection", "is_centred": True}, "is_centred must be False for kernel 'projection'"),
    "no labels": ({"kind": "loss_gradient"}, "labels must be given for kernel 'loss_gradient', got None"),
    "few labels": ({"labels": torch.tensor([0, 1])}, r"labels must be a tensor of 3 whole .* got shape \(2,\)"),
    "real labels": ({"labels": torch.zeros(3)}, r"labels must be .* got torch.float32"),
    "listed labels": ({"labels": [0, 1, 1]}, "labels must be .* got list"),
    "high labels": ({"labels": torch.tensor([0, 1, 2])}, r"labels must be .* in \[0, 2\), one per input, got 2"),
    "tuple": ({"module": Returns(lambda y: (y, y))}, r"must return logits \[N, C\] for N inputs, got a tuple"),
    "shape": ({"module": Returns(lambda y: y[:, 0])}, r"must return logits \[N, C\] .* got shape"),
    "classes": ({"module": Returns(lambda y: (y > 0).long())}, r"must return logits \[N, C\] .* got torch.int64"),
    "mixing": (
        {"module": Returns(lambda y: y - y.mean(0) * 0.01)},
        "every row from its own input alone and without chance",
    ),
    "batch statistics": (
        {"module": nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False))},
        "module must take one input alone as well, got ValueError: Expected more than 1 value",
    ),
    "reentrant": (
        {"module": Returns(lambda y: checkpoint(torch.relu, y, use_reentrant=True))},
        "must not use checkpoints with use_reentrant=True",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_computed_is_refused(arguments, words):
    inputs = torch.arange(12.0).view(3, 4)
    plain = inspect.unwrap(entk)  # without the tests' own checks of types
    with pytest.raises(BadInput, match=words) as caught:
        plain(**{"module": nn.Linear(4, 2), "inputs": inputs, **arguments})
    assert "\n" not in str(caught.value)


def test_recomputed_statistics_change_an_early_kernel():
    """The two kernels of the same weights differ by more than rounding: a run must use the recomputed."""
    setting, dataset = small_setting("cnn"), small_dataset()
    evaluator = Evaluator(Trial(setting, 0, Protocol(train_sample=256)), dataset)
    start = lanes.take(initial_state(setting, dataset, 0), [0] * 4)
    trainer = LaneTrainer(setting, dataset, start, seed=0)
    trainer.advance(5, [reference_order(setting, 0)])
    reference = lanes.fork(trainer.state)
    network = build_model(setting, dataset, seed=0)

    def kernel(state):
        lanes.write(state, network)
        return entk(OneLane(network), dataset.train_inputs[:16])

    assert kernel_distance(kernel(reference), kernel(evaluator.recomputed(reference))) > 0.05
