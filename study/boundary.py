"""Chaos rows -> critical magnitudes: one per setting, fork step, indicator, perturbation and measure step."""

from collections.abc import Iterator

import pandas as pd

from study.curves import measures_of, replicate_values, threshold_of
from study.evidence import Evidence, judged
from study.manifest import Declared
from twophase.boundary import locate_boundary
from twophase.chaos import INDICATORS
from twophase.config import LEAVES

BOUNDARY_COLUMNS = [
    *("fork_step", "indicator", "perturbation", "measure"),
    *("critical_magnitude", "ci_low", "ci_high", "censoring", "threshold", "num_seeds", "num_magnitudes"),
]


def boundary(chaos: pd.DataFrame, declared: Declared, evidence: Evidence | None = None) -> pd.DataFrame:
    """Estimate at which magnitude children begin to disconnect, at every fork step.

    The same rows count as for transitions: `study.analysis.transitions` says which.

    Args:
        chaos: The study's `chaos` table.
        declared: Its primary and measure steps.
        evidence: What is known of its trials beside.

    Returns:
        Rows of the `boundary` table; pushes without a magnitude have none.
    """
    evidence = evidence or Evidence()
    keys = ["study", "setting_key", *LEAVES]
    children = judged(chaos, evidence)
    rows = [
        {**dict(zip(keys, point, strict=True)), **found}
        for point, of_setting in children[children["magnitude"] > 0].groupby(keys, sort=True)
        for found in _of_setting(of_setting, declared, evidence)
    ]
    return pd.DataFrame(rows, columns=[*keys, *BOUNDARY_COLUMNS])


def _of_setting(children: pd.DataFrame, declared: Declared, evidence: Evidence) -> Iterator[dict[str, object]]:
    rows, _, _ = evidence.protocols.one(children)
    for kind, of_kind in rows.groupby("perturbation", sort=True):
        for text, _, measured in measures_of(of_kind, declared):
            valued = measured.assign(**{name: replicate_values(measured, name) for name in INDICATORS})
            for fork_step, forked in valued.groupby("fork_step", sort=True):
                table = forked.pivot(index=["seed", "direction"], columns="magnitude", values=list(INDICATORS))
                seeds = [int(seed) for seed in table.index.get_level_values("seed")]
                for indicator in INDICATORS:
                    threshold = threshold_of(indicator, declared)
                    sizes, values = table[indicator].columns.to_numpy(), table[indicator].to_numpy(dtype=float)
                    found = locate_boundary(sizes, values, threshold=threshold, groups=seeds)
                    yield {
                        "fork_step": int(str(fork_step)),
                        "indicator": indicator,
                        "perturbation": str(kind),
                        "measure": text,
                        "critical_magnitude": found.magnitude,
                        "ci_low": found.low,
                        "ci_high": found.high,
                        "censoring": found.censoring,
                        "threshold": threshold,
                        "num_seeds": found.num_seeds,
                        "num_magnitudes": len(sizes),
                    }
