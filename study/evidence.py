"""What of a study's rows is evidence of anything, and the words for what isn't."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import results
from study.columns import complete
from study.manifest import Declared
from study.protocols import Protocols, read_protocols
from twophase.data import DATA
from twophase.perturb import NONE, ORDER
from twophase.transition import Transition

LEAST_FALL = 0.02
"""A reference whose training loss fell by a smaller share than this has learned nothing."""

MOST_NAMED = 6
"""Fork steps in one line; where brackets are refined, each seed has its own."""

DIVERGED, UNLEARNED, UNCHANGED = "diverged", "unlearned", "unchanged"
_SEED_LOST = {
    DIVERGED: "the reference diverged in {}",
    UNLEARNED: "the reference learned nothing in {}, so that there was nothing to part over",
    UNCHANGED: "the push changed no weight at some fork steps in {}: it is below the resolution of {precision}, or 0",
}


@dataclass(frozen=True)
class Evidence:
    """What is known of a study's trials beside their rows.

    Attributes:
        protocols: How each was measured.
        unlearned: Keys of trials whose reference learned nothing.
        failures: Setting key -> trials that failed.
    """

    protocols: Protocols = field(default_factory=Protocols)
    unlearned: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)


def read_evidence(
    study: results.Study, declared: Declared, filters: Sequence[tuple[str, str, Any]] | None = None
) -> Evidence:
    """Read what a study's trials, or those that pass filters, are evidence of."""
    curves = study.table("trajectory", ["trial_key", "step", "num_steps", "train_loss"], filters)
    return evidence_of(study.table("trials", filters=filters), curves, declared)


def evidence_of(trials: pd.DataFrame, trajectory: pd.DataFrame, declared: Declared) -> Evidence:
    """What trials are evidence of, by their rows and learning curves."""
    failures = Counter(trials.loc[trials["status"] == "failed", "setting_key"])
    return Evidence(read_protocols(trials, declared), unlearned_trials(trials, trajectory), failures)


def unlearned_trials(trials: pd.DataFrame, trajectory: pd.DataFrame) -> frozenset[str]:
    """Find the trials whose reference learned nothing: two nets that stay what they were can't part.

    Either its training loss fell by less than 2 %, or its test accuracy is within three standard errors of chance,
    1/C + 3 √((1/C) (1 − 1/C) / N), and its training loss above 0.9 log C: a net that learned its training set by
    heart has learned. A reference that diverged is another matter.

    Args:
        trials: The `trials` table.
        trajectory: Of the learning curves at least `trial_key`, `step`, `num_steps` and `train_loss`.

    Returns:
        Their keys.
    """
    first = trajectory[trajectory["step"] == 0].set_index("trial_key")["train_loss"]
    last = trajectory[trajectory["step"] == trajectory["num_steps"]].set_index("trial_key")["train_loss"]
    keys = trials["trial_key"]
    start, end = keys.map(first).astype(float), keys.map(last).astype(float)
    chance = 1 / trials["data"].map({name: source.num_classes for name, source in DATA.items()}).astype(float)
    highest = chance + 3 * np.sqrt(chance * (1 - chance) / trials["num_test"])
    is_at_chance = (trials["test_accuracy"] <= highest) & ~(end < -0.9 * np.log(chance))
    is_still = end > (1 - LEAST_FALL) * start
    return frozenset(keys[(is_at_chance | is_still) & (trials["status"] == "ok")])


def judged(chaos: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Children beside `lost`: empty, or why they tell nothing.

    Their reference diverged, as their trial's sentinel tells, or learned nothing; or the push was lost in rounding, so
    that the child is the reference. Where that happens at one fork step, the same magnitude is no true push at others
    either (zeros, such as biases at the start, take a push that every other weight rounds away): none of them counts.

    Raises:
        BadInput: A column is missing that nothing stands for (`study.columns.complete`).
    """
    chaos = complete(chaos)
    sentinels = chaos.loc[chaos["perturbation"] == NONE, ["trial_key", "measure_step", "diverged"]]
    sentinels = sentinels.rename(columns={"diverged": "reference_diverged"})
    children = chaos[chaos["perturbation"] != NONE]
    children = children.merge(sentinels, on=["trial_key", "measure_step"], how="left", validate="many_to_one")
    is_unchanged = (children["perturbation"] != ORDER) & (children["changed_fraction"] == 0)
    push = [children[name] for name in ("trial_key", "perturbation", "magnitude", "direction")]
    is_unchanged = is_unchanged.groupby(push).transform("any")
    lost = np.select(
        [children["reference_diverged"].eq(True), children["trial_key"].isin(evidence.unlearned), is_unchanged],
        [DIVERGED, UNLEARNED, UNCHANGED],
        "",
    )
    return children.drop(columns="reference_diverged").assign(lost=lost)


def reason(found: Transition, rows: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Say why an estimate is undetermined, and what it leaves out.

    Args:
        found: The estimate.
        rows: The children it rests on, with `lost`.
        curves: Their curves, as `study.analysis.curve_matrix` gives them.

    Returns:
        Clauses joined by semicolons; empty if there is nothing to say.
    """
    words = [*_verdict_words(found, curves), *_grid_words(curves), *_reopening_words(found), *_lost_words(rows, curves)]
    return "; ".join(words)


def _grid_words(curves: pd.DataFrame) -> list[str]:
    seen = curves.notna().any()
    return ["only one fork step tells anything, a transition takes two to lie between"] * (int(seen.sum()) == 1)


def _reopening_words(found: Transition) -> list[str]:
    if not found.reopenings or found.verdict != "located":
        return []
    steps = ", ".join(f"{step:g}" for step in found.reopenings)
    return [f"some seeds rise above the threshold again at fork step{'s' * (len(found.reopenings) > 1)} {steps}"]


def _verdict_words(found: Transition, curves: pd.DataFrame) -> list[str]:
    kinds = Counter(_seed_words(crossing, curves) for crossing in found.crossings)
    if found.num_seeds == 0:
        return ["no seed tells anything"]
    if found.num_seeds == 1:
        return [f"only one seed tells anything ({next(iter(kinds))}), a verdict takes two"]
    if len(kinds) > 1:
        return [f"{_who(curves)} disagree: {counted(kinds)}"]
    if found.verdict == "undetermined":
        return ["at or below the threshold at every fork step, but none of them is step 0"]
    return []


def _who(curves: pd.DataFrame) -> str:
    """What is counted: seeds, or of settings pooled the curves of a setting and seed."""
    return "curves" if curves.index.unique("setting_key").size > 1 else "seeds"


def counted(kinds: Counter[str]) -> str:
    """How often each, most often first, e.g. ``2 located, 1 chaotic throughout``."""
    return ", ".join(f"{count} {words}" for words, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def _seed_words(crossing: float, curves: pd.DataFrame) -> str:
    if math.isinf(crossing):
        return "chaotic throughout"
    if crossing > 0:
        return "located"
    return "stable from start" if 0 in curves.columns else "never above the threshold"


def _lost_words(rows: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Seeds that tell nothing, by cause; then fork steps at which others tell nothing."""
    seeds = curves.notna().groupby(["setting_key", "seed"]).any()
    is_seen = seeds.any(axis=1)
    causes = rows[rows["lost"] != ""].groupby(["setting_key", "seed"])["lost"].agg(lambda column: column.mode()[0])
    words = []
    for cause, text in _SEED_LOST.items():
        count = sum(causes.get(key) == cause for key in is_seen.index[~is_seen])
        if count:
            precision = rows["precision"].iloc[0]
            words.append(text.format(f"{count} of {len(seeds)} {_who(curves)}", precision=precision))
    if causes.empty and not is_seen.any():
        words.append("the indicator is unknown in all their rows")
    partly = seeds[is_seen]
    missing = [f"{step}" for step in partly.columns if not partly[step].all()]
    if missing:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        named = ", ".join(missing[:MOST_NAMED]) + more
        words.append(f"not all {_who(curves)} tell something at fork step{'s' * (len(missing) > 1)} {named}")
    return words


def setting_words(evidence: Evidence, setting_keys: Iterable[str]) -> list[str]:
    """Say what is missing of settings as a whole."""
    failed = sum(evidence.failures.get(key, 0) for key in setting_keys)
    return [f"{failed} trial{'s' * (failed > 1)} failed"] if failed else []
