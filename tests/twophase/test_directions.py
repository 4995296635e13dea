"""Each kind of perturbation against its closed form, and what models say of their parameters against what they do."""

import math
from contextlib import suppress
from itertools import pairwise

import pytest
import torch
from samples import NUM_CLASSES, plain, small_dataset, small_setting
from test_perturb import KEY, difference, flat, trained
from torch.nn.functional import cross_entropy

from twophase import lanes
from twophase.config import NORM_LAYERS, Protocol, Trial
from twophase.directions import PERTURBATIONS, across
from twophase.errors import BadInput
from twophase.experiment import SENTINEL, Child, Experiment, Todo
from twophase.models import MODELS
from twophase.models.layers import LaneWeights
from twophase.perturb import perturb
from twophase.seeding import stream
from twophase.subject import Subject
from twophase.training import blank_model, build_model, initial_state

NORMS = ("none", "batch")


def draw(kind, state):
    generator = stream(0, "perturbation", kind, KEY["fork_step"], KEY["direction"])
    return {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in state.parameters.items()}


def every_norm(**leaves):
    """Every model with every normalisation that it takes."""
    for model in MODELS:
        for norm_layer in NORM_LAYERS:
            own = {"shortcut": "B"} if model == "resnet" else {}
            with suppress(BadInput):
                yield small_setting(model, norm_layer=norm_layer, **own, **leaves)


def push(kind, model="cnn", magnitude=0.1, **leaves):
    """A state, what a perturbation adds to it, the dose and the trial."""
    state, subject = trained(model=model, **leaves)
    pushed, dose = perturb(state, kind, magnitude, subject, **KEY)
    return state, difference(state, pushed), dose, subject


@pytest.mark.parametrize("init", ["he", "torch"])
def test_init_scaled_noise_over_the_init_s_deviation_is_standard_normal(init):
    """By hand for an MLP of 12 inputs and three layers of 8: std √(2/fan_in), or 1/√(3 fan_in) of biases as well."""
    setting, dataset = small_setting(init=init, precision="float64"), small_dataset()
    state = initial_state(setting, dataset, 0)
    pushed, _ = perturb(state, "init_scaled", 1.0, Subject(setting, dataset, 0), **KEY)
    noise, normal = difference(state, pushed), draw("init_scaled", state)
    factors = []
    for name, value in noise.items():
        fan_in = 12 if name.startswith("hidden.0") else 8
        if name.endswith("bias") and init == "he":
            assert not value.any()
            continue
        std = math.sqrt(2 / fan_in) if init == "he" else 1 / math.sqrt(3 * fan_in)
        factors.append((value / (std * normal[name])).flatten())
    torch.testing.assert_close(torch.cat(factors), factors[0][:1].expand(len(torch.cat(factors))))


@pytest.mark.parametrize("init", ["he", "torch"])
@pytest.mark.parametrize("norm_layer", NORMS)
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_models_say_how_parameters_are_drawn(model, norm_layer, init):
    setting, dataset = small_setting(model, norm_layer=norm_layer, init=init), small_dataset()
    draws = blank_model(setting, dataset.input_shape, NUM_CLASSES).draws(init)
    starts = [initial_state(setting, dataset, seed).parameters for seed in range(40)]
    assert list(draws) == [n for n in starts[0] if n in draws]
    assert set(draws) == set(starts[0])
    for name, said in draws.items():
        values = torch.cat([start[name].flatten() for start in starts]).double()
        # Six standard errors of a mean and of a deviation; a normal's kurtosis makes the latter 1/√(2n).
        near = 6 * said.std / math.sqrt(len(values))
        assert float(values.mean()) == pytest.approx(said.mean, abs=near + 1e-12)
        assert float(values.std()) == pytest.approx(said.std, abs=near + 1e-12)
    norms = torch.tensor([float(flat(start).norm()) for start in starts])
    expected = Subject(setting, dataset, 0).init_norm
    assert float(norms.square().mean().sqrt()) == pytest.approx(expected, abs=6 * float(norms.std()) / math.sqrt(40))


@pytest.mark.parametrize("norm", ["parameters", "pushed", "init", "absolute"])
def test_what_the_magnitude_is_relative_to(norm):
    """The MLP's expected norm at init: out × fan_in × 2/fan_in, over layers of 8, 8, 8 and 3 outputs: 54."""
    state, noise, _, _ = push(f"gaussian(norm={norm}, include=hidden.*)", model="mlp")
    included = {name: value for name, value in state.parameters.items() if name.startswith("hidden")}
    expected = {
        "parameters": float(flat(state.parameters).norm()),
        "pushed": float(flat(included).norm()),
        "init": math.sqrt(54),
        "absolute": 1.0,
    }[norm]
    assert float(flat(noise).norm()) == pytest.approx(0.1 * expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["layerwise", "layerwise(include=convs.*)"])
def test_layerwise_gives_every_layer_the_same_dose_across_its_weights(kind):
    state, noise, dose, _ = push(kind)
    assert dose.layer_noise_max == pytest.approx(0.1, rel=1e-12)
    assert dose.layer_noise_min == (pytest.approx(0.1, rel=1e-12) if kind == "layerwise" else 0)
    for name, value in noise.items():
        along = (value * state.parameters[name]).flatten(1 if value.dim() == 2 else 2).sum(-1)
        assert (along.abs().max() < 1e-12) == (name.startswith("convs") or not value.any())


def test_nothing_lies_across_a_single_weight():
    noise, weight = torch.randn(1, 3, 1, 1, dtype=torch.float64), torch.randn(1, 3, 1, 1, dtype=torch.float64)
    assert not across(noise, weight).any()
    one = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    # Of (1, 0) the part along (3, 4) is 3/25 of it; along no weight there is nothing.
    found = across(torch.tensor([[[1.0, 0.0], [5.0, 6.0]]]), one)
    torch.testing.assert_close(found, torch.tensor([[[1 - 9 / 25, -12 / 25], [5.0, 6.0]]]))


@pytest.mark.parametrize("setting", list(every_norm(precision="float64")), ids=lambda s: f"{s.model}-{s.norm_layer}")
def test_a_layer_is_normed_just_where_scaling_it_changes_no_logits(setting):
    """Weights so large that the ε of the normalisation is nothing beside the variance."""
    dataset = small_dataset()
    network = build_model(setting, dataset, seed=0).train()
    inputs = dataset.train_inputs[:64].double()
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LaneWeights)}

    def change(layer, factors):
        before = [parameter.clone() for parameter in layer.parameters()]
        for parameter in layer.parameters():
            parameter.mul_(factors.view(1, -1, *[1] * (parameter.dim() - 2)))
        moved = float((network(inputs) - logits).abs().max() / logits.abs().max())
        for parameter, value in zip(layer.parameters(), before, strict=True):
            parameter.copy_(value)
        return moved

    with torch.no_grad():
        for layer in layers.values():
            layer.weight.mul_(1e3)
        logits = network(inputs)
        for name, layer in layers.items():
            is_normed = name in network.normed_layers()
            # ε = 1e-5 over variances of 1e6, and the rounding of some 20 layers.
            assert (change(layer, torch.tensor(3.0)) < 1e-8) == is_normed
            if setting.norm_layer == "batch":
                units = 1 + torch.rand(layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
                assert (change(layer, units) < 1e-8) == is_normed


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_the_gradient_is_autograd_s_of_a_plain_network(model, precision):
    state, noise, _, subject = push("gradient", model=model, precision=precision)
    dataset = small_dataset().to(torch.device("cpu"), getattr(torch, precision))
    generator = stream(0, "perturbation", "gradient", KEY["fork_step"], KEY["direction"])
    batch = torch.randperm(len(dataset.train_labels), generator=generator)[:16]
    network = plain(subject._setting, dataset.input_shape, state, 0).train()
    cross_entropy(network(dataset.train_inputs[batch].double()), dataset.train_labels[batch]).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    size = float(flat(state.parameters).norm())
    # θ′ is rounded to 2⁻²⁴ of weights of order 1 where it is float32.
    near = {"rtol": 0, "atol": 1e-11 if precision == "float64" else 1e-6}
    torch.testing.assert_close(flat(noise) / (0.1 * size), expected / expected.norm(), **near)


def test_a_gradient_of_zero_has_no_direction():
    """All inputs of all hidden units negative: nothing moves but the last bias, which is excluded."""
    state, subject = trained(model="mlp")
    dead = {n: -torch.ones_like(v) if n.endswith("bias") else 0 * v for n, v in state.parameters.items()}
    state = lanes.LaneState(dead, state.buffers, state.optimizer)
    pushed, dose = perturb(state, "gradient(exclude=head.bias)", 0.1, subject, **KEY)
    assert dose.changed_fraction == 0
    assert lanes.state_digest(pushed) == lanes.state_digest(state)


def test_sparse_moves_a_share_and_a_larger_share_holds_a_smaller():
    supports = []
    for fraction in (1e-9, 0.01, 0.25, 1):
        state, noise, dose, _ = push(f"sparse(fraction={fraction})")
        chosen = flat(noise) != 0
        total = len(chosen)
        assert int(chosen.sum()) == max(1, round(fraction * total))
        assert dose.changed_fraction == int(chosen.sum()) / total
        ratio = (flat(noise) / flat(draw("sparse", state)))[chosen]
        torch.testing.assert_close(ratio, ratio[:1].expand(len(ratio)))
        supports.append(chosen)
    for small, large in pairwise(supports):
        assert not (small & ~large).any()
    within, noise, _, _ = push("sparse(fraction=0.5, include=convs.*)")
    num_convs = sum(value.numel() for name, value in within.parameters.items() if name.startswith("convs"))
    assert int((flat(noise) != 0).sum()) == round(0.5 * num_convs)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_ulp_is_one_weight_to_its_neighbour(precision):
    dtype = getattr(torch, precision)
    found = set()
    for direction in range(20):
        state, subject = trained(precision)
        pushed, dose = perturb(state, "ulp", 0.0, subject, fork_step=7, direction=direction)
        before, after = flat(state.parameters), flat(pushed.parameters)
        # To the bit: a zero keeps its sign.
        (place,) = (before.view(torch.int64) != after.view(torch.int64)).nonzero().flatten().tolist()
        old, new = before[place].to(dtype), after[place].to(dtype)
        away = torch.copysign(torch.full_like(old, math.inf), old)
        assert float(torch.nextafter(old, away)) == float(new)
        assert abs(float(new)) > abs(float(old)) > 0
        assert dose.changed_fraction == 1 / len(before)
        found.add(place)
    assert len(found) > 15


def test_an_ulp_of_zeros_moves_nothing():
    state, subject = trained(model="mlp")
    zeros = lanes.LaneState({n: 0 * v for n, v in state.parameters.items()}, state.buffers, state.optimizer)
    pushed, dose = perturb(zeros, "ulp", 0.0, subject, **KEY)
    assert lanes.state_digest(pushed) == lanes.state_digest(zeros)
    assert dose.changed_fraction == 0


def test_a_trial_of_every_kind():
    setting, dataset = small_setting("cnn", num_steps=12), small_dataset()
    kinds = [*PERTURBATIONS, "gaussian(include=head.*, momentum=true)"]
    children = [Child(6, kind, 0.0 if kind == "ulp" else 1e-2) for kind in kinds]
    todo = Todo({SENTINEL: (12,), **dict.fromkeys(children, (12,))})
    outcome = Experiment(Trial(setting, 0, Protocol(path_points=3)), todo, dataset).run()
    assert outcome.summary["is_sentinel_exact"]
    moved = {row["perturbation"]: row["noise_norm"] for row in outcome.rows["chaos"]}
    assert set(moved) == {"none", *kinds}
    assert {kind for kind, size in moved.items() if size == 0} == {"none"}
    assert len(set(moved.values())) > 3
