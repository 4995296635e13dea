"""Perturbations: of the asked size, the same for the same key, and touching nothing but the parameters."""

import math

import pytest
import torch
from samples import small_dataset, small_setting

from twophase import lanes
from twophase.config import Protocol, Trial
from twophase.experiment import SENTINEL, Child, Experiment, Todo, fork_child
from twophase.perturb import NO_DOSE, PERTURBATIONS, norm, perturb, realised_dose
from twophase.seeding import stream, stream_seed
from twophase.training import LaneTrainer, initial_state, reference_order

KEY = {"seed": 0, "fork_step": 7, "direction": 0}


def trained(precision="float64", model="cnn"):
    """A state after some steps: momentum and statistics are not those of the start."""
    setting = small_setting(model, precision=precision)
    dataset = small_dataset().to(torch.device("cpu"), getattr(torch, precision))
    trainer = LaneTrainer(setting, dataset, lanes.take(initial_state(setting, dataset, 0), [0] * 4), seed=0)
    trainer.advance(7, [reference_order(setting, 0)])
    return lanes.fork(trainer.state)


def difference(before, after):
    return {name: after.parameters[name].double() - value.double() for name, value in before.parameters.items()}


def flat(parameters):
    return torch.cat([value.double().flatten() for value in parameters.values()])


every_kind = pytest.mark.parametrize("kind", sorted(PERTURBATIONS))


@every_kind
@pytest.mark.parametrize("magnitude", [1e-6, 1e-3, 0.1, 3.0])
def test_the_realised_norm_is_the_one_asked_for(kind, magnitude):
    state = trained()
    pushed, dose = perturb(state, kind, magnitude, **KEY)
    unit = float(flat(state.parameters).norm()) if PERTURBATIONS[kind].is_relative else 1.0
    realised = float(flat(difference(state, pushed)).norm())
    # float64 rounds θ′ to 1e-16 of θ; of a push of 1e-6 θ that is 1e-10.
    relative = 1e-12 if magnitude >= 1e-3 else 1e-9
    assert realised == pytest.approx(magnitude * unit, rel=relative)
    assert dose.noise_norm == pytest.approx(realised, rel=1e-12)
    assert dose.changed_fraction == 1.0
    assert 0 < dose.layer_noise_min <= dose.layer_noise_max


@every_kind
def test_optimiser_and_buffers_stay_and_the_source_is_untouched(kind):
    state = trained()
    before = lanes.state_digest(state)
    pushed, _ = perturb(state, kind, 0.1, **KEY)
    assert lanes.state_digest(state) == before
    assert state.buffers
    assert state.optimizer
    for group in ("buffers", "optimizer"):
        for name, value in getattr(state, group).items():
            assert torch.equal(getattr(pushed, group)[name], value)
            assert value.abs().max() > 0
    assert all(not torch.equal(pushed.parameters[name], value) for name, value in state.parameters.items())


@every_kind
def test_directions_are_shared_by_all_magnitudes(kind):
    state = trained()
    units = []
    for magnitude in (1e-3, 1e-2, 1.0):
        noise = flat(difference(state, perturb(state, kind, magnitude, **KEY)[0]))
        units.append(noise / noise.norm())
    for unit in units[1:]:
        # 1e-16 of θ over a push of 1e-3 θ.
        torch.testing.assert_close(unit, units[0], rtol=0, atol=1e-12)


@every_kind
def test_directions_differ_by_everything_that_names_them(kind):
    state = trained()

    def unit(kind=kind, **changed):
        noise = flat(difference(state, perturb(state, kind, 0.1, **{**KEY, **changed})[0]))
        return noise / noise.norm()

    first = unit()
    assert torch.equal(unit(), first)
    others = [unit(seed=1), unit(fork_step=8), unit(direction=1)]
    others += [unit(kind=other) for other in PERTURBATIONS if other != kind]
    for other in others:
        # Independent directions in n dimensions have a cosine of order 1/√n; six times that doesn't happen.
        assert abs(float(first @ other)) < 6 / math.sqrt(len(first))


def test_a_direction_has_norm_one_and_is_spread_over_all_weights():
    state = trained()
    for name, entry in PERTURBATIONS.items():
        unit = entry.direction(state.parameters, stream(0, "test", name))
        assert norm(unit) == pytest.approx(1, rel=1e-12)
        weights = flat(unit)
        assert weights.dtype == torch.float64
        # The mean square of n normal draws is within 6 standard errors √(2/n), in every tensor.
        for value in unit.values():
            if value.numel() >= 24:
                ratio = float(value.square().mean()) * len(weights)
                assert ratio == pytest.approx(1, abs=6 * math.sqrt(2 / value.numel()))


def test_a_child_does_not_depend_on_its_siblings():
    dataset, setting = small_dataset(), small_setting(num_steps=20)
    child = Child(5, "gaussian", 1e-3, 1)
    many = [Child(t, "gaussian", m, d) for t in (0, 5) for m in (1e-3, 1e-2) for d in (0, 1, 2)]
    controls = [Child(5, "order", 0.0, 0)]

    def row(children):
        todo = Todo({SENTINEL: (20,), **dict.fromkeys(children, (20,))})
        outcome = Experiment(Trial(setting, 0, Protocol(path_points=3)), todo, dataset).run()
        keys = ("perturbation", "fork_step", "magnitude", "direction")
        wanted = (child.perturbation, child.fork_step, child.magnitude, child.direction)
        (found,) = [row for row in outcome.rows["chaos"] if tuple(row[key] for key in keys) == wanted]
        return found

    alone = row([child])
    assert row(many) == alone
    assert row([*controls, *reversed(many)]) == alone


def test_a_tiny_magnitude_is_recorded_as_it_was_realised():
    state = trained("float32")
    pushed, dose = perturb(state, "gaussian", 1e-8, **KEY)
    change = flat(difference(state, pushed))
    assert 0 < dose.changed_fraction < 1
    assert dose.changed_fraction == float((change != 0).double().mean())
    assert dose.noise_norm == pytest.approx(float(change.norm()), rel=1e-12)
    asked = 1e-8 * float(flat(state.parameters).norm())
    assert dose.noise_norm != pytest.approx(asked, rel=1e-3)
    assert perturb(state, "gaussian", 1e-30, **KEY)[1].noise_norm < 1e-20


def test_layer_doses_by_hand():
    before = {
        "a.weight": torch.tensor([[3.0, 0.0]]),
        "a.bias": torch.tensor([[4.0]]),
        "b.weight": torch.tensor([[2.0, 0.0]]),
    }
    after = {
        "a.weight": torch.tensor([[3.0, 0.5]]),
        "a.bias": torch.tensor([[4.0]]),
        "b.weight": torch.tensor([[2.0, 1.0]]),
    }
    dose = realised_dose(before, after)
    assert dose.layer_noise_min == pytest.approx(0.1)  # .5 of 5
    assert dose.layer_noise_max == pytest.approx(0.5)  # 1 of 2
    assert dose.noise_norm == pytest.approx(math.sqrt(1.25))
    assert dose.changed_fraction == 2 / 5
    assert realised_dose(before, before) == NO_DOSE


def test_a_layer_of_zeros_has_no_finite_dose():
    zero, one = {"a.bias": torch.zeros(1, 2)}, {"a.bias": torch.ones(1, 2)}
    assert realised_dose(zero, one).layer_noise_max == math.inf
    assert realised_dose(zero, zero) == NO_DOSE


@pytest.mark.parametrize("kind", ["none", "order"])
def test_sentinels_and_controls_are_exact_copies(kind):
    state = trained()
    made, dose = fork_child(lanes.stack([state, state]), Child(7, kind), 0)
    assert made.num_lanes == 1
    assert lanes.state_digest(made) == lanes.state_digest(state)
    assert dose == NO_DOSE


def test_streams_are_pinned():
    """The same on every machine: a change would silently redraw every study."""
    assert stream_seed(0, "init") == PINNED
    assert stream_seed(0, "a", 1, 2) != stream_seed(0, "a", 12)
    assert len({stream_seed(seed, purpose) for seed in range(5) for purpose in ("init", "order")}) == 10
    assert all(0 <= stream_seed(seed, "init") < 2**63 for seed in range(100))


PINNED = 1794697828628422165
