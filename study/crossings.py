"""Chaos rows -> one crossing per setting and seed: what comparisons rest on."""

from collections.abc import Iterable, Iterator

import pandas as pd

from study.curves import curve_matrix, measures_of, threshold_of
from study.evidence import Evidence, judged
from study.manifest import Declared
from study.relatives import indicators_of, with_relatives
from twophase.config import LEAVES
from twophase.transition import seed_crossings

KIND_COLUMNS = ["indicator", "threshold", "perturbation", "magnitude", "measure", "kernel"]
"""What a number is for: two crossings that differ in one of them are no replicates."""
CROSSING_COLUMNS = ["step", "low", "high", "outcome"]


def crossings(
    chaos: pd.DataFrame, declared: Declared, evidence: Evidence | None = None, *, indicators: Iterable[str] = ()
) -> pd.DataFrame:
    """Find the crossing of every seed of every setting, as the `transitions` table does before it takes medians.

    Args:
        chaos: The `chaos` table.
        declared: The study's declarations.
        evidence: What is known of its trials beside.
        indicators: Columns of `chaos`; by default the primary's alone.

    Returns:
        A row per setting, seed, indicator, perturbation, magnitude and measure step, with the setting's leaves,
        `steps_per_epoch`, and `step`, `low`, `high` and `outcome`, which are `step`, `low`, `high` and `verdict` of
        `twophase.transition.Crossing`, `low` at least 1 where there is a crossing. Seeds that tell nothing have none.
    """
    evidence = evidence or Evidence()
    keys = ["study", "setting_key", *LEAVES]
    rows = [
        {**dict(zip(keys, point, strict=True)), **found}
        for point, children in with_relatives(judged(chaos, evidence), declared).groupby(keys, sort=True)
        for found in _crossings(children, declared, evidence, list(indicators) or [declared.primary.indicator])
    ]
    table = pd.DataFrame(rows, columns=[*keys, "seed", *KIND_COLUMNS, "is_primary_measure", *CROSSING_COLUMNS])
    table = table.astype({"is_primary_measure": bool})
    return table.assign(steps_per_epoch=table["num_train"] // table["batch_size"])


def _crossings(
    children: pd.DataFrame, declared: Declared, evidence: Evidence, indicators: list[str]
) -> Iterator[dict[str, object]]:
    rows, _, _ = evidence.protocols.one(children)
    for (kind, magnitude), of_kind in rows.groupby(["perturbation", "magnitude"], sort=True):
        for text, is_primary, measured in measures_of(of_kind, declared):
            known = indicators_of(measured)
            for indicator in filter(known.__contains__, indicators):
                curves = curve_matrix(measured, indicator)
                threshold = threshold_of(indicator, declared)
                seeds = [int(seed) for seed in curves.index.get_level_values("seed")]
                found = seed_crossings(curves.columns.to_numpy(), curves.to_numpy(), threshold=threshold, groups=seeds)
                for seed, crossing in found.items():
                    yield {
                        "seed": seed,
                        "indicator": indicator,
                        "threshold": threshold,
                        "perturbation": str(kind),
                        "magnitude": float(str(magnitude)),
                        "measure": text,
                        "kernel": "none",
                        "is_primary_measure": is_primary,
                        "step": crossing.step,
                        # Steps are whole: what is chaotic at step 0 settles at step 1 at the earliest.
                        "low": max(crossing.low, 1.0) if crossing.step > 0 else 0.0,
                        "high": crossing.high,
                        "outcome": crossing.verdict,
                    }
