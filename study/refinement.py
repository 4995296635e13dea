"""Which fork steps a seed needs next: its bracket of the primary's threshold, cut until it is narrow enough.

What is next is a pure function of a space and of the rows that are there. So a run that was killed goes on, one that is
finished plans nothing, and rows of a dense grid count as well as those of earlier rounds. `Refine.most` bounds a seed's
fork steps beyond the first grid, not the rounds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

import results
from results import Commit
from search_spaces import Space
from study import manifest
from study.crossings import crossings
from study.evidence import Evidence, read_evidence
from study.manifest import Declared
from study.planner import Job, Plan, Steps, make_plan, todo_union
from twophase.children import SENTINEL, Child, Todo
from twophase.config import Setting

MOST_CUTS = 3
"""Of a bracket in one round. A batch has four lanes at least, reference and sentinel among them: two children of a cut
cost as much for each halving as six of three, which take half the rounds; one child of three cuts costs least."""


@dataclass(frozen=True)
class Bracket:
    """Where a seed settles, as far as its fork steps tell.

    Attributes:
        low: Last fork step at which it is chaotic.
        high: Fork step from which it stays settled.
    """

    low: int
    high: int

    @property
    def ratio(self) -> float:
        """(1 + high) / (1 + low)."""
        return (1 + self.high) / (1 + self.low)


def lattice(factor: float, end: int) -> list[int]:
    """Steps from 0 below an end that are at most a factor apart in 1 + t, or one step: where all seeds are cut.

    One lattice for all, so that seeds share fork steps, and a dense grid of that resolution has every row of theirs.
    """
    steps = [0]
    while steps[-1] < end:
        steps.append(max(steps[-1] + 1, math.floor((1 + steps[-1]) * factor + 1e-9) - 1))
    return steps[:-1] if end else []


def cuts(bracket: Bracket, factor: float, most: int = MOST_CUTS) -> list[int]:
    """Fork steps inside a bracket: of the lattice's steps there as many as are wanted, evenly spaced among them.

    Args:
        bracket: The bracket.
        factor: Ratio of a bracket that is narrow enough.
        most: Most steps.

    Returns:
        Steps, ascending; none where it is narrow enough, or has no step inside.
    """
    if bracket.ratio <= factor * (1 + 1e-9):
        return []
    inside = [step for step in lattice(factor, bracket.high) if step > bracket.low]
    number = min(most, len(inside))
    places = np.linspace(0, len(inside) + 1, number + 2)[1:-1].round().astype(int) - 1
    return [inside[place] for place in dict.fromkeys(places.tolist())]


def brackets(
    chaos: pd.DataFrame, declared: Declared, evidence: Evidence | None = None
) -> dict[tuple[str, int], Bracket]:
    """Find the bracket of each seed of each setting by the primary, where it has one.

    Seeds that are never chaotic, never settle or tell nothing have none: a finer grid inside wouldn't help.

    Args:
        chaos: The study's `chaos` table.
        declared: Its primary.
        evidence: What is known of its trials beside.

    Returns:
        (setting key, seed) -> bracket.
    """
    if chaos.empty:
        return {}
    found = crossings(chaos, declared, evidence)
    found = found[found["is_primary_measure"] & (found["outcome"] == "located")]
    found = found[(found["perturbation"] == declared.perturbation) & (found["magnitude"] == declared.primary_magnitude)]
    pushed = _pushed(chaos, declared)
    forks = pushed.groupby(["setting_key", "seed"])["fork_step"].agg(lambda steps: sorted(set(steps)))
    made = {}
    for row in found.to_dict("records"):
        key = (str(row["setting_key"]), int(row["seed"]))
        high = int(row["high"])
        before = [int(step) for step in forks.get(key, []) if step < high]
        if before:
            made[key] = Bracket(before[-1], high)
    return made


def wanted_beside(
    spaces: Sequence[Space], chaos: pd.DataFrame, declared: Declared, evidence: Evidence | None = None
) -> dict[str, Todo]:
    """What trials of spaces that refine want beside their grids: fork steps that are there, and those that are next.

    Args:
        spaces: The spaces.
        chaos: The study's `chaos` table.
        declared: Its primary.
        evidence: What is known of its trials beside.

    Returns:
        Trial key -> children of the primary's push at these steps, and the sentinel compared where they are.
    """
    refining = [space for space in spaces if space.chaos.refine]
    if not refining or chaos.empty:
        return {}
    found = brackets(chaos, declared, evidence)
    pushed = _pushed(chaos, declared)
    there = {str(key): frozenset(map(int, steps)) for key, steps in pushed.groupby("trial_key")["fork_step"]}
    wanted: dict[str, Todo] = {}
    for space in refining:
        for trial in space.trials():
            own, bracket = there.get(trial.key, frozenset()), found.get((trial.setting.key, trial.seed))
            steps = _next_steps(space, trial.setting, own, bracket)
            todo = _todo(space, trial.setting, steps, declared)
            if todo is not None:
                wanted[trial.key] = todo_union([wanted[trial.key], todo]) if trial.key in wanted else todo
    return wanted


def _next_steps(space: Space, point: Setting, there: frozenset[int], bracket: Bracket | None) -> list[int]:
    refine, grid = space.chaos.refine, set(space.chaos.forks(point))
    if refine is None or not grid <= there:
        return []
    added = sorted(there - grid)
    room = refine.most - len(added)
    following = cuts(bracket, refine.factor, min(MOST_CUTS, room)) if bracket is not None and room > 0 else []
    return [*added, *following]


def _todo(space: Space, point: Setting, steps: Iterable[int], declared: Declared) -> Todo | None:
    chaos = space.chaos
    children: Steps = {}
    for fork in steps:
        measured = chaos.absolute_steps(point, fork)
        for direction in range(chaos.num_directions) if measured else ():
            children[Child(fork, declared.perturbation, declared.primary_magnitude, direction)] = set(measured)
    if not children:
        return None
    compared = tuple(sorted({step for measured in children.values() for step in measured}))
    listed = {child: tuple(sorted(measured)) for child, measured in children.items()}
    return Todo({SENTINEL: compared, **listed}, frozenset(listed), is_trajectory_wanted=False)


def _pushed(chaos: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    return chaos[(chaos["perturbation"] == declared.perturbation) & (chaos["magnitude"] == declared.primary_magnitude)]


def refined_plan(
    space: Space | Sequence[Space],
    study: results.Study | None = None,
    commits: Iterable[Commit] = (),
    *,
    is_ordered: bool = True,
) -> Plan:
    """Plan as `study.planner.make_plan` does, with what seeds need next where a space refines.

    Args:
        space: What is wanted; of several spaces, all of it together.
        study: The study, if there is one.
        commits: Its live commits.
        is_ordered: As `make_plan` takes it.
    """
    spaces = [_with_snapshots(one) for one in ([space] if isinstance(space, Space) else space)]
    declared = manifest.read_declared(study.path) if study else None
    more: Mapping[str, Todo] = {}
    if study and declared and any(one.chaos.refine for one in spaces):
        more = wanted_beside(spaces, study.table("chaos"), declared, read_evidence(study, declared))
    return make_plan(spaces, commits, is_ordered=is_ordered, more=more)


def following(space: Space, study: results.Study, job: Job) -> list[Job]:
    """What a trial needs next, now that a job of it has ended; nothing where its space doesn't refine.

    Args:
        space: The space.
        study: The study.
        job: What has ended.
    """
    declared = manifest.read_declared(study.path)
    if space.chaos.refine is None or declared is None:
        return []
    trial, mine = job.trial, [("trial_key", "==", job.trial.key)]
    alone = replace(_with_snapshots(space), settings=(trial.setting,), seeds=(trial.seed,))
    more = wanted_beside([alone], study.table("chaos", filters=mine), declared, read_evidence(study, declared, mine))
    return make_plan(alone, results.read_commits(study, trial.key), more=more).jobs


def _with_snapshots(space: Space) -> Space:
    """Later rounds fork from the reference as it was: without its snapshots each would train it from the start."""
    if space.chaos.refine is None or space.training.is_snapshot_kept:
        return space
    return replace(space, training=replace(space.training, is_snapshot_kept=True))
