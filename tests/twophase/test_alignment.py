"""Renumbering changes no function, and a renumbered reference is found again."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from samples import SMALL, small_dataset, small_setting

from twophase import chaos, lanes
from twophase.alignment import SYMMETRIES, align, check_alignable, match, permuted, symmetry_of
from twophase.comparison import barriers, compare, path
from twophase.config import Protocol, Trial
from twophase.errors import BadInput
from twophase.evaluation import Evaluator
from twophase.experiment import SENTINEL, Child, Experiment, Todo
from twophase.models import MODELS
from twophase.perturb import NO_DOSE
from twophase.seeding import stream
from twophase.training import LaneTrainer, build_model, initial_state, reference_order

KINDS = [
    (model, norm_layer, shortcut)
    for model in SYMMETRIES
    for norm_layer in ("none", "batch")
    for shortcut in (("A", "B") if model == "resnet" else ("none",))
]


def trained(model, norm_layer="none", shortcut="none", shape=(3, 6, 6), seed=0, num_steps=10):
    """A state with running statistics and momentum of its own, in float64."""
    leaves = {"norm_layer": norm_layer} | ({"shortcut": shortcut} if model == "resnet" else {})
    setting = small_setting(model, precision="float64", lr=0.02, **leaves)
    data = small_dataset(shape).to(torch.device("cpu"), torch.float64)
    trainer = LaneTrainer(setting, data, lanes.take(initial_state(setting, data, seed), [0] * 4), seed=seed)
    trainer.advance(num_steps, [reference_order(setting, seed)])
    return setting, data, lanes.fork(trainer.state)


def shuffled(symmetry, seed=1):
    return {g: torch.randperm(n, generator=stream(seed, g)) for g, n in symmetry.sizes.items()}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_renumbering_changes_no_function_and_is_found_again(kind):
    setting, data, reference = trained(*kind)
    symmetry = symmetry_of(setting, build_model(setting, data, seed=0))
    child = permuted(reference, symmetry, shuffled(symmetry))
    both = lanes.stack([reference, child])
    assert float(chaos.distance(both)[1]) > 0.1
    network = build_model(setting, data, seed=0)
    for is_training in (False, True):
        lanes.write(both, network)
        with torch.no_grad():
            first, second = network.train(is_training)(data.test_inputs)
        assert float(first.std()) > 1e-3
        # Sums in another order.
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    # Training goes on the same: optimiser state was renumbered along.
    trainer = LaneTrainer(setting, data, lanes.take(both, [0, 0, 1, 1]), seed=0, step=10)
    trainer.advance(12, [reference_order(setting, 0)])
    after = permuted(lanes.fork(trainer.state), symmetry, shuffled(symmetry))
    for name, value in after.parameters.items():
        torch.testing.assert_close(value[0], trainer.state.parameters[name][2], rtol=1e-6, atol=1e-8)
    aligned = align(both, 1, symmetry, seed=0)
    assert lanes.is_exact_copy(aligned, 1)
    points = path(aligned, 1, Evaluator(Trial(setting, 0, Protocol(train_sample=100)), data), 3)
    assert barriers(points)["test_barrier"] == 0.0


def test_every_unit_of_a_resnet_is_numbered_once():
    """Option A: old channels stand in the middle of the new ones, and keep their numbering."""
    setting, data, _ = trained("resnet", "batch", "A", num_steps=0)
    symmetry = symmetry_of(setting, build_model(setting, data, seed=0))
    width = SMALL["resnet"]["width"]
    (axis,) = symmetry.axes["blocks.2.norm2.weight"]
    assert [segment.group for segment in axis] == ["stem", "blocks.1.stream", "blocks.2.stream"]
    middle, outer, outermost = (segment.places for segment in axis)
    assert middle == tuple(range(width + width // 2, 2 * width + width // 2))
    assert sorted([*middle, *outer, *outermost]) == list(range(4 * width))
    assert len(outermost) == 2 * width


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_a_matched_child_is_nearer_and_its_match_a_local_optimum(model):
    setting, data, reference = trained(model, "batch", "A", num_steps=30)
    _, _, other = trained(model, "batch", "A", seed=5, num_steps=30)
    symmetry = symmetry_of(setting, build_model(setting, data, seed=0))
    both = lanes.stack([reference, other])
    aligned = align(both, 1, symmetry, seed=0)
    assert float(chaos.distance(aligned)[1]) < float(chaos.distance(both)[1])
    # Naive: no swap of two units of any group brings the two nearer.
    found = match(reference.parameters, other.parameters, symmetry, seed=0)
    least = float(chaos.distance(aligned)[1])
    for group in symmetry.sizes:
        swapped = {**found, group: found[group].clone()}
        swapped[group][:2] = found[group][:2].flip(0)
        assert float(chaos.distance(lanes.stack([reference, permuted(other, symmetry, swapped)]))[1]) >= least - 1e-9
    again = match(reference.parameters, other.parameters, symmetry, seed=0)
    assert all(torch.equal(found[group], again[group]) for group in found)


def test_a_child_near_its_reference_is_left_as_it_is():
    setting, data, reference = trained("cnn", "batch")
    symmetry = symmetry_of(setting, build_model(setting, data, seed=0))
    near = {
        n: v + 1e-3 * torch.randn(v.shape, generator=stream(3, n)).double() for n, v in reference.parameters.items()
    }
    found = match(reference.parameters, near, symmetry, seed=0)
    assert all(torch.equal(p, torch.arange(len(p))) for p in found.values())


def test_the_column_is_the_barrier_to_the_renumbered_child():
    setting, data, reference = trained("cnn", "batch")
    symmetry = symmetry_of(setting, build_model(setting, data, seed=0))
    child = permuted(reference, symmetry, shuffled(symmetry))
    broken = reference.map(lambda value: value * float("nan"))
    evaluator = Evaluator(Trial(setting, 0, Protocol(train_sample=100)), data)
    state = lanes.stack([reference, child, broken])
    rows, _ = compare(state, evaluator, [NO_DOSE] * 2, 3, partial(align, symmetry=symmetry, seed=0))
    assert rows[0]["test_barrier"] > 0.1
    assert rows[0]["aligned_test_barrier"] == 0.0
    assert rows[1]["diverged"] is True
    assert math.isnan(rows[1]["aligned_test_barrier"])


def test_a_trial_is_aligned_where_asked():
    setting, data = small_setting(num_steps=10), small_dataset()
    todo = Todo({SENTINEL: (10,), Child(0, "order"): (10,)})
    trial = Trial(setting, 0, Protocol(train_sample=64, path_points=3, alignment=True))
    rows = Experiment(trial, todo, data).run().rows["chaos"]
    by_kind = {row["perturbation"]: row for row in rows}
    assert by_kind["none"]["aligned_test_barrier"] == by_kind["none"]["test_barrier"] == 0.0
    # Two runs of ten steps stay numbered alike, so that alignment leaves them as they are.
    assert by_kind["order"]["aligned_test_barrier"] == by_kind["order"]["test_barrier"]


@pytest.mark.parametrize(("leaf", "value"), [("model", "custom"), ("norm_layer", "group")])
def test_what_has_no_known_symmetry_is_refused(leaf, value):
    with pytest.raises(BadInput, match=rf"^chaos.alignment must go with a {leaf}.* \(.*\), got .*'{value}'$"):
        check_alignable(replace(small_setting(), **{leaf: value}))
    assert set(SYMMETRIES) <= set(MODELS)
