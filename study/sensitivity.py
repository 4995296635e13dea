"""Growth rows -> the sensitivity transition: from which fork step a small perturbation no longer grows."""

import pandas as pd

from study.summary import records
from twophase.growth import LEAST_NATS
from twophase.transition import locate_transition

SENSITIVITY_COLUMNS = ["setting_key", "window", "transition_step", "ci_low", "ci_high", "verdict", "num_seeds"]


def sensitivities(growth: pd.DataFrame) -> pd.DataFrame:
    """Locate each setting's sensitivity transition; exploratory, and another question than connectivity.

    The indicator is the growth over the window in nats: the tangent's, or the greatest jump of a renormalised twin
    where that is larger and growth isn't exponential (a tangent doesn't see the kinks of a ReLU). The threshold is 0.2
    nats, a factor of 1.22, below which growth can't be told from none.

    Args:
        growth: The `growth` table.

    Returns:
        A row per setting and length of window, the estimate as `twophase.locate_transition` makes it: the median over
        seeds, each the mean of its directions.
    """
    seen = growth.assign(value=growth_nats(growth))
    rows = [_row(str(key), int(str(window)), of) for (key, window), of in seen.groupby(["setting_key", "window"])]
    return pd.DataFrame(rows, columns=SENSITIVITY_COLUMNS)


def growth_nats(growth: pd.DataFrame) -> pd.Series:
    """How much a small perturbation grew over its window, in nats; NaN where the reference diverged."""
    jumped = growth[["amplification", "jump"]].max(axis=1, skipna=False)
    return growth["amplification"].where(growth["is_exponential"], jumped)


def _row(setting_key: str, window: int, rows: pd.DataFrame) -> dict[str, object]:
    curves = rows.pivot(index=["seed", "trial_key", "direction"], columns="fork_step", values="value")
    seeds = curves.index.get_level_values("seed")
    found = locate_transition(curves.columns.to_numpy(), curves.to_numpy(), threshold=LEAST_NATS, groups=seeds)
    return {
        "setting_key": setting_key,
        "window": window,
        "transition_step": found.step,
        "ci_low": found.low,
        "ci_high": found.high,
        "verdict": found.verdict,
        "num_seeds": found.num_seeds,
    }


def beside_connectivity(found: pd.DataFrame, transitions: pd.DataFrame) -> list[dict[str, object]]:
    """Each setting's sensitivity transition beside that of the primary, where it has one.

    Args:
        found: As `sensitivities` gives them.
        transitions: The `transitions` table.

    Returns:
        Rows of `found` with `connectivity`, a row of the primary or None.
    """
    primary = {row["setting_key"]: row for row in records(transitions[transitions["is_primary"]])}
    return [{**row, "connectivity": primary.get(row["setting_key"])} for row in records(found)]
