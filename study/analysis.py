"""Chaos rows -> transitions: one estimate per setting, indicator, perturbation, magnitude and measure step."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from study.comparing import compare
from study.curves import curve_matrix, measures_of, threshold_of
from study.evidence import Evidence, counted, judged, reason, setting_words
from study.kernel_transitions import KERNEL_VELOCITY
from study.manifest import Declared
from study.protocols import UNKNOWN, protocol_text
from study.relatives import control_words, indicators_of, with_relatives
from twophase.chaos import INDICATORS
from twophase.config import LEAVES, Protocol
from twophase.errors import BadInput, unknown
from twophase.perturb import ORDER
from twophase.relative import RELATIVE_INDICATORS
from twophase.transition import Transition, locate_transition

__all__ = ["ESTIMATE_COLUMNS", "POOLED_COLUMNS", "compare", "select", "transitions"]

ESTIMATE_COLUMNS = [
    "indicator",
    "perturbation",
    "magnitude",
    "measure",
    "kernel",
    "transition_step",
    "ci_low",
    "ci_high",
    "verdict",
    "threshold",
    "is_primary",
    "num_seeds",
    "method",
    "reason",
    "protocol",
]
POOLED_COLUMNS = ["num_settings", "num_curves"]
"""Beside an estimate pooled over settings: how many there are, and how many curves (of a setting and seed)."""


def transitions(
    chaos: pd.DataFrame, declared: Declared, by: Sequence[str] | None = None, evidence: Evidence | None = None
) -> pd.DataFrame:
    """Estimate every transition that the rows allow.

    A child that diverged while its reference did not counts as not connected (+inf). Where the reference diverged or
    learned nothing, or the push was lost in rounding, nothing is known (NaN). Rows of different protocols are not
    pooled: those of the pinned one count, or else those of the first that ran; `reason` names the others.

    Args:
        chaos: The study's `chaos` table.
        declared: Its primary and measure steps.
        by: Pool over all settings that agree in these leaves; None keeps settings apart.
        evidence: What is known of its trials beside.

    Returns:
        Rows of the `transitions` table; pooled, only the leaves of `by` stand beside the estimate, and
        `POOLED_COLUMNS` after it.

    Raises:
        BadInput: A leaf of `by` is unknown.
    """
    for leaf in by or ():
        if leaf not in LEAVES:
            raise unknown("axis", leaf, LEAVES)
    keys = ["study", "setting_key", *LEAVES] if by is None else ["study", *by]
    evidence = evidence or Evidence()
    rows = [
        {**dict(zip(keys, point, strict=True)), **estimate}
        for point, children in _groups(with_relatives(judged(chaos, evidence), declared), keys)
        for estimate in _estimates(children, declared, evidence)
    ]
    pooled = [] if by is None else POOLED_COLUMNS
    return pd.DataFrame(rows, columns=[*keys, *ESTIMATE_COLUMNS, *pooled]).astype({"is_primary": bool})


def _groups(frame: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[object, ...], pd.DataFrame]]:
    for point, rows in frame.groupby(keys, sort=True):
        yield point if isinstance(point, tuple) else (point,), rows


@dataclass(frozen=True)
class _Scope:
    """What all estimates of one setting, or of settings pooled, share."""

    declared: Declared
    is_pinned: bool
    protocol: Protocol | None
    words: tuple[str, ...]


def _estimates(children: pd.DataFrame, declared: Declared, evidence: Evidence) -> Iterator[dict[str, object]]:
    protocols = evidence.protocols
    rows, protocol, left_out = protocols.one(children)
    differs = protocols.undeclared(protocol)
    words = [f"measured with {differs}, other than the primary"] if differs else []
    for other, count in left_out.items():
        said = protocols.difference(other) or "the pinned protocol"
        words.append(f"{count} trial{'s' * (count > 1)} measured with {said} left out")
    words += setting_words(evidence, rows["setting_key"].unique())
    scope = _Scope(declared, not differs, protocol, tuple(words))
    for (kind, magnitude), of_kind in rows.groupby(["perturbation", "magnitude"], sort=True):
        for text, is_primary, measured in measures_of(of_kind, declared):
            for indicator in indicators_of(measured):
                is_headline = is_primary and kind == declared.perturbation and magnitude == declared.primary_magnitude
                yield {
                    "indicator": indicator,
                    "perturbation": str(kind),
                    "magnitude": float(str(magnitude)),
                    "measure": text,
                    **_estimate(measured, indicator, scope, is_headline=is_headline),
                }


def _estimate(rows: pd.DataFrame, indicator: str, scope: _Scope, *, is_headline: bool) -> dict[str, object]:
    is_indicator = indicator == scope.declared.primary.indicator
    threshold = threshold_of(indicator, scope.declared)
    curves = curve_matrix(rows, indicator)
    found = _located(curves, threshold)
    is_seen = curves.notna().any(axis=1)
    settings = curves.index[is_seen].unique("setting_key")
    is_pooled = rows["setting_key"].nunique() > 1
    words = [_pooled_words(curves, threshold)] if is_pooled else []
    told = [reason(found, rows, curves), *control_words(rows, indicator)]
    return {
        "kernel": "none",
        "transition_step": found.step,
        "ci_low": found.low,
        "ci_high": found.high,
        "verdict": found.verdict,
        "threshold": threshold,
        "is_primary": is_headline and is_indicator and scope.is_pinned,
        "num_seeds": len(curves.index[is_seen].unique("seed")),
        "method": found.method,
        "reason": "; ".join(filter(None, [*words, *told, *scope.words])),
        "protocol": UNKNOWN if scope.protocol is None else protocol_text(scope.protocol),
        "num_settings": len(settings),
        "num_curves": found.num_seeds,
    }


def _located(curves: pd.DataFrame, threshold: float) -> Transition:
    groups = [f"{setting}/{seed}" for setting, seed, *_ in curves.index]
    return locate_transition(curves.columns.to_numpy(), curves.to_numpy(), threshold=threshold, groups=groups)


def _pooled_words(curves: pd.DataFrame, threshold: float) -> str:
    """Warn where what is pooled doesn't agree."""
    found = [_located(rows, threshold).verdict for _, rows in curves.groupby("setting_key")]
    verdicts = Counter(verdict.replace("_", " ") for verdict in found)
    if len(verdicts) == 1:
        return ""
    return f"the pooled settings differ ({counted(verdicts)}): one step does not stand for them all"


def select(found: pd.DataFrame, indicator: str | None, magnitude: float | None) -> pd.DataFrame:
    """Choose what to print, controls apart: the primary, or an indicator and a magnitude that were asked for.

    Raises:
        BadInput: The indicator is unknown or the magnitude wasn't run.
    """
    if indicator is None and magnitude is None:
        return found[found["is_primary"]]
    known = [*INDICATORS, *RELATIVE_INDICATORS, KERNEL_VELOCITY]
    if indicator is not None and indicator not in known:
        raise unknown("indicator", indicator, known)
    if indicator == KERNEL_VELOCITY:
        return _of_kernels(found, magnitude)
    primary = found[found["is_primary"]]
    wanted = indicator or (primary["indicator"].iloc[0] if len(primary) else "test_barrier")
    chosen = found[(found["indicator"] == wanted) & (found["perturbation"] != ORDER)]
    if wanted in RELATIVE_INDICATORS and chosen.empty:
        raise BadInput(f"{wanted} needs controls, and this study has none; run its space with chaos.controls=1")
    if magnitude is None:
        return chosen
    run = sorted(set(found["magnitude"]) - {0.0})
    if magnitude not in run:
        raise BadInput(f"magnitude must be one that was run ({', '.join(f'{m:g}' for m in run)}), got {magnitude:g}")
    return chosen[chosen["magnitude"] == magnitude]


def _of_kernels(found: pd.DataFrame, magnitude: float | None) -> pd.DataFrame:
    chosen = found[found["indicator"] == KERNEL_VELOCITY]
    if magnitude is not None:
        raise BadInput(f"magnitude must be left out with {KERNEL_VELOCITY}: kernels are the reference's own")
    if chosen.empty:
        raise BadInput(f"{KERNEL_VELOCITY} needs kernels, and this study has none; run its space with a cone block")
    return chosen
