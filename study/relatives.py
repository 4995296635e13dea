"""Children beside their controls: the columns that indicators relative to controls are read from."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.curves import replicate_values, threshold_of
from study.manifest import Declared
from twophase.chaos import INDICATORS
from twophase.perturb import ORDER
from twophase.relative import RELATIVE_INDICATORS, relative

PLACE = ["trial_key", "fork_step", "measure_step"]
"""What a child and its control share: setting, seed and protocol, where they forked and where they were measured."""
CONTROL = "control_"
"""Begins the name of a column with the control's own value, the mean over the controls of a place."""
IS_CONTROLLED = "is_controlled"


def with_relatives(children: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Append every indicator of `twophase.relative.RELATIVE_INDICATORS` to children.

    Args:
        children: Children and controls with `lost`, as `study.evidence.judged` gives them.
        declared: The study's declarations, for the level at or below which a control is connected.

    Returns:
        The same rows with a column per relative indicator, one for each control's own value, and `is_controlled`:
        whether a child has a control at its place. A control has none of its own.
    """
    bases = list(dict.fromkeys(made.indicator for made in RELATIVE_INDICATORS.values()))
    controls = children[children["perturbation"] == ORDER]
    valued = controls[PLACE].assign(**{CONTROL + base: replicate_values(controls, base) for base in bases})
    means = valued.groupby(PLACE, as_index=False).mean().assign(**{IS_CONTROLLED: True})
    beside = children.merge(means, on=PLACE, how="left", validate="many_to_one")
    is_push = beside["perturbation"] != ORDER
    beside[IS_CONTROLLED] = beside[IS_CONTROLLED].eq(True) & is_push
    made = {
        name: relative(
            name,
            replicate_values(beside, kind.indicator).where(is_push),
            beside[CONTROL + kind.indicator],
            control_threshold=threshold_of(kind.indicator, declared),
        )
        for name, kind in RELATIVE_INDICATORS.items()
    }
    return beside.assign(**made)


def indicators_of(rows: pd.DataFrame) -> list[str]:
    """Indicators that children of one kind have: those relative to controls only where there are controls."""
    return [*INDICATORS, *(RELATIVE_INDICATORS if rows[IS_CONTROLLED].any() else ())]


def control_words(rows: pd.DataFrame, indicator: str) -> Iterator[str]:
    """Say where controls leave a relative indicator unknown.

    Args:
        rows: Children of one kind and measure step, as `with_relatives` gives them.
        indicator: The indicator; any other than a relative one has nothing to say.
    """
    if indicator not in RELATIVE_INDICATORS:
        return
    own = rows[CONTROL + RELATIVE_INDICATORS[indicator].indicator].to_numpy(dtype=float)
    is_unknown = rows[indicator].isna() & (rows["lost"] == "") & ~rows["diverged"]
    is_connected = is_unknown & np.isfinite(own)
    for words, which in (
        ("controls are connected themselves", is_connected),
        ("controls diverged", is_unknown & np.isposinf(own)),
        ("there are no controls", is_unknown & ~rows[IS_CONTROLLED]),
    ):
        steps = sorted(set(rows.loc[which, "fork_step"]))
        if steps:
            listed = ", ".join(f"{step}" for step in steps)
            yield f"{words} at fork step{'s' * (len(steps) > 1)} {listed} of some seeds, where it is unknown"
