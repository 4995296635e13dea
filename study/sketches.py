"""Angles between kernels of different runs, from their sketches: what a cone is to be narrower than.

Whether kernels of one run stay close together is told against kernels that had every chance not to: those of other
seeds at the same step, and those of children that left the reference at some step τ.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from twophase.errors import BadInput
from twophase.kernels.sketch import angle_error, distance_error, kernel_angle, sketched_distance
from twophase.perturb import NONE

SEEDS = "seeds"
COLUMNS = (
    "null",
    "seed",
    "other_seed",
    "fork_step",
    "magnitude",
    "direction",
    "step",
    "kernel_distance",
    "distance_error",
    "angle",
    "angle_error",
)


@dataclass(frozen=True)
class _Pair:
    """Two runs that are compared at the steps that both have."""

    keys: dict[str, Any]
    first: pd.DataFrame
    second: pd.DataFrame


def null_angles(sketch: pd.DataFrame, setting_key: str, kernel: str = "full", *, size: int = 0) -> pd.DataFrame:
    """Angles between kernels of one setting that are of different runs.

    =========== ============================================================== ================================
    `null`      what is compared                                               rows
    =========== ============================================================== ================================
    ``seeds``   the references of two seeds, at each step that both have       a pair of seeds (seed < other_seed)
    ``order``   the reference and its control forked at `fork_step`, after it  a control (`direction` its number)
    other       the reference and its child so perturbed, forked at            a child
                `fork_step`, after it
    =========== ============================================================== ================================

    Args:
        sketch: The `sketch` table, of trials of one protocol (`study.protocols.Protocols.one_each`): kernels on
            different probe sets have nothing to do with each other.
        setting_key: Which setting.
        kernel: Kind of kernel.
        size: Size of the sketches; 0 for the largest that is there.

    Returns:
        A row per pair of runs and step, with columns `COLUMNS`: `kernel_distance` estimates S without bias,
        `distance_error` is its greatest standard error; `angle`, arccos(1 − S), and `angle_error` are in rad. NaN where
        a kernel isn't finite. No row where nothing can be compared.

    Raises:
        BadInput: There is no sketch of that setting, kernel and size.
    """
    rows = sketch[(sketch["setting_key"] == setting_key) & (sketch["kernel"] == kernel)]
    size = size or int(rows["size"].max() if len(rows) else 0)
    rows = rows[rows["size"] == size]
    if rows.empty:
        raise BadInput(
            f"sketch must have rows of setting '{setting_key}', kernel '{kernel}' and size {size}, got none; "
            "cone.sketch asks for them"
        )
    found = [_compared(pair, size) for pair in (*_seed_pairs(rows), *_child_pairs(rows))]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS))


def _seed_pairs(rows: pd.DataFrame) -> Iterator[_Pair]:
    references = {int(str(seed)): own for seed, own in rows[rows["perturbation"] == NONE].groupby("seed")}
    for one, other in combinations(sorted(references), 2):
        keys = {"null": SEEDS, "seed": one, "other_seed": other, "fork_step": 0, "magnitude": 0.0, "direction": 0}
        yield _Pair(keys, references[one], references[other])


def _child_pairs(rows: pd.DataFrame) -> Iterator[_Pair]:
    for seed, of_seed in rows.groupby("seed"):
        reference = of_seed[of_seed["perturbation"] == NONE]
        children = of_seed[of_seed["perturbation"] != NONE]
        for child, own in children.groupby(["perturbation", "fork_step", "magnitude", "direction"]):
            null, fork_step, magnitude, direction = child
            keys = {"fork_step": fork_step, "magnitude": magnitude, "direction": direction}
            yield _Pair({"null": null, "seed": seed, "other_seed": seed, **keys}, reference, own)


def _compared(pair: _Pair, size: int) -> pd.DataFrame:
    both = pair.first.merge(pair.second, on="step", suffixes=("", "_other")).sort_values("step")
    sides = [np.reshape(both[name].to_list(), (len(both), size)) for name in ("sketch", "sketch_other")]
    between = sketched_distance(*sides)
    measured = {
        "step": both["step"].to_numpy(),
        "kernel_distance": between,
        "distance_error": distance_error(between, size),
        "angle": kernel_angle(between),
        "angle_error": angle_error(between, size),
    }
    return pd.DataFrame({**pair.keys, **measured}, columns=list(COLUMNS), index=range(len(both)))
