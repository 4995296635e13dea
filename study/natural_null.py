"""The natural null of confinement: how far other runs are, at the steps after τ, from the run that is looked at."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.kernel_paths import KernelPath
from study.sketches import SEEDS, null_angles
from twophase.perturb import ORDER

Array = npt.NDArray[np.float64]
Natural = Callable[[KernelPath, int], Array | None]
"""(a trial's kernels, τ) -> angles of other runs at the checkpoints after τ, [runs, checkpoints], in rad; or None."""

LEAST_COMMON = 3
"""Checkpoints at which another run must have been seen."""


def natural_null(sketch: pd.DataFrame) -> Natural:
    """Find the other runs of each trial in its study's sketches.

    They are the references of the setting's other seeds, and the trial's own controls forked at the first fork step
    from τ on: had they forked at τ itself they would be farther still.

    Args:
        sketch: The `sketch` table, of trials of one protocol per setting.
    """
    known = {
        (str(setting_key), str(kernel)): null_angles(rows, str(setting_key), str(kernel))
        for (setting_key, kernel), rows in sketch.groupby(["setting_key", "kernel"])
    }

    def others(path: KernelPath, tau: int) -> Array | None:
        angles = known.get((path.keys["setting_key"], path.kernel))
        if angles is None or angles.empty:
            return None
        seed = path.keys["seed"]
        mine = angles[(angles["seed"] == seed) | (angles["other_seed"] == seed)]
        controls = mine[(mine["null"] == ORDER) & (mine["fork_step"] >= tau)]
        runs = pd.concat([mine[mine["null"] == SEEDS], controls[controls["fork_step"] == controls["fork_step"].min()]])
        later = path.steps[path.steps > tau]
        rows = [
            run.set_index("step")["angle"].reindex(later).to_numpy(dtype=np.float64)
            for _, run in runs.groupby(["null", "seed", "other_seed", "fork_step", "direction"])
        ]
        kept = [row for row in rows if np.isfinite(row).sum() >= LEAST_COMMON]
        return np.stack(kept) if kept else None

    return others
