"""Each trial's kernels as its Gram matrix, beside the schedule's clock."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from twophase.config import LEAVES, TYPES, Setting
from twophase.training import learning_rate_integral

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KernelPath:
    """The kernels of one trial and kind.

    Attributes:
        keys: Study, trial key, setting key, seed and every leaf.
        kernel: Kind of kernel.
        steps: [m] Steps at which kernels were taken, ascending.
        gram: [m, m] Their inner products; NaN where one isn't finite.
        lr_integral: [m] Sum of the learning rates of all updates before each step.
    """

    keys: dict[str, Any]
    kernel: str
    steps: Array
    gram: Array
    lr_integral: Array


def kernel_paths(cone: pd.DataFrame) -> list[KernelPath]:
    """Read the `cone` table, one path per trial and kind of kernel, in the table's order."""
    clocks: dict[tuple[str, tuple[int, ...]], Array] = {}
    paths = []
    for _, rows in cone.groupby(["trial_key", "kernel"], sort=False):
        first = rows.iloc[0]
        products = rows.pivot(index="step_i", columns="step_j", values="inner_product").sort_index().sort_index(axis=1)
        steps = tuple(int(step) for step in products.index)
        clock = (str(first["setting_key"]), steps)
        leaves = {name: TYPES[name](first[name]) for name in LEAVES}
        if clock not in clocks:
            clocks[clock] = np.array(learning_rate_integral(Setting(**leaves), steps))
        identity = {name: str(first[name]) for name in ("study", "trial_key", "setting_key")}
        keys = {**identity, "seed": int(first["seed"]), **leaves}
        gram = products.to_numpy(dtype=np.float64)
        paths.append(KernelPath(keys, str(first["kernel"]), np.array(steps, dtype=np.float64), gram, clocks[clock]))
    return paths
