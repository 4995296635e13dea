"""How a setting's kernels move, in numbers and in careful words."""

import math
from typing import Any

import numpy as np
import pandas as pd

from twophase.cone import Movement, movement

SPLIT_FRACTION = 0.2
"""The later part of a run begins at a fifth of it, declared here and not fitted."""

NARROW = 0.1
"""Kernel distance within which arXiv:2505.13900 found its later kernels (figure 5a: 0.05 to 0.1 for VGG-16)."""


def kernel_drift(cone: pd.DataFrame) -> pd.DataFrame:
    """Describe each setting's kernels, early against late.

    Args:
        cone: The `cone` table.

    Returns:
        A row per setting and kind of kernel: `split_step`; `early`, `late` and `to_end` (see
        `twophase.cone.Movement`), medians over seeds; `num_seeds`; `words`.
    """
    rows: list[dict[str, Any]] = []
    for (key, kernel), of_setting in cone.groupby(["setting_key", "kernel"], sort=False):
        found = [_movement(of_trial) for _, of_trial in of_setting.groupby("trial_key")]
        medians = {name: float(np.median([getattr(m, name) for m in found])) for name in ("early", "late", "to_end")}
        split = int(np.median([m.split_step for m in found]))
        rows.append(
            {
                "setting_key": key,
                "kernel": kernel,
                "split_step": split,
                **medians,
                "num_seeds": of_setting["seed"].nunique(),
                "words": drift_words(Movement(split, **medians)),
            }
        )
    columns = ["setting_key", "kernel", "split_step", "early", "late", "to_end", "num_seeds", "words"]
    return pd.DataFrame(rows, columns=columns)


def distance_matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """Kernel distances of one trial, steps by steps."""
    return rows.pivot(index="step_i", columns="step_j", values="kernel_distance").sort_index().sort_index(axis=1)


def _movement(rows: pd.DataFrame) -> Movement:
    between = distance_matrix(rows)
    split = SPLIT_FRACTION * float(rows["num_steps"].iloc[0])
    return movement(between.to_numpy(), [int(step) for step in between.index], split)


def drift_words(found: Movement) -> str:
    """Say what the distances show; a cone is claimed of none, for that takes null models."""
    if not all(map(math.isfinite, (found.early, found.late, found.to_end))):
        return "unknown: too few checkpoints on one side of the split, or a kernel that isn't finite"
    angle = math.degrees(math.acos(max(-1.0, 1.0 - found.to_end)))
    turned = f"from step {found.split_step} to the end the kernel turns by {angle:.0f}°"
    if found.late > found.early / 2:
        return f"keeps moving: later kernels aren't twice as close to each other as early ones; {turned}"
    if found.to_end > NARROW:
        return (
            f"slows down, but no narrow cone: {turned} (S {found.to_end:.2f}; the paper's nets stay within {NARROW:g})"
        )
    return f"narrow from then on: {turned} (S {found.to_end:.2f}); whether narrower than chance takes null models"


def verdict_words(verdicts: pd.DataFrame, setting_key: str, kernel: str) -> str:
    """Say of one setting's kernels from which steps they are confined; empty where nothing was tested.

    Args:
        verdicts: Seeds joined, as `study.confinements.setting_verdicts` gives them.
        setting_key: The setting.
        kernel: The kind of kernel.
    """
    own = verdicts[
        (verdicts["setting_key"] == setting_key) & (verdicts["kernel"] == kernel) & verdicts["p_walk"].notna()
    ]
    if own.empty:
        return ""
    by_verdict = own.groupby("verdict", sort=False)["tau_step"].apply(lambda steps: ", ".join(map(str, sorted(steps))))
    return "; ".join(f"{str(verdict).replace('_', ' ')} from step {steps} on" for verdict, steps in by_verdict.items())
