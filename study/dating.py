"""The chaos effect's transition beside the cone effect's, setting by setting."""

import pandas as pd

from study.kernel_transitions import KERNEL_VELOCITY
from study.summary import records
from twophase.agreement import Dated, agreement

AGREEMENT_COLUMNS = [
    *("first", "second", "kernel", "ratio", "ci_low", "ci_high", "correlation", "correlation_low", "correlation_high"),
    *("num_settings", "num_both", "overlap_share", "overlap_low", "overlap_high", "only_first", "only_second"),
]


def agreements(transitions: pd.DataFrame) -> pd.DataFrame:
    """Hold the primary's transitions against those of each kind of kernel.

    Args:
        transitions: The `transitions` table, per setting.

    Returns:
        A row per kind of kernel; none where the kernel's transitions weren't located.
    """
    primary = transitions[transitions["is_primary"]]
    of_kernel = transitions[transitions["indicator"] == KERNEL_VELOCITY]
    rows = [_row(primary, rows, str(kernel)) for kernel, rows in of_kernel.groupby("kernel")]
    return pd.DataFrame([row for row in rows if row is not None], columns=AGREEMENT_COLUMNS)


def _row(primary: pd.DataFrame, others: pd.DataFrame, kernel: str) -> dict[str, object] | None:
    others = others.drop_duplicates("setting_key")
    both = primary.merge(others, on="setting_key", suffixes=("", "_kernel"))
    if both.empty:
        return None
    first = [_dated(row, "") for row in records(both)]
    second = [_dated(row, "_kernel") for row in records(both)]
    found = agreement(first, second)
    return {
        "first": primary["indicator"].iloc[0],
        "second": KERNEL_VELOCITY,
        "kernel": kernel,
        "ratio": found.ratio,
        "ci_low": found.ratio_low,
        "ci_high": found.ratio_high,
        "correlation": found.correlation,
        "correlation_low": found.correlation_low,
        "correlation_high": found.correlation_high,
        "num_settings": found.num_settings,
        "num_both": found.num_both,
        "overlap_share": found.overlap.value,
        "overlap_low": found.overlap.low,
        "overlap_high": found.overlap.high,
        "only_first": found.only_first,
        "only_second": found.only_second,
    }


def _dated(row: dict[str, object], suffix: str) -> Dated:
    step, low, high = (float(str(row[f"{name}{suffix}"])) for name in ("transition_step", "ci_low", "ci_high"))
    return Dated(step, low, high, str(row[f"verdict{suffix}"]))
