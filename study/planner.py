"""What is planned minus what is there is what to do.

Perturbation time, magnitude and direction are folded into trials: a trial's children share its reference. A space
may ask for trials in pieces (`study.folding`): jobs of one trial then run side by side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from results import Commit
from results.commits import live_commits
from search_spaces import Fold, Space, Training
from study.costs import step_flops
from study.folding import cut, starts_of
from twophase.children import SENTINEL, Child, Sketched, Todo, lane_steps, total_lane_steps
from twophase.config import Protocol, Setting, Trial, digest
from twophase.perturb import NONE

Covers = dict[str, Any]
Steps = dict[Child, set[int]]
NOTHING = Todo({}, is_trajectory_wanted=False)


@dataclass(frozen=True)
class Job:
    """What one Ray trial does: the missing part of one trial, or a piece of that.

    Attributes:
        trial: Setting, seed, protocol.
        todo: What is missing.
        whole: All that the trial then has, in case its reference can't be reproduced and all must be done again.
        reference_digest: The stored reference's, or empty.
        generation: That of the rows that are there.
        means: What its cost depends on, and nothing else.
        piece: Name of the piece within its trial; empty where the trial is whole.
        is_first: Whether it is the only piece or the one that others may wait for.
        start: Step at which it takes up the reference that the first piece kept there; 0 if it trains its own.
        shared_steps: Steps at which it keeps the reference for the other pieces.
    """

    trial: Trial
    todo: Todo
    whole: Todo
    reference_digest: str = ""
    generation: int = 0
    means: Training = Training()
    piece: str = ""
    is_first: bool = True
    start: int = 0
    shared_steps: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from all other jobs of a plan."""
        return f"{self.trial.key}-{self.piece}" if self.piece else self.trial.key

    @cached_property
    def lane_steps(self) -> int:
        """What it is expected to cost."""
        return total_lane_steps(self.trial, self.todo, lane_width=self.means.lane_width, start=self.start)

    @property
    def covers(self) -> Covers:
        """What the job's commit will cover."""
        return covers_of(self.todo)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON."""
        trial = self.trial
        return {
            "setting": trial.setting.values(),
            "seed": trial.seed,
            "protocol": asdict(trial.protocol),
            "todo": covers_of(self.todo),
            "whole": covers_of(self.whole),
            "reference_digest": self.reference_digest,
            "generation": self.generation,
            "means": asdict(self.means),
            "piece": [self.piece, self.is_first, self.start, list(self.shared_steps)],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Job":
        """The reverse of `to_json`."""
        trial = Trial(Setting(**raw["setting"]), raw["seed"], Protocol(**raw["protocol"]))
        todo, whole = todo_of(raw["todo"]), todo_of(raw["whole"])
        name, is_first, start, kept = raw["piece"]
        known, generation, means = raw["reference_digest"], raw["generation"], Training(**raw["means"])
        return cls(trial, todo, whole, known, generation, means, name, is_first, start, tuple(kept))


@dataclass
class Plan:
    """A space held against a store.

    Attributes:
        jobs: What is to be run, the most costly first; of a trial in pieces, the first piece as if it were all.
        num_trials: Trials planned.
        num_done: Trials of which nothing is missing.
        num_failed: Trials that failed before and are left alone.
        num_children: Children planned, controls included, sentinels not.
        num_pieces: Pieces of trials planned; a whole trial is one.
        lane_steps: Cost of all that is planned, had nothing been there.
        apart_lane_steps: The same with every piece training its own reference from the start.
        whole_lane_steps: The same with no trial in pieces.
        pair_lane_steps: The same with every child and its reference trained as a pair of their own.
        todo_lane_steps: Cost of `jobs`.
        num_kernels: Kernels planned, sketched ones of children included.
        num_sketch_bytes: Size of all sketches planned.
        num_growths: Windows of growth planned, one per fork step and direction.
        num_switches: Linearised runs planned, the unswitched ones beside them not.
        num_rows: Rows planned over all tables.
    """

    jobs: list[Job] = field(default_factory=list)
    num_trials: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_children: int = 0
    num_pieces: int = 0
    lane_steps: int = 0
    apart_lane_steps: int = 0
    whole_lane_steps: int = 0
    pair_lane_steps: int = 0
    todo_lane_steps: int = 0
    num_kernels: int = 0
    num_sketch_bytes: int = 0
    num_growths: int = 0
    num_switches: int = 0
    num_rows: int = 0

    @property
    def num_todo(self) -> int:
        """Trials of which something is to be run."""
        return len({job.trial.key for job in self.jobs})

    def times(self, number: int) -> "Plan":
        """The counts of so many like it; without jobs."""
        counts = {f.name: number * getattr(self, f.name) for f in fields(self) if f.name != "jobs"}
        return Plan([], **counts)


def covers_of(todo: Todo) -> Covers:
    """A todo as JSON, in a canonical order."""
    return {
        "trajectory": todo.is_trajectory_wanted,
        "measure_steps": [[*_child_json(child), sorted(steps)] for child, steps in sorted(todo.measure_steps.items())],
        "divergence": [_child_json(child) for child in sorted(todo.divergence)],
        "kernels": {kind: sorted(steps) for kind, steps in sorted(todo.kernel_steps.items())},
        # Left out where there is none: the names of older parts depend on this.
        **({"growth": [list(window) for window in sorted(todo.growth)]} if todo.growth else {}),
        **({"switch": sorted(todo.switch_steps)} if todo.switch_steps else {}),
        **({"sketches": _sketches_json(todo)} if todo.sketch_steps else {}),
    }


def todo_of(covers: Mapping[str, Any]) -> Todo:
    """The reverse of `covers_of`."""
    return Todo(
        {Child(*entry[:4]): tuple(entry[4]) for entry in covers["measure_steps"]},
        frozenset(Child(*entry) for entry in covers["divergence"]),
        covers["trajectory"],
        # Parts of a version that took no kernels don't mention them.
        {kind: tuple(steps) for kind, steps in covers.get("kernels", {}).items()},
        frozenset((step, direction) for step, direction in covers.get("growth", [])),
        frozenset(covers.get("switch", [])),
        {Sketched(kind, size, Child(*child)): tuple(taken) for kind, size, child, taken in covers.get("sketches", [])},
    )


def parts_of(todo: Todo) -> dict[str, Todo]:
    """Split a todo into the parts that are stored by themselves, by name.

    A kind's kernels are always one part of one name: velocities depend on the checkpoint before, so that added steps
    rewrite the rows of all. Other work has the name of what it covers: done again, it replaces itself. Growth is a part
    of its own, and so are switches and sketches; the rest comes last.
    """
    kinds = sorted(todo.kernel_steps.items())
    parts = {f"kernel-{kind}": replace(NOTHING, kernel_steps={kind: steps}) for kind, steps in kinds}
    apart = {
        "growth": replace(NOTHING, growth=todo.growth),
        "switch": replace(NOTHING, switch_steps=todo.switch_steps),
        "sketch": replace(NOTHING, sketch_steps=todo.sketch_steps),
    }
    parts |= {f"{name}-{digest(covers_of(own))[:8]}": own for name, own in apart.items() if own != NOTHING}
    rows = replace(todo, kernel_steps={}, growth=frozenset(), switch_steps=frozenset(), sketch_steps={})
    return parts if rows == NOTHING else {**parts, digest(covers_of(rows))[:8]: rows}


def planned(space: Space, point: Setting) -> Todo:
    """All that a space wants of each trial of a setting."""
    children = space.chaos.children(point)
    measured = sorted({step for steps in children.values() for step in steps})
    sentinel = {SENTINEL: tuple(measured)} if measured else {}
    return Todo(
        {**sentinel, **children},
        frozenset(children),
        kernel_steps=space.cone.kernel_steps(point),
        growth=space.growth.windows(point),
        switch_steps=space.switch.steps_of(point),
        sketch_steps=space.cone.sketch_steps(point, space.chaos),
    )


def make_plan(
    space: Space | Sequence[Space],
    commits: Iterable[Commit] = (),
    *,
    is_ordered: bool = True,
    more: Mapping[str, Todo] | None = None,
) -> Plan:
    """Hold what is wanted against what is there.

    Args:
        space: What is wanted; of several spaces, all of it together.
        commits: The store's live commits.
        is_ordered: Whether the most costly jobs come first, for which every architecture is counted.
        more: Trial key -> what is wanted of that trial beside; see `study.refinement`.

    Returns:
        What is missing, and counts.
    """
    by_trial: dict[str, list[Commit]] = {}
    for commit in commits:
        by_trial.setdefault(commit.trial_key, []).append(commit)
    wanted_of: dict[Trial, list[Todo]] = {}
    spaces = [space] if isinstance(space, Space) else list(space)
    for asked in spaces:
        # One for all seeds of a setting: thousands of trials then share a few.
        known: dict[Setting, Todo] = {}
        for trial in asked.trials():
            if trial.setting not in known:
                known[trial.setting] = planned(asked, trial.setting)
            wanted_of.setdefault(trial, []).append(known[trial.setting])
    plan = Plan()
    means, fold = (spaces[-1].training, spaces[-1].fold) if spaces else (Training(), Fold())
    for trial, asked_for in wanted_of.items():
        asked_for.extend(filter(None, [(more or {}).get(trial.key)]))
        wanted = todo_union(asked_for) if len(asked_for) > 1 else asked_for[0]
        job = Job(trial, wanted, wanted, means=means)
        _count(plan, trial, wanted, pieces_of(job, fold))
        _add(plan, job, by_trial.get(trial.key, []), fold)
    if is_ordered:
        plan.jobs[:] = longest_first(plan.jobs)
    return plan


def pieces_of(job: Job, fold: Fold) -> list[Job]:
    """Cut a job into the pieces that a space asks for; itself where there is nothing to cut."""
    todos = cut(job.todo, fold)
    if len(todos) == 1:
        return [job]
    starts = starts_of(job.trial, todos, job.means.lane_width)
    pieces = [
        replace(job, todo=todo, piece=_piece_name(todo), is_first=number == 0, start=start)
        for number, (todo, start) in enumerate(zip(todos, starts, strict=True))
    ]
    return [replace(pieces[0], shared_steps=tuple(sorted(set(starts) - {0}))), *pieces[1:]]


def _piece_name(todo: Todo) -> str:
    return f"fork{todo.fork_steps[0]}-{digest(covers_of(todo))[:8]}"


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Sort by cost; the first piece of a trial stands for all of it, for the others may wait for it."""
    costs = {job.name: job_cost(job) for job in jobs}
    of_trial: dict[str, float] = {}
    for job in jobs:
        of_trial[job.trial.key] = of_trial.get(job.trial.key, 0.0) + costs[job.name]
    return sorted(jobs, key=lambda job: -(of_trial[job.trial.key] if job.is_first else costs[job.name]))


def _count(plan: Plan, trial: Trial, wanted: Todo, pieces: list[Job]) -> None:
    means = pieces[0].means
    children = [child for child in wanted.measure_steps if child.perturbation != NONE]
    steps, points = trial.setting.num_steps, trial.protocol.path_points
    plan.num_trials += 1
    plan.num_children += len(children)
    all_steps = total_lane_steps(trial, wanted, lane_width=means.lane_width)
    beside = all_steps - lane_steps(trial.setting, wanted, lane_width=means.lane_width)
    plan.num_pieces += len(pieces)
    plan.lane_steps += sum(piece.lane_steps for piece in pieces)
    plan.apart_lane_steps += sum(replace(piece, start=0).lane_steps for piece in pieces)
    plan.whole_lane_steps += all_steps
    plan.pair_lane_steps += 2 * steps * len(children) + beside
    compared = sum(len(measured) for measured in wanted.measure_steps.values())
    plan.num_rows += compared * (1 + points) + len(children) * steps.bit_length() + steps.bit_length() + 8
    taken_of = {(kind, SENTINEL, step) for kind, steps in wanted.kernel_steps.items() for step in steps}
    taken_of |= {(key.kernel, key.child, step) for key, steps in wanted.sketch_steps.items() for step in steps}
    plan.num_kernels += len(taken_of)
    plan.num_sketch_bytes += sum(4 * key.size * len(taken) for key, taken in wanted.sketch_steps.items())
    plan.num_rows += sum(map(len, wanted.sketch_steps.values()))
    plan.num_rows += sum(len(taken) * (len(taken) + 1) for taken in wanted.kernel_steps.values())
    plan.num_growths += len(wanted.growth)
    plan.num_switches += len(wanted.switch_steps - {steps})
    plan.num_rows += len(wanted.growth) + len(wanted.switch_steps)


def _add(plan: Plan, job: Job, commits: list[Commit], fold: Fold) -> None:
    """Count what is there of a trial; what isn't becomes a job."""
    wanted = job.todo
    done = [todo_of(commit.covers) for commit in commits if commit.status != "failed"]
    failed = [todo_of(commit.covers) for commit in commits if commit.status == "failed"]
    present = todo_union(done)
    missing = _minus(wanted, done + failed) if commits or wanted == NOTHING else wanted
    if missing is None:
        plan.num_failed += bool(failed)
        plan.num_done += not failed
        return
    known = next((str(c.trial["reference_digest"]) for c in commits if c.status != "failed"), "")
    generation = max((commit.generation for commit in commits), default=0)
    whole = todo_union([present, wanted]) if done else wanted
    job = replace(job, todo=missing, whole=whole, reference_digest=known, generation=generation)
    pieces = pieces_of(job, fold)
    plan.jobs += pieces
    plan.todo_lane_steps += sum(piece.lane_steps for piece in pieces)


def is_covered(todo: Todo, commits: Iterable[Commit]) -> bool:
    """Tell whether the live ones among a trial's commits cover all of a todo."""
    done = [todo_of(commit.covers) for commit in live_commits(commits) if commit.status != "failed"]
    return _minus(todo, done) is None


def todo_union(todos: Iterable[Todo]) -> Todo:
    """All that any of some todos wants."""
    steps: Steps = {}
    divergence: set[Child] = set()
    kernels: dict[str, set[int]] = {}
    has_trajectory, growth, switches = False, set[tuple[int, int]](), set[int]()
    sketches: dict[Sketched, set[int]] = {}
    for todo in todos:
        for key, taken in todo.sketch_steps.items():
            sketches.setdefault(key, set()).update(taken)
        for kind, taken in todo.kernel_steps.items():
            kernels.setdefault(kind, set()).update(taken)
        for child, measured in todo.measure_steps.items():
            steps.setdefault(child, set()).update(measured)
        divergence |= todo.divergence
        growth |= todo.growth
        switches |= todo.switch_steps
        has_trajectory |= todo.is_trajectory_wanted
    return Todo(
        {child: tuple(sorted(s)) for child, s in steps.items()},
        frozenset(divergence),
        has_trajectory,
        {kind: tuple(sorted(taken)) for kind, taken in kernels.items()},
        frozenset(growth),
        frozenset(switches),
        {key: tuple(sorted(taken)) for key, taken in sketches.items()},
    )


def _minus(wanted: Todo, parts: list[Todo]) -> Todo | None:
    """What of a todo no part covers; None if nothing."""
    there = todo_union(parts)
    steps = {
        child: left
        for child, measured in wanted.measure_steps.items()
        if (left := tuple(step for step in measured if step not in there.measure_steps.get(child, ())))
    }
    needs_trajectory = wanted.is_trajectory_wanted and not there.is_trajectory_wanted
    divergence = wanted.divergence - there.divergence
    kernels = {
        kind: tuple(sorted({*taken, *there.kernel_steps.get(kind, ())}))
        for kind, taken in wanted.kernel_steps.items()
        if not set(taken) <= set(there.kernel_steps.get(kind, ()))
    }
    sketches = {
        key: left
        for key, taken in wanted.sketch_steps.items()
        if (left := tuple(step for step in taken if step not in there.sketch_steps.get(key, ())))
    }
    growth, switches = wanted.growth - there.growth, wanted.switch_steps - there.switch_steps
    missing = Todo(steps, divergence, needs_trajectory, kernels, growth, switches, sketches)
    return None if missing == NOTHING else missing


def _sketches_json(todo: Todo) -> list[list[Any]]:
    sketched = sorted(todo.sketch_steps.items())
    return [[key.kernel, key.size, _child_json(key.child), sorted(taken)] for key, taken in sketched]


def _child_json(child: Child) -> list[Any]:
    return [child.fork_step, child.perturbation, child.magnitude, child.direction]


def job_cost(job: Job) -> float:
    """A guess at relative time, for the order of jobs: lane-steps × floating-point operations of one."""
    return job.lane_steps * step_flops(job.trial.setting)
