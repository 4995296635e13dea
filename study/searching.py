"""From a space to be searched to a study: Optuna proposes, Ray Tune runs, Parquet remembers, a restart goes on."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
import search_spaces
from search_spaces import SearchSpace
from study import manifest
from study.cluster import run_jobs
from study.driver import Drive, Means, crew_of, device_of, driving, located, settled
from study.evidence import read_evidence
from study.goals import SCORES, Score, found_of
from study.manifest import Declared
from study.planner import Job, make_plan
from study.proposals import Proposals
from study.proposer import Proposer
from study.worker import commit_failure
from twophase.errors import BadInput

DEFAULT_MEANS = Means()


def search(
    space: str | Path | Mapping[str, Any],
    root: str | Path = "runs",
    *,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    means: Means = DEFAULT_MEANS,
) -> tuple[SearchSpace, results.Study, Proposer]:
    """Search a space, or go on where an earlier search of the same name stopped.

    Args:
        space: A preset's name, a YAML file, or a dict, with a `search` block.
        root: Folder of studies.
        name: Name of the study, in place of the space's own.
        overrides: Values by flat name or dotted path, laid over the space.
        means: What it may use.

    Returns:
        What was searched, the study, and the proposer, which knows what was found.

    Raises:
        BadInput: Something about the input is wrong; nothing was started.
        results.StudyError: The study can't be written, or another driver has it.
        EnvironmentFault: The disk is full, the cluster can't be reached or went away.
    """
    means = located(means)
    asked = search_spaces.load_search(space, overrides, name=name, device=device_of(means))
    means = settled(means, (asked.space([choice]) for choice in asked.examples()))
    example = asked.space(asked.examples()[:1])
    place = results.place(root)
    if results.is_remote(place):
        raise BadInput(
            f"a search's root must be a folder, where its journal can be appended to, got {place}; "
            "use a folder that all machines share"
        )
    with driving(example, place, means, is_listed=False) as drive:
        searching = Searching(asked, drive, Proposer(asked, drive.study.path, example.name))
        if searching.is_anything_left():
            run_jobs(searching.proposals(), crew_of(means, drive.place))
    return asked, drive.study, searching.proposer


class Searching:
    """Turns proposals into jobs, and the rows that they leave into scores."""

    def __init__(self, asked: SearchSpace, drive: Drive, proposer: Proposer) -> None:
        """Take up what an earlier search left without an outcome.

        Args:
            asked: What is searched.
            drive: The study in hand.
            proposer: What proposes.
        """
        self._asked, self._drive, self.proposer = asked, drive, proposer
        self._queue: deque[Job] = deque()
        self._numbers: dict[str, int] = {}
        self._open: dict[int, set[str]] = {}
        self._later: dict[int, list[Job]] = {}
        self._num_seeds = len(asked.space(asked.examples()[:1]).seeds)
        for number in proposer.pending:
            self._take_up(number)

    def is_anything_left(self) -> bool:
        """Tell whether there is anything to run."""
        job = self.next_job()
        if job is not None:
            self._queue.appendleft(job)
        return job is not None

    def proposals(self) -> Proposals:
        """What Ray Tune is given; jobs and cost are those of the settings that are left to be tried."""
        example = make_plan(self._asked.space(self._asked.examples()[:1]))
        left = self._asked.search.num_settings - self.proposer.num_settings
        num_jobs = len(self._queue) + left * example.num_trials
        return Proposals(self.next_job, self.end, num_jobs, num_jobs * example.lane_steps // max(1, example.num_trials))

    def next_job(self) -> Job | None:
        """The next job; None when all settings that were asked for have been proposed."""
        while not self._queue:
            if self.proposer.num_settings >= self._asked.search.num_settings or self.proposer.is_exhausted:
                return None
            self._take_up(self.proposer.ask())
        return self._queue.popleft()

    def end(self, job: Job, death: str) -> None:
        """Hear of a job's end; with the last of a setting, score it."""
        if death:
            commit_failure(job, self._drive.place, f"worker died: {death}")
        number = self._numbers.pop(job.trial.key)
        self._open[number].discard(job.trial.key)
        if not self._open[number]:
            self._go_on(number)

    def _take_up(self, number: int) -> None:
        """Queue what is missing of a proposal, or score it from what is there."""
        proposer = self.proposer
        choice, flaw = proposer.choice(number), proposer.flaw(number)
        if choice is None:
            proposer.drop(number)
        elif flaw:
            proposer.tell(number, dict.fromkeys(self._names(), Score(math.nan, why=flaw)))
        elif proposer.twin(number) is not None:
            proposer.repeat(number)
        else:
            self._declare()
            plan = make_plan(self._asked.space([choice]), results.read_commits(self._drive.study))
            self._later[number] = sorted(plan.jobs, key=lambda job: job.trial.seed)
            self._go_on(number)

    def _go_on(self, number: int) -> None:
        """Queue a proposal's next seeds, or tell what it scored: where all are done, or it has no hope."""
        later = self._later[number]
        if not later:
            self.proposer.tell(number, self._scores(number))
            return
        done, wanted = self._num_seeds - len(later), len(later)
        if self._asked.search.pruner == "halving":
            scores = self._scores(number) if done else {}
            if done and self.proposer.is_hopeless(number, done, scores):
                why = f"stopped after {done} of {self._num_seeds} seeds"
                self.proposer.stop(number, {name: replace(score, why=why) for name, score in scores.items()})
                return
            # As many again, up to the next power of two.
            wanted = min(len(later), 2 ** done.bit_length() - done)
        now, self._later[number] = later[:wanted], later[wanted:]
        self._queue += now
        self._open[number] = {job.trial.key for job in now}
        self._numbers |= dict.fromkeys(self._open[number], number)

    def _declare(self) -> None:
        """List what was proposed so far as a space of the study: `twophase run` would compute the same."""
        folder = self._drive.study.path
        space = self._asked.space(self.proposer.different())
        manifest.write_declared(folder, manifest.grown(manifest.require_declared(folder), space))

    def _scores(self, number: int) -> dict[str, Score]:
        """What the rows of a proposal's setting score so far."""
        study, key = self._drive.study, self.proposer.setting_key(number)
        mine = [("setting_key", "==", key)]
        trials = study.table("trials", filters=mine)
        num_failed = int((trials["status"] == "failed").sum())
        if num_failed:
            why = f"{num_failed} of its {len(trials)} trials failed"
            return dict.fromkeys(self._names(), Score(math.nan, why=why))
        declared = manifest.read_declared(study.path) or Declared()
        evidence = read_evidence(study, declared, mine)
        chaos, cone = study.table("chaos", filters=mine), study.table("cone", filters=mine)
        found = found_of(trials, chaos, cone, declared, evidence)
        return {name: SCORES[name](found) for name in self._names()}

    def _names(self) -> list[str]:
        search = self._asked.search
        return list(dict.fromkeys([*(goal.name for goal in search.goals), *(rule.name for rule in search.constraints)]))
