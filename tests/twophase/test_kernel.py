"""The eNTK against a plain Jacobian, its distance against the formula, and what is said of one kernel."""

import copy
import functools
import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import PLAIN, SHAPES, small_dataset, small_setting
from torch import nn
from torch.utils.checkpoint import checkpoint

from twophase import entk, kernel_distance, lanes
from twophase.config import Protocol, Trial
from twophase.errors import BadInput
from twophase.evaluation import Evaluator
from twophase.kernel import KINDS, summarise
from twophase.kernels import layerwise
from twophase.kernels.blocks import Factor, Sizes, add_pairwise, add_unfolded
from twophase.kernels.planning import make_plan
from twophase.models import MODELS, OneLane
from twophase.training import LaneTrainer, build_model, initial_state, reference_order

NUM = 7
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
    return {
        "full": full.reshape(num * classes, num * classes),
        "trace": torch.einsum("ncmc->nm", full),
        "pseudo": full.sum((1, 3)) / classes,
        "loss_gradient": flat @ flat.T,
    }


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
    assert bool(make_plan(module, inputs, None, is_summed=False).lone) == (model == "custom")


@pytest.mark.parametrize(
    ("model", "norm_layer"),
    [("mlp", "batch"), ("mlp", "layer"), ("resnet", "group"), ("vgg", "layer"), ("vit", "none")],
)
def test_every_normalisation_of_the_zoo_has_a_rule(model, norm_layer):
    module, inputs, labels = trained(model, SHAPES["2d"], norm_layer=norm_layer)
    assert_same(entk(module, inputs), by_hand(module, inputs, labels)["full"])
    assert not make_plan(module, inputs, None, is_summed=False).lone


class Residual(nn.Module):
    """A shared layer used twice, a scalar parameter, a frozen one and a layer norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 5)
        self.twice = nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.norm = nn.LayerNorm(5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.scale * torch.tanh(self.twice(x))
        return self.head(self.drop(self.norm(x + self.frozen * torch.tanh(self.twice(x)))))


class Applied(nn.Module):
    """Parts, and a function that applies them."""

    def __init__(self, apply_parts, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._apply_parts = apply_parts

    def forward(self, x):
        return self._apply_parts(self, x)


def tied():
    first, last = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
    last.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), last, nn.Linear(6, 3))


def hooked():
    module = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    module[0].register_forward_hook(lambda _, args, output: output * args[0].mean(-1, keepdim=True))
    return module


def bias_only():
    module = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3))
    module[0].weight.requires_grad_(False)
    module[3].weight.requires_grad_(False)
    return module


def routed(m, x):
    """Each input goes to the expert of its sign: the first inputs all to one."""
    chosen = x[:, 0] > 0
    out = x.new_zeros(len(x), 3).index_put((chosen,), m.plus(x[chosen]))
    if not chosen.all():
        out = out.index_put((~chosen,), m.minus(x[~chosen]))
    return m.head(out)


def cropped(m, x):
    """As many positions as the longest input has that aren't 0; what is cropped counts for nothing."""
    length = int((x != 0).any(2).any(0).nonzero().max()) + 1
    return m.head((torch.tanh(m.lin(x[:, :length])) * x[:, :length, :1]).sum(1))


def attended(m, x):
    return m.head(m.norm(x + m.attention(x, x, x)[0]).mean(1))


def several(m, x):
    branch = m.right(x) if len(x) else m.unused(x)
    return (m.left(x) + branch, None)[0]


def in_place(m, x):
    x.mul_(0.5)
    x = m.first(x)
    x.relu_()
    x = m.norm(x) * 0.5
    x += 1
    return m.last(x).mul_(2.0)


def plain_resnet():
    setting = small_setting("resnet", shortcut="B")
    module = PLAIN["resnet"](setting, (3, 6, 6))
    module.activation = "relu"
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.weight)
    return module


def sequential(*layers):
    return lambda: nn.Sequential(*[layer() for layer in layers])


def seeded(build):
    torch.manual_seed(3)
    return build().double()


L, TOKENS = functools.partial, 9

MODULES = {
    # What no rule answers for stands last: names of parameters.
    "residual": (Residual, (NUM, 6), {"twice.weight", "twice.bias", "scale"}),
    "one logit": (L(nn.Linear, 4, 1), (NUM, 4), set()),
    "one input": (L(nn.Linear, 4, 3), (1, 4), set()),
    "plain resnet": (plain_resnet, (NUM, 3, 6, 6), set()),
    "groups, dilation, circular": (
        sequential(
            L(nn.Conv2d, 4, 6, 3, groups=2, dilation=2, padding=2, padding_mode="circular"),
            nn.GELU,
            L(nn.Conv2d, 6, 12, (1, 3), groups=6, stride=(2, 1), bias=False),
            nn.Flatten,
            L(nn.Linear, 144, 3),
        ),
        (NUM, 4, 6, 6),
        set(),
    ),
    "even windows, reflected": (
        sequential(
            L(nn.Conv1d, 2, 4, 4, padding="same"),
            nn.Tanh,
            L(nn.Conv1d, 4, 4, 3, padding=2, padding_mode="reflect", stride=2),
            L(nn.BatchNorm1d, 4),
            L(nn.Conv1d, 4, 64, 2, padding="valid"),
            L(nn.AdaptiveAvgPool1d, 2),
            nn.Flatten,
            L(nn.Linear, 128, 3),
        ),
        (NUM, 2, 6),
        set(),
    ),
    "three dimensions": (
        sequential(L(nn.Conv3d, 1, 2, 2, padding=1), L(nn.GroupNorm, 2, 2), nn.Flatten, L(nn.Linear, 128, 3)),
        (NUM, 1, 3, 3, 3),
        set(),
    ),
    "norms": (
        sequential(
            L(nn.LayerNorm, (4, 6)),
            L(nn.Linear, 6, 8),
            L(nn.RMSNorm, 8),
            L(nn.LayerNorm, 8, elementwise_affine=False),
            L(nn.GroupNorm, 2, 4),
            L(nn.LayerNorm, 8, bias=False),
            nn.Flatten,
            L(nn.BatchNorm1d, 32),
            L(nn.Linear, 32, 3),
        ),
        (NUM, 4, 6),
        set(),
    ),
    "tokens": (
        sequential(
            L(nn.Embedding, TOKENS, 4, padding_idx=2), L(nn.Linear, 4, 8), nn.GELU, nn.Flatten, L(nn.Linear, 24, 3)
        ),
        TOKENS,
        set(),
    ),
    "two tokens of one": (
        sequential(L(nn.Embedding, TOKENS, 4), L(nn.AdaptiveAvgPool2d, (1, 3)), nn.Flatten),
        TOKENS,
        set(),
    ),
    "bias alone": (bias_only, (NUM, 1, 6), set()),
    "in place": (
        lambda: Applied(in_place, first=nn.Linear(6, 5), norm=nn.LayerNorm(5), last=nn.Linear(5, 3)),
        (NUM, 6),
        set(),
    ),
    "branches, unused": (
        lambda: Applied(several, left=nn.Linear(6, 3), right=nn.Linear(6, 3), unused=nn.Linear(6, 3)),
        (NUM, 6),
        set(),
    ),
    "called twice": (
        lambda: Applied(
            lambda m, x: m.head(m.conv(m.conv(x)).flatten(1)), conv=nn.Conv1d(1, 1, 3), head=nn.Linear(4, 3)
        ),
        (NUM, 1, 8),
        {"conv.weight", "conv.bias"},
    ),
    "tied": (tied, (NUM, 6), {"0.weight", "2.bias"}),
    "used outside": (
        lambda: Applied(
            lambda m, x: m.last(m.first(x) + nn.functional.linear(x, m.first.weight)) * m.scaled.bias.exp(),
            first=nn.Linear(6, 5),
            last=nn.Linear(5, 3),
            scaled=nn.Linear(2, 3),
        ),
        (NUM, 6),
        {"first.weight", "first.bias", "scaled.bias"},
    ),
    "fed by itself": (
        lambda: Applied(lambda m, x: m.head(m.lin(x @ m.lin.weight)), lin=nn.Linear(6, 6), head=nn.Linear(6, 3)),
        (NUM, 6),
        {"lin.weight", "lin.bias"},
    ),
    "hooked": (hooked, (NUM, 6), {"0.weight", "0.bias"}),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
        (NUM, 6),
        {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "positions first": (
        lambda: Applied(
            lambda m, x: m.head(m.lin(x.transpose(0, 1)).sum(0)), lin=nn.Linear(6, 5), head=nn.Linear(5, 3)
        ),
        (NUM, 2, 6),  # as many positions as inputs are looked at
        {"lin.weight", "lin.bias"},
    ),
    "inputs reversed inside": (
        lambda: Applied(lambda m, x: m.head(m.lin(x.flip(0)).flip(0)), lin=nn.Linear(6, 5), head=nn.Linear(5, 3)),
        (NUM, 6),
        {"lin.weight", "lin.bias"},
    ),
    "experts": (  # of whom one is met only when its inputs come
        lambda: Applied(routed, plus=nn.Linear(6, 3), minus=nn.Linear(6, 3), head=nn.Linear(3, 3)),
        (NUM, 6),
        set(),
    ),
    "cropped": (
        lambda: Applied(cropped, lin=nn.Linear(6, 5), head=nn.Linear(5, 3)),
        (NUM, 3, 6),
        set(),
    ),
    "attention": (
        lambda: Applied(
            attended,
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            norm=nn.LayerNorm(6),
            head=nn.Linear(6, 3),
        ),
        (NUM, 4, 6),
        {f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")},
    ),
    "recurrent": (
        lambda: Applied(
            lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(3, 4, batch_first=True), head=nn.Linear(4, 3)
        ),
        (NUM, 4, 3),
        {f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    ),
    "checkpoints": (
        lambda: Applied(
            lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False)),
            body=nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            head=nn.Linear(6, 3),
        ),
        (NUM, 6),
        set(),
    ),
    "values decide": (
        lambda: Applied(
            lambda m, x: m.head(m.lin(x)) if x.shape[0] > 1 or x.sum() > -1e9 else m.head(x),
            lin=nn.PReLU(),
            head=nn.Linear(6, 3),
        ),
        (NUM, 6),
        {"lin.weight"},
    ),
}


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
    assert {piece.name for piece in make_plan(module, inputs, None, is_summed=False).lone} == lone


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


def test_memory_is_bounded(monkeypatch):
    """What is kept of layers' gradients at a time is within half of the budget, but for what one layer needs."""
    held, keep = [], layerwise._Assembly._keep

    def spy(self, group, some):
        kept = keep(self, group, some)
        held.append(sum(t.numel() for f in kept.factors.values() for t in (f.x, f.gamma)) + kept.features.numel())
        return kept

    monkeypatch.setattr(layerwise._Assembly, "_keep", spy)
    module, inputs, _ = trained("cnn", SHAPES["2d-3"])
    entk(module, inputs)
    assert len(held) == 1
    for budget in (16_000, 60_000):
        held.clear()
        entk(module, inputs, memory_bytes=budget)
        assert len(held) > 1
        assert max(held) * 8 <= budget // 2


@pytest.mark.parametrize("form", [add_unfolded, add_pairwise])
@pytest.mark.parametrize(("positions", "groups"), [(1, 1), (3, 1), (1, 2), (3, 2)])
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


matrices = st.integers(0, 10_000).map(
    lambda seed: torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
)


@given(matrices, matrices, st.sampled_from([1e-3, 7.0, 1e160, 1e-160]))
def test_the_distance_is_one_minus_the_cosine_and_blind_to_scale(first, second, scale):
    expected = 1 - float((first * second).sum() / (first.norm() * second.norm()))
    assert kernel_distance(first, second) == pytest.approx(expected, abs=1e-14)
    assert kernel_distance(first, scale * second) == pytest.approx(expected, abs=1e-14)
    assert kernel_distance(second, first) == kernel_distance(first, second)
    assert kernel_distance(first, first) == 0


def test_the_distance_of_almost_equal_kernels_keeps_its_digits():
    first = torch.eye(4, dtype=torch.float64)
    second = first.clone()
    second[0, 1] = 1e-9
    # tan φ = 1e-9/2, and 1 − cos φ = φ²/2; as a difference from 1 it would be 0.
    assert kernel_distance(first, second) == pytest.approx(1.25e-19, rel=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.full((3, 3), math.nan), torch.full((3, 3), math.inf)])
def test_the_distance_to_what_is_no_kernel_is_unknown(bad):
    assert math.isnan(kernel_distance(torch.eye(3), bad))


def test_the_distance_of_what_is_not_two_kernels_of_one_size():
    with pytest.raises(BadInput, match=r"one shape, got \(3, 3\) and \(2, 2\)"):
        kernel_distance(torch.eye(3), torch.eye(2))
    with pytest.raises(BadInput, match=r"non-empty tensors, got shape \(0, 0\)"):
        kernel_distance(torch.eye(0), torch.eye(0))
    with pytest.raises(BadInput, match="tensors, got ndarray"):
        inspect.unwrap(kernel_distance)(torch.eye(3).numpy(), torch.eye(3))


def test_a_summary_against_its_formulas():
    labels = torch.tensor([0, 1, 2, 0])
    root = torch.randn(12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = root @ root.T
    target = torch.zeros(4, 3, dtype=torch.float64)
    target[torch.arange(4), labels] = 1
    y = (target - target.mean(0)).reshape(12)
    found = summarise(kernel, labels, 3)
    assert found.norm == pytest.approx(float(kernel.norm()), rel=1e-12)
    assert found.trace == pytest.approx(float(kernel.trace()), rel=1e-12)
    assert found.effective_rank == pytest.approx(float(kernel.trace() ** 2 / kernel.norm() ** 2), rel=1e-12)
    assert found.alignment == pytest.approx(float(y @ kernel @ y / (kernel.norm() * (y @ y))), rel=1e-12)
    huge = summarise(1e200 * kernel, labels, 3)
    assert (huge.effective_rank, huge.alignment) == pytest.approx((found.effective_rank, found.alignment), rel=1e-12)
    assert huge.norm == pytest.approx(1e200 * found.norm, rel=1e-12)
    assert math.isnan(summarise(0 * kernel, labels, 3).effective_rank)


def test_a_kernel_that_is_the_labels_is_aligned_and_has_their_rank():
    labels = torch.arange(9) % 3
    centred = torch.eye(3, dtype=torch.float64)[labels] - 1 / 3
    found = summarise(centred @ centred.T, labels, 3)
    # On the two directions in which centred one-hot labels of three equal classes lie, all eigenvalues are equal.
    assert found.effective_rank == pytest.approx(2, rel=1e-12)
    assert found.alignment == pytest.approx(1 / math.sqrt(2), rel=1e-12)


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
