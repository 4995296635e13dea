"""What a search found, as text for a terminal and as JSON."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces import SearchSpace
from search_spaces.search_space import BRANCH
from study.goals import EXACT, Score
from study.proposer import AGAIN, CHOICE, FLAW, KEY, OUTCOME, STOPPED, Proposer, is_counted, scores_of
from study.summary import aligned
from twophase.config import Value

MOST_LINES = 10
KEPT, BEYOND, BOUND, NOTHING, UNFINISHED = (
    "scored",
    "scored, beyond a constraint",
    "only a bound, which is never best",
    "without a score",
    "not finished",
)


def search_text(asked: SearchSpace, proposer: Proposer, place: str) -> str:
    """Counts, the best settings, and what gave no exact score and why.

    Args:
        asked: What was searched.
        proposer: What it found.
        place: Path of the journal.
    """
    tried = different_trials(proposer)
    counts = Counter(outcome(trial) for trial in tried)
    said = ", ".join(
        f"{counts[word]} {word}" for word in (KEPT, BEYOND, BOUND, STOPPED, NOTHING, UNFINISHED) if counts[word]
    )
    wanted = ", ".join(f"{goal.direction} {goal.name}" for goal in asked.search.goals)
    rules = "".join(f", {rule}" for rule in asked.search.constraints)
    repeats = sum(trial.user_attrs.get(OUTCOME) == AGAIN for trial in proposer.trials)
    lines = [f"{len(tried)} settings tried ({said or 'none'}; {repeats} proposed again) to {wanted}{rules}", ""]
    ranked = _ranked(asked, tried)
    if ranked:
        best = {trial.number for trial in proposer.best()}
        lines += [aligned([_header(asked), *(_line(asked, t, is_best=t.number in best) for t in ranked[:MOST_LINES])])]
        lines += [f"… and {len(ranked) - MOST_LINES} more"] if len(ranked) > MOST_LINES else []
        lines += ["* no other is better in every goal" if len(asked.search.goals) > 1 else "* the best"]
    else:
        lines += ["no setting has an exact score within the constraints: nothing is best"]
    left = Counter(_why(trial) for trial in tried if not is_counted(trial) and trial.state != TrialState.RUNNING)
    lines += [f"{number} × {why}" for why, number in left.most_common(MOST_LINES)]
    return "\n".join([*lines, "", f"journal: {place} (any Optuna tool opens it)"])


def search_records(asked: SearchSpace, proposer: Proposer) -> dict[str, list[dict[str, Any]]]:
    """All that was tried, and the best, as plain values."""
    best = {trial.number for trial in proposer.best()}
    rows = [
        {
            "setting_key": trial.user_attrs.get(KEY, ""),
            **_chosen(asked, trial),
            "outcome": outcome(trial),
            "is_best": trial.number in best,
            "scores": {name: vars(score) for name, score in scores_of(trial).items()},
        }
        for trial in different_trials(proposer)
    ]
    return {"best": [row for row in rows if row["is_best"]], "settings": rows}


def different_trials(proposer: Proposer) -> list[FrozenTrial]:
    """Proposals without those that repeat another or that were broken off."""
    return [
        trial
        for trial in proposer.trials
        if CHOICE in trial.user_attrs and trial.user_attrs.get(OUTCOME) != AGAIN and trial.state != TrialState.FAIL
    ]


def outcome(trial: FrozenTrial) -> str:
    """What became of a proposal, in a few words."""
    if trial.state == TrialState.RUNNING:
        return UNFINISHED
    if trial.state == TrialState.PRUNED:
        return STOPPED if trial.user_attrs.get(OUTCOME) == STOPPED else NOTHING
    if any(score.bound != EXACT for score in scores_of(trial).values()):
        return BOUND
    return KEPT if is_counted(trial) else BEYOND


def _ranked(asked: SearchSpace, tried: list[FrozenTrial]) -> list[FrozenTrial]:
    signs = [1.0 if goal.direction == "minimize" else -1.0 for goal in asked.search.goals]
    counted = [trial for trial in tried if is_counted(trial)]
    return sorted(counted, key=lambda t: [s * value for s, value in zip(signs, t.values, strict=True)])


def _chosen(asked: SearchSpace, trial: FrozenTrial) -> dict[str, Value]:
    """Leaves that vary, those of the chosen entry of `settings` among them."""
    choice: Mapping[str, Value] = trial.user_attrs[CHOICE]
    branch = asked.branches[int(choice.get(BRANCH, 0))] if len(asked.branches) > 1 else {}
    return {**branch, **{leaf: value for leaf, value in choice.items() if leaf != BRANCH}}


def _leaves(asked: SearchSpace) -> list[str]:
    listed = [leaf for branch in asked.branches for leaf in branch] if len(asked.branches) > 1 else []
    return list(dict.fromkeys([*listed, *asked.axes]))


def _header(asked: SearchSpace) -> list[str]:
    search = asked.search
    names = dict.fromkeys([*(goal.name for goal in search.goals), *(rule.name for rule in search.constraints)])
    return ["", *_leaves(asked), *names]


def _line(asked: SearchSpace, trial: FrozenTrial, *, is_best: bool) -> list[str]:
    chosen, scores = _chosen(asked, trial), scores_of(trial)
    values = [_value(chosen[leaf]) if leaf in chosen else "–" for leaf in _leaves(asked)]
    return ["*" if is_best else "", *values, *(_score(score) for score in scores.values())]


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _score(score: Score) -> str:
    text = f"{score.value:.4g}"
    return text if math.isnan(score.low) else f"{text} [{score.low:.4g}, {score.high:.4g}]"


def _why(trial: FrozenTrial) -> str:
    if FLAW in trial.user_attrs:
        return str(trial.user_attrs[FLAW])
    said = dict.fromkeys(f"{name}: {score.why}" for name, score in scores_of(trial).items() if score.why)
    return "; ".join(said) or "beyond a constraint"
