"""Angles between kernels of different runs, against the kernels themselves."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from study import natural_null
from study.kernel_paths import KernelPath
from study.sketches import COLUMNS, null_angles
from tests.study.rows import POINT, keys_of
from twophase import kernel_distance
from twophase.errors import BadInput
from twophase.kernels.sketch import count_sketch
from twophase.seeding import stream

SIZE = 4096
STEPS = (0, 10, 50)


def kernel_of(*name):
    generator = stream(0, *map(str, name))
    return torch.eye(20) + 0.2 * torch.randn(20, 20, generator=generator)


def row(seed, step, child=("none", 0, 0.0, 0), size=SIZE, kind="full"):
    names = ("perturbation", "fork_step", "magnitude", "direction")
    norm, sketch = count_sketch(kernel_of(seed, step, *child), size, seed=0)
    keys = dict(zip(names, child, strict=True))
    return {**keys_of(POINT, seed), "kernel": kind, "size": size, **keys, "step": step, "norm": norm, "sketch": sketch}


CONTROLS = [("order", 0, 0.0, 0), ("order", 10, 0.0, 0), ("order", 10, 0.0, 1)]
PUSHED = ("gaussian", 10, 1e-2, 0)
TABLE = pd.DataFrame(
    [row(seed, step) for seed in range(3) for step in STEPS if (seed, step) != (2, 50)]
    + [
        row(seed, step, child)
        for seed in range(2)
        for child in [*CONTROLS, PUSHED]
        for step in STEPS
        if step > child[1]
    ]
    + [row(seed, step, size=16) for seed in range(3) for step in STEPS]
)


def test_angles_are_those_of_the_kernels():
    found = null_angles(TABLE, POINT.key)
    assert tuple(found.columns) == COLUMNS
    assert set(found["null"]) == {"seeds", "order", "gaussian"}
    seeds = found[found["null"] == "seeds"]
    # Of the third seed's kernels one is missing: what both have is compared.
    pairs = [(0, 1, 0), (0, 1, 10), (0, 1, 50), (0, 2, 0), (0, 2, 10), (1, 2, 0), (1, 2, 10)]
    assert list(zip(seeds.seed, seeds.other_seed, seeds.step, strict=True)) == pairs
    for one in found.itertuples():
        is_child = one.null != "seeds"
        child = (one.null, one.fork_step, one.magnitude, one.direction) if is_child else ("none", 0, 0.0, 0)
        first = kernel_of(one.seed, one.step, "none", 0, 0.0, 0)
        exact = kernel_distance(first, kernel_of(one.other_seed, one.step, *child))
        # Five standard errors.
        assert one.kernel_distance == pytest.approx(exact, abs=5 * math.sqrt(2 / SIZE) * exact)
        assert one.angle == pytest.approx(math.acos(1 - one.kernel_distance))
        assert one.distance_error == pytest.approx(math.sqrt(2 / SIZE) * one.kernel_distance)
        assert 0 < one.angle_error < 0.05
    controls = found[found["null"] == "order"]
    assert {tuple(key) for key in controls[["fork_step", "direction"]].to_numpy()} == {(0, 0), (10, 0), (10, 1)}
    assert (controls.step > controls.fork_step).all()
    assert (controls.seed == controls.other_seed).all()
    assert len(controls) == 2 * (2 + 1 + 1)


def test_sizes_are_never_mixed_and_a_diverged_run_is_unknown():
    small = null_angles(TABLE, POINT.key, size=16)
    assert len(small) == 3 * 3
    assert (small.distance_error / small.kernel_distance).to_numpy() == pytest.approx(math.sqrt(2 / 16))
    broken = TABLE.copy()
    broken["sketch"] = [
        np.full_like(s, np.nan) if seed == 1 else s for s, seed in zip(TABLE.sketch, TABLE.seed, strict=True)
    ]
    found = null_angles(broken, POINT.key)
    assert len(found) == len(null_angles(TABLE, POINT.key))
    assert (found.angle.isna() == ((found.seed == 1) | (found.other_seed == 1))).all()


def test_other_runs_of_a_trial_are_other_seeds_and_its_own_controls_from_tau_on():
    steps = np.array([0.0, 10.0, 50.0])
    path = KernelPath({"setting_key": POINT.key, "seed": 0}, "full", steps, np.eye(3), steps)
    angles = null_angles(TABLE, POINT.key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(natural_null, "LEAST_COMMON", 1)
        others = natural_null.natural_null(TABLE)
        at_start, later = others(path, 0), others(path, 10)
    assert at_start.shape == (2 + 1, 2)  # two other seeds, the control forked at 0
    assert later.shape == (1 + 2, 1)  # the seed that was seen at 50, two controls forked at 10
    at_end = angles[(angles.step == 50) & (angles.seed == 0)]
    wanted = at_end[(at_end["null"] == "seeds") | ((at_end["null"] == "order") & (at_end.fork_step == 10))]
    assert sorted(later[:, 0]) == pytest.approx(sorted(wanted.angle))
    assert others(KernelPath({"setting_key": "none", "seed": 0}, "full", steps, np.eye(3), steps), 0) is None
    assert natural_null.natural_null(TABLE)(path, 10) is None, "one checkpoint is too few"


def test_nothing_to_compare():
    assert null_angles(TABLE[(TABLE.seed == 0) & (TABLE.perturbation == "none")], POINT.key).empty
    with pytest.raises(BadInput, match=r"rows of setting '\w+', kernel 'trace' and size 0, got none; cone.sketch"):
        null_angles(TABLE, POINT.key, "trace")
