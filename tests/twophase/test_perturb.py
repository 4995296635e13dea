"""Perturbations: of the asked size, the same for the same key, and touching nothing but what they were asked to."""

import math
from functools import lru_cache

import pytest
import torch
from samples import small_dataset, small_setting

from twophase import lanes
from twophase.config import Protocol, Trial
from twophase.directions import PERTURBATIONS
from twophase.experiment import SENTINEL, Child, Experiment, Todo, fork_child
from twophase.perturb import NO_DOSE, perturb, realised_dose
from twophase.seeding import stream, stream_seed
from twophase.subject import Subject
from twophase.training import LaneTrainer, initial_state, reference_order

KEY = {"fork_step": 7, "direction": 0}
ISOTROPIC = ("gaussian", "gaussian_absolute", "sparse")
SIZED = sorted(kind for kind, entry in PERTURBATIONS.items() if entry.norm != "none")

every_kind = pytest.mark.parametrize("kind", sorted(PERTURBATIONS))
every_sized_kind = pytest.mark.parametrize("kind", SIZED)


@lru_cache
def trained(precision="float64", model="cnn", optimizer="sgd"):
    """A state after some steps, when momentum and statistics are not those of the start, and its trial."""
    setting = small_setting(model, precision=precision, optimizer=optimizer)
    dataset = small_dataset().to(torch.device("cpu"), getattr(torch, precision))
    trainer = LaneTrainer(setting, dataset, lanes.take(initial_state(setting, dataset, 0), [0] * 4), seed=0)
    trainer.advance(7, [reference_order(setting, 0)])
    state = lanes.fork(trainer.state)
    state.parameters["head.bias"].view(-1)[0] = -0.0
    return state, Subject(setting, dataset, seed=0)


def difference(before, after):
    return {name: after.parameters[name].double() - value.double() for name, value in before.parameters.items()}


def flat(parameters):
    return torch.cat([value.double().flatten() for value in parameters.values()])


def is_same(before, after):
    """Bit by bit."""
    return torch.equal(before.contiguous().view(torch.int64), after.contiguous().view(torch.int64))


@every_sized_kind
@pytest.mark.parametrize("magnitude", [1e-6, 1e-3, 0.1, 3.0])
def test_the_realised_norm_is_the_one_asked_for(kind, magnitude):
    state, subject = trained()
    pushed, dose = perturb(state, kind, magnitude, subject, **KEY)
    unit = 1.0 if kind == "gaussian_absolute" else float(flat(state.parameters).norm())
    realised = float(flat(difference(state, pushed)).norm())
    # float64 rounds θ′ to 1e-16 of θ; of a push of 1e-6 θ that is 1e-10.
    relative = 1e-12 if magnitude >= 1e-3 else 1e-9
    assert realised == pytest.approx(magnitude * unit, rel=relative)
    assert dose.noise_norm == pytest.approx(realised, rel=1e-12)
    assert dose.changed_fraction == float((flat(difference(state, pushed)) != 0).double().mean())
    assert 0 <= dose.layer_noise_min <= dose.layer_noise_max


@every_kind
def test_optimiser_and_buffers_stay_and_the_source_is_untouched(kind):
    state, subject = trained()
    before = lanes.state_digest(state)
    pushed, dose = perturb(state, kind, 0.1, subject, **KEY)
    assert lanes.state_digest(state) == before
    assert dose.changed_fraction > 0
    assert state.buffers
    assert state.optimizer
    for group in ("buffers", "optimizer"):
        for name, value in getattr(state, group).items():
            assert torch.equal(getattr(pushed, group)[name], value)
            assert value.abs().max() > 0


@every_kind
def test_excluded_parameters_keep_their_bits(kind):
    state, subject = trained()
    for options, kept in (("exclude=head.*|norms.[01].*", "head norms.0 norms.1"), ("include=convs.*", "head norms")):
        pushed, dose = perturb(state, f"{kind}({options})", 0.1, subject, **KEY)
        names = {name for name in state.parameters if name.startswith(tuple(kept.split()))}
        assert len(names) >= 6
        assert all(is_same(state.parameters[name], pushed.parameters[name]) for name in names)
        assert dose.changed_fraction > 0


@pytest.mark.parametrize("kind", [kind for kind in SIZED if "fraction" not in PERTURBATIONS[kind].options])
def test_patterns_choose_from_the_same_draw(kind):
    """Sparse ones choose anew, their share of what is included."""
    state, subject = trained()
    whole = difference(state, perturb(state, kind, 0.1, subject, **KEY)[0])["convs.1.weight"]
    part = difference(state, perturb(state, f"{kind}(include=convs.1.weight)", 0.1, subject, **KEY)[0])
    torch.testing.assert_close(part["convs.1.weight"] / part["convs.1.weight"].norm(), whole / whole.norm())
    assert not flat({name: value for name, value in part.items() if name != "convs.1.weight"}).any()


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_momentum_is_pushed_only_where_asked(kind, optimizer):
    state, subject = trained(optimizer=optimizer)
    plain, _ = perturb(state, kind, 0.1, subject, **KEY)
    pushed, _ = perturb(state, f"{kind}(momentum=true, exclude=head.*)", 0.1, subject, **KEY)
    without, _ = perturb(state, f"{kind}(exclude=head.*)", 0.1, subject, **KEY)
    assert all(torch.equal(value, without.parameters[name]) for name, value in pushed.parameters.items())
    momentum = {"sgd": "momentum_buffer", "adamw": "exp_avg"}[optimizer]
    change = {key: pushed.optimizer[key] - value for key, value in state.optimizer.items()}
    moved = {name for (name, quantity), value in change.items() if quantity == momentum and value.any()}
    assert moved == {name for name in state.parameters if pushed.parameters[name] is not state.parameters[name]}
    assert not any(value.any() for (_, quantity), value in change.items() if quantity != momentum)
    whole = flat({key: value for key, value in state.optimizer.items() if key[1] == momentum}).norm()
    relative = flat(difference(state, pushed)).norm() / flat(state.parameters).norm()
    assert float(flat(change).norm()) == pytest.approx(float(whole * relative), rel=1e-10)
    noise = flat({key: value for key, value in change.items() if key[1] == momentum})
    cosine = float(noise @ flat(difference(state, plain))) / float(noise.norm() * flat(difference(state, plain)).norm())
    assert abs(cosine) < 6 / math.sqrt(len(noise))
    assert all(torch.equal(value, plain.optimizer[key]) for key, value in state.optimizer.items())


@every_sized_kind
def test_directions_are_shared_by_all_magnitudes(kind):
    state, subject = trained()
    units = []
    for magnitude in (1e-3, 1e-2, 1.0):
        noise = flat(difference(state, perturb(state, kind, magnitude, subject, **KEY)[0]))
        units.append(noise / noise.norm())
    for unit in units[1:]:
        # 1e-16 of θ over a push of 1e-3 θ.
        torch.testing.assert_close(unit, units[0], rtol=0, atol=1e-12)


@every_kind
def test_directions_differ_by_everything_that_names_them(kind):
    state, subject = trained()

    def unit(kind=kind, seed=0, **changed):
        of_seed = Subject(subject._setting, subject._dataset, seed)
        noise = flat(difference(state, perturb(state, kind, 0.1, of_seed, **{**KEY, **changed})[0]))
        return noise / noise.norm()

    first = unit()
    assert torch.equal(unit(), first)
    others = [unit(seed=1), unit(fork_step=8), unit(direction=1)]
    others += [unit(kind=other) for other in ISOTROPIC if other != kind]
    for other in others:
        assert not torch.equal(other, first)
        if kind in ISOTROPIC:
            # Independent directions in n dimensions have a cosine of order 1/√n; six times that doesn't happen.
            assert abs(float(first @ other)) < 6 / math.sqrt(len(first))


@every_kind
def test_no_global_random_state(kind):
    state, subject = trained()
    torch.manual_seed(1)
    first, _ = perturb(state, kind, 0.1, subject, **KEY)
    expected = torch.manual_seed(2).get_state()
    second, _ = perturb(state, kind, 0.1, subject, **KEY)
    assert lanes.state_digest(first) == lanes.state_digest(second)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["gaussian", "gaussian_absolute"])
def test_gaussian_by_hand_to_the_bit(kind, precision):
    """Rows of old studies stand beside those of new ones: these draws never change."""
    state, subject = trained(precision)
    generator = stream(0, "perturbation", kind, 7, 0)
    noise = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in state.parameters.items()}
    inverse = 1.0 / math.sqrt(sum(float(value.square().sum()) for value in noise.values()))
    size = math.sqrt(sum(float(value.double().square().sum()) for value in state.parameters.values()))
    scale = 0.1 * (size if kind == "gaussian" else 1.0)
    pushed, dose = perturb(state, kind, 0.1, subject, **KEY)
    assert dose.changed_fraction == 1
    for name, value in state.parameters.items():
        expected = (value.double() + scale * (noise[name] * inverse)).to(value.dtype)
        assert torch.equal(pushed.parameters[name], expected)


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
    state, subject = trained("float32")
    pushed, dose = perturb(state, "gaussian", 1e-8, subject, **KEY)
    change = flat(difference(state, pushed))
    assert 0 < dose.changed_fraction < 1
    assert dose.changed_fraction == float((change != 0).double().mean())
    assert dose.noise_norm == pytest.approx(float(change.norm()), rel=1e-12)
    asked = 1e-8 * float(flat(state.parameters).norm())
    assert dose.noise_norm != pytest.approx(asked, rel=1e-3)
    assert perturb(state, "gaussian", 1e-30, subject, **KEY)[1].noise_norm < 1e-20


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
    state, subject = trained()
    made, dose = fork_child(lanes.stack([state, state]), Child(7, kind), subject)
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
