"""Sketches of kernels: against their definition, and the distances they estimate against exact ones."""

import math

import numpy as np
import pytest
import torch
from samples import small_dataset, small_setting

from twophase import kernel_distance
from twophase.children import SENTINEL, Child, Sketched, Todo, child_keys
from twophase.config import Protocol, Trial
from twophase.experiment import Experiment
from twophase.kernels import sketch
from twophase.kernels.sketch import angle_error, count_sketch, distance_error, kernel_angle, sketched_distance
from twophase.seeding import stream


def kernels(num, rows=30, apart=0.5):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(rows, rows, dtype=torch.float64, generator=generator)
    roots = [base + apart * torch.randn(rows, rows, dtype=torch.float64, generator=generator) for _ in range(num)]
    return [root @ root.T for root in roots]


def test_a_sketch_is_the_sum_that_it_stands_for(monkeypatch):
    monkeypatch.setattr(sketch, "BLOCK", 20)
    (kernel,) = kernels(1, rows=7)
    norm, found = count_sketch(kernel, 16, seed=3)
    bins = [0.0] * 16
    for j, entry in enumerate(kernel.flatten().tolist()):
        drawn = torch.randint(0, 32, (min(20, 49 - j // 20 * 20),), generator=stream(3, "kernel sketch", 16, j // 20))
        place = int(drawn[j % 20])
        bins[place // 2] += entry if place % 2 else -entry
    assert norm == pytest.approx(float(kernel.norm()), rel=1e-12)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (np.array(bins) / norm).astype(np.float32))


def test_equal_kernels_have_equal_bits_today_and_tomorrow():
    kernel = torch.arange(16.0).view(4, 4)
    _, found = count_sketch(kernel, 16, seed=0)
    _, scaled = count_sketch(8 * kernel.double(), 16, seed=0)
    np.testing.assert_array_equal(found, scaled)
    # Sketches of different days are compared: another stream would make all of them strangers.
    assert [round(float(value) * float(kernel.norm())) for value in found] == [
        0,
        -20,
        -5,
        0,
        -7,
        0,
        11,
        0,
        0,
        0,
        15,
        -16,
        -8,
        14,
        0,
        6,
    ]
    assert not np.array_equal(found, count_sketch(kernel, 16, seed=1)[1])


@pytest.mark.parametrize("apart", [0.01, 0.5, 5.0])
def test_distances_are_estimated_without_bias_and_as_well_as_said(apart):
    one, other = kernels(2, apart=apart)
    exact, size, draws = kernel_distance(one, other), 64, 400
    found = [sketched_distance(*(count_sketch(k, size, seed)[1] for k in (one, other))) for seed in range(draws)]
    # Four standard errors of the mean: one in 15,000 honest draws falls outside, and the draws here are fixed. The
    # standard deviation of 400 draws is off by 4 % itself; it can only be below the bound by the few great entries.
    assert abs(np.mean(found) - exact) < 4 * np.std(found) / math.sqrt(draws)
    assert 0.75 * distance_error(exact, size) < np.std(found) < 1.12 * distance_error(exact, size)
    angles = kernel_angle(np.array(found))
    assert 0.7 * angle_error(exact, size) < np.std(angles) < 1.3 * angle_error(exact, size)


def test_all_pairs_at_once_and_what_is_no_kernel():
    taken = kernels(3)
    sketches = np.stack([count_sketch(kernel, 4096, seed=0)[1] for kernel in taken])
    between = sketched_distance(sketches[:, None], sketches)
    exact = np.array([[kernel_distance(a, b) for b in taken] for a in taken])
    assert (np.diag(between) == 0).all()
    np.testing.assert_allclose(between, exact, rtol=5 * math.sqrt(2 / 4096))
    assert float(kernel_angle(np.array(1.0))) == pytest.approx(math.pi / 2)
    assert angle_error(np.array([0.0, 1.0, 2.0, 2.5]), 50).tolist() == [0.0, 0.2, math.inf, math.inf]
    for bad in (torch.zeros(3, 3), torch.full((3, 3), math.nan), torch.full((3, 3), math.inf)):
        norm, found = count_sketch(bad, 16, seed=0)
        assert not norm > 0 or math.isinf(norm)
        assert np.isnan(sketched_distance(found, sketches[0, :16]))


PROTOCOL = Protocol(train_sample=64, path_points=3, probe_size=12, probe_seed=5)
CHILDREN = [Child(4, "gaussian", 1e-2), Child(4, "order"), Child(8, "gaussian", 1e-2)]
WANTED = {
    Sketched("full", 32): (0, 4, 12),
    Sketched("trace", 16): (12,),
    **{Sketched("full", 32, child): (10, 12) for child in CHILDREN},
}


def rows_of(todo, **how):
    point = small_setting("cnn", num_steps=12, augmentation="shift")
    made = Experiment(Trial(point, 0, PROTOCOL), todo, small_dataset(), **how)
    outcome = made.run()
    assert made.lane_steps == made.total_lane_steps
    return {tuple(v for k, v in row.items() if k not in ("norm", "sketch")): row for row in outcome.sketch_rows}


def test_children_s_kernels_are_their_own_whatever_else_is_trained():
    alone = rows_of(Todo({}, is_trajectory_wanted=False, sketch_steps=WANTED))
    keys = {
        (key.kernel, key.size, *child_keys(key.child).values(), step) for key, steps in WANTED.items() for step in steps
    }
    assert set(alone) == keys
    measured = dict.fromkeys([SENTINEL, *CHILDREN, Child(0, "gaussian", 1e-3)], (12,))
    beside = Todo(measured, kernel_steps={"full": (0, 6, 12)}, sketch_steps=WANTED)
    for lane_width in (0, 4):
        found = rows_of(beside, lane_width=lane_width)
        assert all(np.array_equal(found[key]["sketch"], alone[key]["sketch"]) for key in keys)
        assert all(found[key]["norm"] == alone[key]["norm"] for key in keys)


def test_a_sketched_kernel_is_that_of_the_kernel_table():
    todo = Todo({}, kernel_steps={"full": (0, 12)}, sketch_steps={Sketched("full", 2048): (0, 12)})
    point = small_setting("cnn", num_steps=12)
    outcome = Experiment(Trial(point, 0, PROTOCOL), todo, small_dataset()).run()
    first, last = (row["sketch"] for row in outcome.sketch_rows)
    assert [row["norm"] for row in outcome.sketch_rows] == pytest.approx(
        [row["norm"] for row in outcome.kernel_rows["full"]["kernel"]], rel=1e-12
    )
    exact = next(row["kernel_distance"] for row in outcome.kernel_rows["full"]["cone"] if row["step_j"] == 12)
    assert sketched_distance(first, last) == pytest.approx(exact, rel=4 * math.sqrt(2 / 2048))


def test_a_small_push_turns_a_kernel_by_little_and_another_order_by_more():
    found = rows_of(Todo({}, sketch_steps=WANTED))

    def apart(child, step):
        reference = found["full", 32, *child_keys(SENTINEL).values(), 12]
        return float(
            sketched_distance(found["full", 32, *child_keys(child).values(), step]["sketch"], reference["sketch"])
        )

    assert 0 < apart(CHILDREN[2], 12) < apart(CHILDREN[1], 12)
