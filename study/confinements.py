"""Kernels -> confinement: for each trial and a few steps τ, whether its kernels stay in a cone from there on."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.kernel_paths import KernelPath, kernel_paths
from study.natural_null import Natural
from twophase.config import LEAVES
from twophase.confinement import DIMENSIONS, Confinement, confinement

TAU_FRACTIONS = (0.0, 1 / 64, 1 / 16, 1 / 4, 1 / 2)
"""Of the run: the checkpoints nearest to these, beside the first one after the setting's barrier transition."""

METHOD_VERSION = 1
"""Of the test; rows of another version are computed again."""

KEYS = ["study", "trial_key", "setting_key", "seed", *LEAVES]
COLUMNS = [
    "kernel",
    "tau_step",
    "num_later",
    "half_angle_deg",
    "cone_half_angle_deg",
    "angle_to_end_deg",
    "walk_half_angle_deg",
    "p_walk",
    *(f"p_walk_{dimension}d" for dimension in DIMENSIONS),
    "walk_dimension",
    "gamma_step",
    "gamma_step_low",
    "gamma_step_high",
    "gamma_lr",
    "gamma_lr_low",
    "gamma_lr_high",
    "drift_share",
    "p_natural",
    "verdict",
    "reason",
    "input_digest",
]

MEDIANS = ["half_angle_deg", "walk_half_angle_deg", "angle_to_end_deg", "gamma_step", "gamma_lr", "drift_share"]

Array = npt.NDArray[np.float64]


def confinements(
    cone: pd.DataFrame, transitions: pd.DataFrame, known: pd.DataFrame, natural: Natural | None = None
) -> pd.DataFrame:
    """Test every trial's kernels from a few steps on.

    Args:
        cone: The `cone` table.
        transitions: The `transitions` table; where the primary is located, the first checkpoint from there is a τ.
        known: Rows from before; those that follow from the same numbers are taken over, for a test takes a moment.
        natural: The natural null; see `study.natural_null` and `twophase.confinement.confinement`.

    Returns:
        Rows of the `confinement` table.
    """
    primary = transitions[transitions["is_primary"].astype(bool) & (transitions["verdict"] == "located")]
    located = dict(zip(primary["setting_key"], primary["transition_step"], strict=True))
    before = {row["input_digest"]: {name: row[name] for name in COLUMNS} for row in known.to_dict("records")}
    rows = [
        row
        for path in kernel_paths(cone)
        for row in _rows(path, located.get(path.keys["setting_key"], math.nan), before, natural)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, *COLUMNS])


def setting_verdicts(confinement: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each setting, kind of kernel and τ.

    Args:
        confinement: The `confinement` table.

    Returns:
        `setting_key`, `kernel`, `tau_step`; medians over seeds of the numbers; `p_walk` and `p_natural` the
        greatest; `verdict`, that
        of more than half the seeds, of at least two, else `undetermined`; `votes` in words; `reason`, that of the
        first seed whose verdict it is.
    """
    rows = []
    for (key, kernel, tau), seeds in confinement.groupby(["setting_key", "kernel", "tau_step"], sort=False):
        counts = Counter(seeds["verdict"])
        most, count = counts.most_common(1)[0]
        verdict = most if 2 * count > len(seeds) > 1 else "undetermined"
        agreeing = seeds[seeds["verdict"] == verdict]
        rows.append(
            {
                "setting_key": key,
                "kernel": kernel,
                "tau_step": int(str(tau)),
                **{name: float(seeds[name].median(skipna=False)) for name in MEDIANS},
                "p_walk": float(seeds["p_walk"].max(skipna=False)),
                "p_natural": float(seeds["p_natural"].max(skipna=False)),
                "verdict": verdict,
                "votes": f"{counts[verdict]} of {len(seeds)}",
                "reason": str(agreeing["reason"].iloc[0]) if len(agreeing) else "seeds differ",
                "num_seeds": int(seeds["seed"].nunique()),
            }
        )
    names = [
        "setting_key",
        "kernel",
        "tau_step",
        *MEDIANS,
        "p_walk",
        "p_natural",
        "verdict",
        "votes",
        "reason",
        "num_seeds",
    ]
    return pd.DataFrame(rows, columns=names).sort_values(["setting_key", "kernel", "tau_step"], ignore_index=True)


def tau_steps(steps: Array, transition_step: float) -> list[int]:
    """Checkpoints from which to look: those nearest to fractions of the run, and the first from a transition on."""
    chosen = {int(np.abs(steps - fraction * steps[-1]).argmin()) for fraction in TAU_FRACTIONS}
    if math.isfinite(transition_step):
        chosen.add(int(np.searchsorted(steps, transition_step)))
    return sorted(int(steps[i]) for i in chosen if i < len(steps) - 1)


def _rows(
    path: KernelPath, transition_step: float, before: Mapping[str, dict[str, Any]], natural: Natural | None
) -> Iterator[dict[str, Any]]:
    for tau in tau_steps(path.steps, transition_step):
        others = natural(path, tau) if natural else None
        digest = _digest(path, tau, others)
        if digest in before:
            yield {**path.keys, **before[digest]}
            continue
        seed = path.keys["seed"]
        found = confinement(path.gram, path.steps, tau, lr_integral=path.lr_integral, natural=others, seed=seed)
        yield {**path.keys, "kernel": path.kernel, **_numbers(found), "input_digest": digest}


def _numbers(found: Confinement) -> dict[str, Any]:
    angles = ("half_angle", "cone_half_angle", "angle_to_end", "walk_half_angle")
    return {
        "tau_step": found.tau_step,
        "num_later": found.num_later,
        **{f"{name}_deg": math.degrees(getattr(found, name)) for name in angles},
        "p_walk": found.p_walk,
        **{f"p_walk_{dimension}d": value for dimension, value in found.p_isotropic.items()},
        "walk_dimension": found.step_dimension,
        **_exponent("gamma_step", found.gamma_step),
        **_exponent("gamma_lr", found.gamma_lr),
        "drift_share": found.drift_share,
        "p_natural": found.p_natural,
        "verdict": found.verdict,
        "reason": found.reason,
    }


def _exponent(name: str, exponent: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), exponent, strict=True))


def _digest(path: KernelPath, tau: int, others: Array | None) -> str:
    """Of all that a row follows from."""
    head = json.dumps([METHOD_VERSION, path.keys["trial_key"], path.kernel, tau, path.keys["seed"]])
    arrays = [path.gram, path.steps, path.lr_integral, *([] if others is None else [others])]
    return hashlib.sha256(b"".join([head.encode(), *(array.tobytes() for array in arrays)])).hexdigest()[:16]
