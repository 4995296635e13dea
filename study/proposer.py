"""Optuna proposes settings and remembers what they scored: asked and told from outside, killed at any moment.

Its storage is a journal beside the tables. What it says of a setting is a copy: the rows of the setting are the truth,
so that a proposal of a run that died is scored from whatever rows it left, or run again.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces import SearchSpace
from search_spaces.search_space import BRANCH, Axis, Interval
from study.goals import EXACT, Score
from twophase.config import Value
from twophase.errors import BadInput

FILE = "_search/journal.log"
CHOICE, KEY, FLAW, OUTCOME = "choice", "setting_key", "flaw", "outcome"
SCORES, VIOLATIONS = "scores", "violations"
SPACE = "space"
MOST_REPEATS = 50
"""Proposals in a row of settings known already, or of none that is valid, after which a space counts as exhausted."""
TOLD, BOUND, NOTHING, AGAIN, STOPPED = "scored", "only a bound", "no score", "as before", "stopped early"


class Proposer:
    """Asks Optuna for settings and tells it their scores."""

    def __init__(self, space: SearchSpace, folder: Path, study_name: str) -> None:
        """Open or begin the search that is kept in a study's folder; its driver must hold the study's lease.

        Args:
            space: What is searched.
            folder: The study's folder.
            study_name: The study's name.

        Raises:
            BadInput: The search that is there has other goals or another space.
        """
        self._space = space
        self._asked: dict[int, optuna.Trial] = {}
        path = folder / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend(path)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(path)))
        directions = [StudyDirection[goal.direction.upper()] for goal in space.search.goals]
        is_new = study_name not in optuna.get_all_study_names(storage)
        known = None if is_new else optuna.load_study(study_name=study_name, storage=storage)
        if known is not None:
            _require_same(space, known.user_attrs.get(SPACE, {}))
        with warnings.catch_warnings():
            # Some samplers call their own options experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = SAMPLER_MAKERS[space.search.sampler](space, len(known.trials) if known else 0)
        self._study = optuna.create_study(
            study_name=study_name,
            storage=storage,
            sampler=sampler,
            pruner=PRUNER_MAKERS[space.search.pruner](),
            directions=directions,
            load_if_exists=True,
        )
        if SPACE not in self._study.user_attrs:
            self._study.set_user_attr(SPACE, _pinned(space))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names(self._goal_names)

    @property
    def _goal_names(self) -> list[str]:
        return [goal.name for goal in self._space.search.goals]

    @property
    def trials(self) -> list[FrozenTrial]:
        """All proposals so far, in their order."""
        return self._study.get_trials(deepcopy=False)

    @property
    def pending(self) -> list[int]:
        """Numbers of proposals that have no outcome yet."""
        return [trial.number for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def num_settings(self) -> int:
        """Different settings that were proposed."""
        return len({trial.user_attrs[KEY] for trial in self.trials if KEY in trial.user_attrs})

    def choice(self, number: int) -> dict[str, Value] | None:
        """What a proposal chose; None if its process was killed before it had."""
        choice: dict[str, Value] | None = self.trials[number].user_attrs.get(CHOICE)
        return choice

    def flaw(self, number: int) -> str:
        """Why a proposal is no valid setting; empty if it is one."""
        return str(self.trials[number].user_attrs.get(FLAW, ""))

    def setting_key(self, number: int) -> str:
        """The key of a proposal's setting."""
        return str(self.trials[number].user_attrs[KEY])

    def different(self) -> list[dict[str, Value]]:
        """What was chosen so far, each setting once, in order."""
        known: dict[str, dict[str, Value]] = {}
        for trial in self.trials:
            if KEY in trial.user_attrs:
                known.setdefault(trial.user_attrs[KEY], trial.user_attrs[CHOICE])
        return list(known.values())

    def ask(self) -> int:
        """Make one more proposal.

        Returns:
            Its number.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            queued = self._next_of_grid() if self._space.search.sampler == "grid" else None
            if queued is not None:
                self._study.enqueue_trial(queued)
            trial = self._study.ask()
            choice: dict[str, Value] = {BRANCH: 0}
            if len(self._space.branches) > 1:
                choice[BRANCH] = int(trial.suggest_categorical(BRANCH, list(range(len(self._space.branches)))))
            for leaf, axis in self._space.axes.items():
                if self._space.applies(leaf, choice):
                    choice[leaf] = _suggest(trial, leaf, axis)
        self._asked[trial.number] = trial
        trial.set_user_attr(CHOICE, choice)
        try:
            trial.set_user_attr(KEY, self._space.space([choice]).settings[0].key)
        except BadInput as error:  # a combination of values that each would do by itself; told as giving nothing
            trial.set_user_attr(FLAW, str(error))
        return trial.number

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing new is to be expected: the grid is through, or the last many proposals were all repeated."""
        if self._space.search.sampler == "grid":
            return self._next_of_grid() is None
        last = self.trials[-MOST_REPEATS:]
        is_new = [FLAW not in trial.user_attrs and trial.user_attrs.get(OUTCOME) != AGAIN for trial in last]
        return len(last) == MOST_REPEATS and not any(is_new)

    def _next_of_grid(self) -> dict[str, Value] | None:
        known = [trial.user_attrs.get(CHOICE) for trial in self.trials]
        return next((choice for choice in self._space.grid() if choice not in known), None)

    def twin(self, number: int) -> FrozenTrial | None:
        """The earlier proposal of the same setting; None if it is the first."""
        key = self.setting_key(number)
        return next((trial for trial in self.trials[:number] if trial.user_attrs.get(KEY) == key), None)

    def tell(self, number: int, scores: Mapping[str, Score]) -> None:
        """Tell what a proposal scored.

        A goal without a number makes it a setting that gave nothing (pruned, for Optuna: worse than any that gave
        something). A goal that is only a bound is told as that bound, and as breaking the rule that a score be exact:
        it can guide, but never be the best.

        Args:
            number: The proposal.
            scores: Of each goal and constraint its score.
        """
        goals = [scores[name] for name in self._goal_names]
        bounds = [scores[constraint.name] for constraint in self._space.search.constraints]
        violations = self._violations(scores)
        has_all = all(math.isfinite(score.value) for score in [*goals, *bounds])
        outcome = NOTHING if not has_all else BOUND if any(score.bound != EXACT for score in goals) else TOLD
        self._note(number, scores={name: _jsonable(asdict(score)) for name, score in scores.items()}, outcome=outcome)
        if has_all:
            for name, violation in violations.items():
                self._trial(number).set_constraint(name, violation)
            self._note(number, violations=violations)
            self._study.tell(number, [score.value for score in goals])
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def _violations(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """How far scores are beyond each rule that a proposal must keep to count; at most 0 where they keep it."""
        violations = {f"{name} is exact": float(scores[name].bound != EXACT) for name in self._goal_names}
        return violations | {
            str(rule): rule.violation(scores[rule.name].value) for rule in self._space.search.constraints
        }

    def is_hopeless(self, number: int, num_seeds: int, scores: Mapping[str, Score]) -> bool:
        """Report what a proposal scores after some of its seeds, and ask whether to leave out the others.

        What has no number, is only a bound or breaks a rule is not ranked: it may be the least of all and yet never be
        best, and would push out what can be.

        Args:
            number: The proposal.
            num_seeds: Seeds that are done.
            scores: Of its one goal and each constraint, by those alone.
        """
        trial, score = self._trial(number), scores[self._goal_names[0]]
        if not math.isfinite(score.value) or not all(v <= 0 for v in self._violations(scores).values()):
            return False
        if num_seeds not in self.trials[number].intermediate_values:
            trial.report(score.value, num_seeds)
        return trial.should_prune()

    def stop(self, number: int, scores: Mapping[str, Score]) -> None:
        """Tell that a proposal was stopped early, and what it scored until then; it never counts.

        Args:
            number: The proposal.
            scores: Of each goal and constraint its score, which says why it ended.
        """
        self._note(number, scores={name: _jsonable(asdict(score)) for name, score in scores.items()}, outcome=STOPPED)
        self._study.tell(number, state=TrialState.PRUNED)

    def repeat(self, number: int) -> None:
        """Tell that a proposal is a setting that was proposed before: its score counts once."""
        self._note(number, outcome=AGAIN)
        self._study.tell(number, state=TrialState.FAIL)

    def drop(self, number: int) -> None:
        """Give up a proposal that was broken off before it was whole."""
        self._study.tell(number, state=TrialState.FAIL)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._asked:
            # The way back to a trial that an earlier process asked for goes by the name that the storage has for it.
            self._asked[number] = optuna.Trial(self._study, self.trials[number]._trial_id)
        return self._asked[number]

    def _note(self, number: int, **values: Any) -> None:
        for name, value in values.items():
            self._trial(number).set_user_attr(name, value)

    def best(self) -> list[FrozenTrial]:
        """Proposals that count and that no other beats: the best one, or the Pareto front; best first."""
        signs = [1.0 if goal.direction == "minimize" else -1.0 for goal in self._space.search.goals]
        counted = [trial for trial in self.trials if is_counted(trial)]
        costs = {trial.number: [s * v for s, v in zip(signs, trial.values, strict=True)] for trial in counted}
        front = [t for t in counted if not any(_beats(costs[o.number], costs[t.number]) for o in counted)]
        return sorted(front, key=lambda trial: (costs[trial.number], trial.number))


def is_counted(trial: FrozenTrial) -> bool:
    """Tell whether a proposal has an exact score and keeps all constraints."""
    return trial.state == TrialState.COMPLETE and all(v <= 0 for v in trial.user_attrs[VIOLATIONS].values())


def scores_of(trial: FrozenTrial) -> dict[str, Score]:
    """What a proposal scored, by goal."""
    return {name: _score(stored) for name, stored in trial.user_attrs.get(SCORES, {}).items()}


def _score(stored: Mapping[str, Any]) -> Score:
    value, low, high = (math.nan if stored[name] is None else stored[name] for name in ("value", "low", "high"))
    return Score(value, low, high, stored["bound"], stored["why"])


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def _jsonable(score: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in score.items()}


def _suggest(trial: optuna.Trial, leaf: str, axis: Axis) -> Value:
    if not isinstance(axis, Interval):
        place: int = list(axis).index(trial.suggest_categorical(leaf, list(axis)))  # type: ignore[arg-type]
        return axis[place]
    if axis.is_integer:
        return int(trial.suggest_int(leaf, int(axis.low), int(axis.high), log=axis.is_log))
    # Identity must not hang on the last bits.
    return float(f"{trial.suggest_float(leaf, axis.low, axis.high, log=axis.is_log):.6g}")


def _require_same(space: SearchSpace, known: Mapping[str, Any]) -> None:
    for name, value in _pinned(space).items():
        if name in known and known[name] != value:
            raise BadInput(
                f"{name} of a search can't be changed once it has begun ({json.dumps(known[name])}), "
                f"got {json.dumps(value)}; choose another --name"
            )


def _pinned(space: SearchSpace) -> dict[str, Any]:
    """What makes scores comparable: all but how many settings are tried, by which sampler, and how fast."""
    search = asdict(space.search)
    rest = {key: value for key, value in space.raw.items() if key not in ("training", "name")}
    pinned = {
        "search.goals": search["goals"],
        "search.constraints": search["constraints"],
        "axes": {leaf: asdict(axis) if isinstance(axis, Interval) else list(axis) for leaf, axis in space.axes.items()},
        "settings": list(space.branches),
        **rest,
    }
    return dict(json.loads(json.dumps(pinned)))


def _tpe(space: SearchSpace, num_before: int) -> optuna.samplers.BaseSampler:
    # A restart must not propose the first settings over again.
    return optuna.samplers.TPESampler(
        seed=space.search.sampler_seed + num_before,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def _gp(space: SearchSpace, num_before: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=space.search.sampler_seed + num_before)


def _nsga2(space: SearchSpace, num_before: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=space.search.sampler_seed + num_before, population_size=20)


def _qmc(space: SearchSpace, _num_before: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.QMCSampler(seed=space.search.sampler_seed, scramble=True, warn_independent_sampling=False)


def _random(space: SearchSpace, num_before: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=space.search.sampler_seed + num_before)


SAMPLER_MAKERS: dict[str, Callable[[SearchSpace, int], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "qmc": _qmc,
    "random": _random,
    "grid": _random,
}
"""Name of a sampler (`search_spaces.search_block.SAMPLERS`) -> how it is made.

A grid's proposals are queued, and never drawn.
"""


def _halving() -> BasePruner:
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)


PRUNER_MAKERS: dict[str, Callable[[], BasePruner]] = {"none": NopPruner, "halving": _halving}
"""Name of a pruner (`search_spaces.search_block.PRUNERS`) -> how it is made."""


def _mend(path: Path) -> None:
    """Make a journal whole whose writer was killed: a line half written, and the lock that it held."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink()
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
