"""What of a trial is computed: children, when they are measured, how they are dealt out to batches, what that costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

from twophase.config import Setting, Trial
from twophase.lanes import MIN_LANES
from twophase.perturb import NONE, ORDER

T = TypeVar("T")

TANGENT_LANES = 3
"""Lanes that a tangent counts as."""

LINEARISED_LANES = 2
"""Lanes that a linearised run counts as: a pass of dual numbers beside an ordinary forward and backward pass."""

MIN_WIDTH = MIN_LANES
"""Least width of a group: the reference, a sentinel, and two children."""


@dataclass(frozen=True, order=True)
class Child:
    """One copy of the reference: what is done to it, and when."""

    fork_step: int
    perturbation: str
    magnitude: float = 0.0
    direction: int = 0


SENTINEL = Child(0, NONE)


def child_keys(child: Child) -> dict[str, Any]:
    """Columns of a table that say which child."""
    return asdict(child)


@dataclass(frozen=True, order=True)
class Sketched:
    """A kernel that is sketched along a run.

    Attributes:
        kernel: Its kind.
        size: Bins of the sketch.
        child: Whose kernel; the sentinel stands for the reference.
    """

    kernel: str
    size: int
    child: Child = SENTINEL


@dataclass(frozen=True)
class Todo:
    """What of a trial is to be computed.

    Attributes:
        measure_steps: Steps at which each child is compared; the sentinel is listed like a child.
        divergence: Children whose distance is to be followed.
        is_trajectory_wanted: Whether the reference's learning curve is.
        kernel_steps: Kind of kernel -> steps at which the reference's is taken.
        growth: (fork step, direction) of each window over which growth is followed.
        switch_steps: Steps from which the reference is trained on linearised; the end stands for itself unswitched.
        sketch_steps: Kernels that are sketched -> steps at which; a child may be trained for them alone.
    """

    measure_steps: Mapping[Child, tuple[int, ...]]
    divergence: frozenset[Child] = frozenset()
    is_trajectory_wanted: bool = True
    kernel_steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    growth: frozenset[tuple[int, int]] = frozenset()
    switch_steps: frozenset[int] = frozenset()
    sketch_steps: Mapping[Sketched, tuple[int, ...]] = field(default_factory=dict)

    @property
    def trained(self) -> list[Child]:
        """All children and controls, in order of their fork."""
        wanted = {*self.measure_steps, *(key.child for key in self.sketch_steps)}
        return sorted(child for child in wanted if child.perturbation != NONE)

    @property
    def perturbed(self) -> list[Child]:
        """Children that train on the reference's minibatches, in order of their fork."""
        return [child for child in self.trained if child.perturbation != ORDER]

    @property
    def controls(self) -> list[Child]:
        """Children that follow minibatches of their own, in order of their fork."""
        return [child for child in self.trained if child.perturbation == ORDER]

    @property
    def fork_steps(self) -> list[int]:
        """Steps at which children or controls are forked, ascending."""
        return sorted({child.fork_step for child in self.trained})

    def sketched_at(self, step: int) -> list[Child]:
        """Children whose kernels are sketched at a step, the reference not among them."""
        due = {key.child for key, steps in self.sketch_steps.items() if step in steps}
        return sorted(due - {SENTINEL})

    def first_step(self, num_steps: int) -> int:
        """The earliest step of the reference that is needed."""
        probed = [step for taken in (*self.kernel_steps.values(), *self.sketch_steps.values()) for step in taken]
        grown = [step for step, _ in self.growth]
        return (
            0 if self.is_trajectory_wanted else min([num_steps, *self.fork_steps, *probed, *grown, *self.switch_steps])
        )

    @property
    def growth_directions(self) -> dict[int, list[int]]:
        """Fork step -> directions whose growth is followed from there, ascending."""
        return {step: sorted(d for s, d in self.growth if s == step) for step in sorted({s for s, _ in self.growth})}


def trajectory_steps(num_steps: int) -> list[int]:
    """Steps of the learning curve: 0, powers of two, and eighths of the run."""
    doubling = {2**i for i in range(num_steps.bit_length()) if 2**i < num_steps}
    return sorted({0, *doubling, *(round(i * num_steps / 8) for i in range(1, 9))})


def divergence_steps(fork_step: int, num_steps: int) -> list[int]:
    """Steps at which a child's distance is followed: 1, 2, 4, … after the fork, and the end."""
    lag = range(num_steps.bit_length())
    return sorted({fork_step + 2**i for i in lag if fork_step + 2**i < num_steps} | {num_steps})


def event_steps(todo: Todo, num_steps: int) -> set[int]:
    """Steps at which something of a todo happens."""
    steps = {num_steps, *(step for taken in todo.kernel_steps.values() for step in taken)}
    steps |= {*(step for step, _ in todo.growth), *todo.switch_steps}
    steps |= {*todo.fork_steps, *(step for taken in todo.sketch_steps.values() for step in taken)}
    for measured in todo.measure_steps.values():
        steps |= set(measured)
    for child in todo.divergence:
        steps |= set(divergence_steps(child.fork_step, num_steps))
    return steps | set(trajectory_steps(num_steps)) if todo.is_trajectory_wanted else steps


def is_width_fixed(setting: Setting) -> bool:
    """Tell whether lane 0 may depend on how many lanes train with it, so that every batch must have the same number.

    On a CPU it doesn't from four lanes on, which the tests hold; of a GPU nothing is assumed.
    """
    return setting.device != "cpu"


def least_lanes(setting: Setting, lane_width: int) -> int:
    """Fewest lanes of a batch that holds a reference."""
    if setting.engine == "loop":
        return 2
    return max(MIN_LANES, lane_width) if is_width_fixed(setting) else MIN_LANES


def split(todo: Todo, lane_width: int) -> list[Todo]:
    """Deal children out to groups of at most `lane_width` lanes, a reference and a sentinel in each.

    Args:
        todo: What is wanted.
        lane_width: Most lanes of a group; 0 for no bound.

    Returns:
        One todo per group, in order of fork, so that later groups begin later. The first does what is done once:
        controls, learning curve, kernels, the sentinel's row.
    """
    perturbed = todo.perturbed
    groups = chunks(perturbed, lane_width - 2 if lane_width else len(perturbed)) or [[]]
    once = {*todo.controls, SENTINEL}
    dealt = []
    for number, group in enumerate(groups):
        mine = {*group, *once} if number == 0 else {*group}
        measured = {child: steps for child, steps in todo.measure_steps.items() if child in mine}
        sketched = {key: steps for key, steps in todo.sketch_steps.items() if key.child in mine}
        part = todo if number == 0 else Todo({}, is_trajectory_wanted=False)
        dealt.append(replace(part, measure_steps=measured, divergence=todo.divergence & mine, sketch_steps=sketched))
    return dealt


def chunks(children: Sequence[T], most: int) -> list[list[T]]:
    """Cut a list into as few runs of at most `most` as will do, of lengths that differ by one at most."""
    count = -(-len(children) // most) if children else 0
    bounds = [round(i * len(children) / count) for i in range(count + 1)] if count else []
    return [list(children[start:stop]) for start, stop in pairwise(bounds)]


def total_lane_steps(trial: Trial, todo: Todo, *, lane_width: int = 0, start: int = 0) -> int:
    """Lane-steps that a todo trains: those of `lane_steps`, `growth_lane_steps` and `switch_lane_steps`."""
    window = trial.protocol.growth_window
    followed = sum(growth_lane_steps(len(found), window) for found in todo.growth_directions.values())
    switched = switch_lane_steps(trial.setting, todo, lane_width=lane_width)
    return lane_steps(trial.setting, todo, lane_width=lane_width, start=start) + followed + switched


def growth_lane_steps(num_directions: int, window: int) -> int:
    """Lane-steps of following growth in several directions from one fork step.

    A reference and three twins per direction; and a tangent per direction, which counts as three lanes: a gradient and
    its derivative take about three times as long as a gradient. Neither batch has fewer than four lanes. That all is
    in float64, which on a CPU takes about twice as long, isn't counted.
    """
    twins = max(MIN_LANES, 1 + 3 * num_directions)
    return window * (twins + TANGENT_LANES * max(MIN_LANES, num_directions))


def switch_batches(setting: Setting, todo: Todo, *, lane_width: int) -> list[list[int]]:
    """Switch steps below the end, dealt out to batches of linearised runs."""
    steps = sorted(step for step in todo.switch_steps if step < setting.num_steps)
    return chunks(steps, 1 if least_linearised(setting) == 1 else lane_width or len(steps))


def least_linearised(setting: Setting) -> int:
    """Fewest lanes of a batch of linearised runs; 1 where they train one by one, lest a row depend on the others."""
    return 1 if setting.engine == "loop" or is_width_fixed(setting) else MIN_LANES


def switch_lane_steps(setting: Setting, todo: Todo, *, lane_width: int = 0) -> int:
    """Lane-steps of linearised runs, each from its switch to the end, padding included; see `LINEARISED_LANES`."""
    least = least_linearised(setting)
    return LINEARISED_LANES * sum(
        _batch_steps(steps, min(steps), setting.num_steps, extra=0, least=least)
        for steps in switch_batches(setting, todo, lane_width=lane_width)
    )


def lane_steps(setting: Setting, todo: Todo, *, lane_width: int = 0, start: int = 0) -> int:
    """Lane-steps of reference, children and controls, exactly as the experiment counts them.

    Args:
        setting: What is trained.
        todo: What is wanted.
        lane_width: Most lanes of a group; 0 for no bound.
        start: The step of the snapshot that the reference goes on from.
    """
    least, end, total = least_lanes(setting, lane_width), setting.num_steps, 0
    for number, part in enumerate(split(todo, lane_width)):
        forks = [child.fork_step for child in part.perturbed]
        total += _batch_steps(forks, min(forks) if number else start, end, extra=2, least=least)
    for chunk in chunks(todo.controls, lane_width or len(todo.controls)):
        forks = [child.fork_step for child in chunk]
        total += _batch_steps(forks, min(forks), end, extra=0, least=1 if setting.engine == "loop" else least)
    return total


def _batch_steps(forks: Iterable[int], start: int, end: int, *, extra: int, least: int) -> int:
    """Lane-steps of one growing batch."""
    forks = sorted(forks)
    bounds = sorted({start, end, *forks})
    return sum(
        (stop - since) * max(least, extra + sum(fork <= since for fork in forks)) for since, stop in pairwise(bounds)
    )
