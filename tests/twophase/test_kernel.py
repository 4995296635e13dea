"""The eNTK against a plain Jacobian, its distance against the formula, and what is said of one kernel."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import SHAPES, small_dataset, small_setting
from torch import nn

from twophase import entk, kernel_distance, lanes
from twophase.config import Protocol, Trial
from twophase.errors import BadInput
from twophase.evaluation import Evaluator
from twophase.kernel import KINDS, summarise
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
        logits = module(inputs[n : n + 1])[0]
        for logit in logits:
            gradients = torch.autograd.grad(logit, parameters, retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
            rows.append(torch.cat([gradient.flatten() for gradient in filled]))
    return torch.stack(rows).view(len(inputs), len(logits), -1)


def by_hand(module, inputs, kind, labels):
    """Each kind by its own formula, not by readouts."""
    jacobian = plain_jacobian(module, inputs)
    num, classes, _ = jacobian.shape
    full = torch.einsum("ncp,mdp->ncmd", jacobian, jacobian)
    if kind == "full":
        return full.reshape(num * classes, num * classes)
    if kind == "trace":
        return torch.einsum("ncmc->nm", full)
    if kind == "pseudo":
        return full.sum((1, 3)) / classes
    losses = nn.functional.cross_entropy(module(inputs), labels, reduction="none")
    parameters = [value for value in module.parameters() if value.requires_grad]
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    flat = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
    return flat @ flat.T


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


@pytest.mark.parametrize("kind", ["full", "trace", "pseudo", "loss_gradient"])
@pytest.mark.parametrize("input_shape", [SHAPES["1d"], SHAPES["2d-3"]], ids=["1d", "2d-3"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_zoo_against_a_plain_jacobian(model, input_shape, kind):
    module, inputs, labels = trained(model, input_shape)
    assert_same(entk(module, inputs, kind, labels=labels), by_hand(module, inputs, kind, labels))


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


def seeded(build):
    torch.manual_seed(3)
    return build().double()


MODULES = {
    "residual": (Residual, (NUM, 6)),
    "grouped convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(96, 3)
        ),
        (NUM, 4, 6, 6),
    ),
    "one logit": (lambda: nn.Linear(4, 1), (NUM, 4)),
    "one input": (lambda: nn.Linear(4, 3), (1, 4)),
}


@pytest.fixture(autouse=True)
def _global_seed_kept():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("kind", ["full", "trace", "pseudo", "loss_gradient"])
@pytest.mark.parametrize(("build", "shape"), MODULES.values(), ids=MODULES)
def test_any_module_against_a_plain_jacobian(build, shape, kind):
    module = seeded(build)
    inputs = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    classes = module(inputs).shape[1]
    labels = torch.arange(len(inputs)) % classes
    assert_same(entk(module, inputs, kind, labels=labels), by_hand(module, inputs, kind, labels))


def test_embedding_of_integers():
    module = seeded(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3)))
    inputs = torch.randint(0, 9, (NUM, 3), generator=torch.Generator().manual_seed(1))
    assert_same(entk(module, inputs), by_hand(module, inputs, "full", None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_on_memory_changes_nothing_but_rounding(kind):
    module, inputs, labels = trained("cnn", SHAPES["1d"])
    whole = entk(module, inputs, kind, labels=labels)
    assert torch.equal(whole, whole.T) or torch.allclose(whole, whole.T, rtol=1e-12)
    for budget in (1, 200_000):
        assert_same(entk(module, inputs, kind, labels=labels, memory_bytes=budget), whole)


def test_memory_is_bounded(monkeypatch):
    """What is held of the Jacobian at a time follows from the budget."""
    from twophase import kernel

    held, call = [], kernel._Jacobian.__call__

    def spy(self, chosen, readout):
        rows = call(self, chosen, readout)
        held.append(sum(row.numel() * row.element_size() for row in rows))
        return rows

    monkeypatch.setattr(kernel._Jacobian, "__call__", spy)
    module, inputs, _ = trained("mlp", SHAPES["1d"])
    one = 3 * 8 * sum(value.numel() for value in module.parameters())
    entk(module, inputs, memory_bytes=5 * one)
    assert max(held) == 2 * one
    held.clear()
    entk(module, inputs)
    assert held == [NUM * one]


def test_a_projection_estimates_the_full_kernel_s_inner_products():
    module, inputs, _ = trained("mlp", SHAPES["1d"])
    other, _, _ = trained("mlp", SHAPES["1d"], lr=0.3)
    classes = 3

    def off_diagonal(module):
        full = entk(module, inputs).view(NUM, classes, NUM, classes)
        return full * (1 - torch.eye(NUM)).view(NUM, 1, NUM, 1)

    first, second = off_diagonal(module), off_diagonal(other)
    products = []
    for seed in range(400):
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
    for budget in (1, 1 << 30):
        assert_same(entk(module, inputs, kind, memory_bytes=budget), by_hand(module, inputs, kind, None))
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "ful"}, "unknown kernel 'ful'; did you mean 'full'"),
        ({"kind": "loss_gradient"}, "labels must be given for kernel 'loss_gradient', got None"),
        ({"module": nn.Flatten()}, "module must have a parameter that requires a gradient"),
        ({"module": nn.Conv1d(1, 1, 1)}, r"module must return logits \[N, C\] for N inputs, got shape"),
    ],
)
def test_what_cannot_be_computed_is_refused(arguments, words):
    inputs = torch.ones(3, 1, 4) if isinstance(arguments.get("module"), nn.Conv1d) else torch.ones(3, 4)
    with pytest.raises(BadInput, match=words):
        entk(**{"module": nn.Linear(4, 2), "inputs": inputs, **arguments})


matrices = st.integers(0, 10_000).map(
    lambda seed: torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
)


@given(matrices, matrices, st.floats(1e-3, 1e3))
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


def test_the_distance_of_kernels_of_different_size():
    with pytest.raises(BadInput, match=r"one shape, got \(3, 3\) and \(2, 2\)"):
        kernel_distance(torch.eye(3), torch.eye(2))


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
