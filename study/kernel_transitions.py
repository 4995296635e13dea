"""Kernels -> transitions: the step at which a setting's kernel velocity breaks, beside the transitions of chaos."""

from collections.abc import Iterator, Sequence

import pandas as pd

from study.kernel_paths import kernel_paths
from study.protocols import UNKNOWN, Protocols, protocol_text
from twophase.config import LEAVES
from twophase.kernel_transition import ALPHA, METHOD, KernelBreak, kernel_break, kernel_transition

KERNEL_VELOCITY = "kernel_velocity"
NO_MEASURE = "none"


def with_kernels(
    found: pd.DataFrame, cone: pd.DataFrame, protocols: Protocols, by: Sequence[str] | None = None
) -> pd.DataFrame:
    """Append the kernels' transitions to those of chaos.

    Args:
        found: Rows of the `transitions` table, or pooled estimates, as `study.analysis.transitions` makes them.
        cone: The `cone` table.
        protocols: How each trial was measured; rows of different ones are not pooled.
        by: The leaves by which `found` is pooled; None if settings are apart.

    Returns:
        All rows, with the columns of `found`.
    """
    rows = list(_estimates(cone, protocols, by)) if len(cone) else []
    if not rows:
        return found
    mine = pd.DataFrame(rows)[list(found.columns)]
    return mine.astype(found.dtypes) if found.empty else pd.concat([found, mine], ignore_index=True)


def kernel_breaks(cone: pd.DataFrame) -> pd.DataFrame:
    """Each seed's own answer: identity, every leaf, `kernel`, and `found`, a `KernelBreak`."""
    rows = [
        {**path.keys, "kernel": path.kernel, "found": kernel_break(path.gram, path.steps, path.lr_integral)}
        for path in kernel_paths(cone)
    ]
    return pd.DataFrame(rows)


def _estimates(cone: pd.DataFrame, protocols: Protocols, by: Sequence[str] | None) -> Iterator[dict[str, object]]:
    breaks = kernel_breaks(cone)
    keys = ["setting_key"] if by is None else list(by)
    for _, of_group in breaks.groupby([*keys, "kernel"], sort=True):
        rows, protocol, left_out = protocols.one(of_group)
        seeds: list[KernelBreak] = list(rows["found"])
        joined, words = kernel_transition(seeds)
        said = [words] + [f"{count} trials measured with another protocol left out" for count in left_out.values()]
        first = rows.iloc[0]
        is_seen = [seed.kind != "unknown" for seed in seeds]
        yield {
            **{name: first[name] for name in ("study", "setting_key", *LEAVES)},
            "indicator": KERNEL_VELOCITY,
            "perturbation": "none",
            "magnitude": 0.0,
            "measure": NO_MEASURE,
            "kernel": first["kernel"],
            "transition_step": joined.step,
            "ci_low": joined.low,
            "ci_high": joined.high,
            "verdict": joined.verdict,
            "threshold": ALPHA,
            "is_primary": False,
            "num_seeds": int(rows.loc[is_seen, "seed"].nunique()),
            "method": METHOD,
            "reason": "; ".join(said),
            "protocol": UNKNOWN if protocol is None else protocol_text(protocol),
            "num_settings": int(rows.loc[is_seen, "setting_key"].nunique()),
            "num_curves": joined.num_seeds,
        }
