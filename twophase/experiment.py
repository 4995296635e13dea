"""One trial: a reference, its children and its controls, trained together and compared -> rows.

The batch of lanes grows: lane 0 is the reference, then sentinels, then children in order of their fork. Controls
follow other minibatches and train in a batch of their own, step by step beside the first.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from twophase import chaos, lanes
from twophase.comparison import Row, compare, distances
from twophase.config import Trial
from twophase.data import Dataset
from twophase.evaluation import Evaluator
from twophase.lanes import LaneState
from twophase.perturb import NO_DOSE, NONE, ORDER, Dose, perturb
from twophase.probe import KernelProbe
from twophase.training import (
    DTYPES,
    LaneTrainer,
    MinibatchOrder,
    control_order,
    initial_state,
    learning_rate,
    reference_order,
)


@dataclass(frozen=True, order=True)
class Child:
    """One copy of the reference: what is done to it, and when."""

    fork_step: int
    perturbation: str
    magnitude: float = 0.0
    direction: int = 0


SENTINEL = Child(0, NONE)


@dataclass(frozen=True)
class Todo:
    """What of a trial is to be computed.

    Attributes:
        measure_steps: Steps at which each child is compared; the sentinel is listed like a child.
        divergence: Children whose distance is to be followed.
        is_trajectory_wanted: Whether the reference's learning curve is.
        kernel_steps: Kind of kernel -> steps at which the reference's is taken.
    """

    measure_steps: Mapping[Child, tuple[int, ...]]
    divergence: frozenset[Child] = frozenset()
    is_trajectory_wanted: bool = True
    kernel_steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a trial found.

    Attributes:
        rows: Table -> rows without keys.
        kernel_rows: Kind of kernel -> table -> rows without keys.
        kernel_seconds: Share of the wall time that kernels took.
        summary: What the `trials` row is made of.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    kernel_rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    kernel_seconds: float = 0.0
    summary: Row = field(default_factory=dict)


def trajectory_steps(num_steps: int) -> list[int]:
    """Steps of the learning curve: 0, powers of two, and eighths of the run."""
    doubling = {2**i for i in range(num_steps.bit_length()) if 2**i < num_steps}
    return sorted({0, *doubling, *(round(i * num_steps / 8) for i in range(1, 9))})


def divergence_steps(fork_step: int, num_steps: int) -> list[int]:
    """Steps at which a child's distance is followed: 1, 2, 4, … after the fork, and the end."""
    lag = range(num_steps.bit_length())
    return sorted({fork_step + 2**i for i in lag if fork_step + 2**i < num_steps} | {num_steps})


def fork_child(state: LaneState, child: Child, seed: int) -> tuple[LaneState, Dose]:
    """Make a child, a sentinel or a control from the reference: the one way in which lanes come about.

    Args:
        state: A batch whose lane 0 is the reference, at the child's fork step.
        child: What to make.
        seed: Replicate number.

    Returns:
        State of one lane, and the dose it got.
    """
    copy = lanes.fork(state)
    if child.perturbation in (NONE, ORDER):
        return copy, NO_DOSE
    return perturb(
        copy, child.perturbation, child.magnitude, seed=seed, fork_step=child.fork_step, direction=child.direction
    )


class Experiment:
    """Runs one trial; `advance` may be followed step by step, `outcome` holds what was found."""

    def __init__(self, trial: Trial, todo: Todo, dataset: Dataset, device: torch.device | None = None) -> None:
        """Place the data and build the two batches.

        Args:
            trial: Setting, seed and protocol.
            todo: What to compute.
            dataset: The setting's data set, anywhere.
            device: Where to train; the CPU by default.
        """
        setting = trial.setting
        data = dataset.to(device or torch.device("cpu"), DTYPES[setting.precision])
        start = initial_state(setting, dataset, trial.seed).map(lambda tensor: tensor.to(data.train_inputs.device))
        self._trial, self._todo, self._seed = trial, todo, trial.seed
        self._evaluator = Evaluator(trial, data)
        self._probe = KernelProbe(trial, data, self._evaluator, todo.kernel_steps)
        self._main = LaneTrainer(setting, data, _repeat(start, lanes.MIN_LANES), seed=trial.seed)
        self._controls = LaneTrainer(setting, data, _repeat(start, lanes.MIN_LANES), seed=trial.seed)
        self._order = reference_order(setting, trial.seed)
        self._children: list[Child] = []
        self._control_children: list[Child] = []
        self._control_orders: list[MinibatchOrder] = []
        self._doses: dict[Child, Dose] = {}
        self._is_sentinel_exact = True
        self._sentinel_distance = 0.0
        self._lane_width = lanes.MIN_LANES
        self._rows: dict[str, list[Row]] = {name: [] for name in ("trajectory", "chaos", "divergence", "path")}

    @property
    def lane_steps(self) -> int:
        """Lane-steps done so far."""
        return self._main.lane_steps + self._controls.lane_steps

    def run(self) -> Outcome:
        """Run to the end."""
        for _ in self.advance():
            pass
        return self.outcome

    def advance(self, stretch: int = 50) -> Iterator[int]:
        """Run, handing control back every so often.

        Args:
            stretch: Most steps between two yields.

        Yields:
            Lane-steps done so far.
        """
        began = time.perf_counter()
        for step in self._events():
            while self._main.step < step:
                self._train(min(step, self._main.step + stretch))
                yield self.lane_steps
            self._visit(step)
        self.outcome = self._conclude(time.perf_counter() - began)

    def _events(self) -> list[int]:
        setting, todo = self._trial.setting, self._todo
        steps = {0, setting.num_steps} | self._probe.steps
        for child, measured in todo.measure_steps.items():
            steps |= {child.fork_step, *measured}
        for child in todo.divergence:
            steps |= set(divergence_steps(child.fork_step, setting.num_steps))
        if todo.is_trajectory_wanted:
            steps |= set(trajectory_steps(setting.num_steps))
        return sorted(steps)

    def _train(self, until: int) -> None:
        self._main.advance(until, [self._order])
        if self._control_children:
            self._controls.advance(until, self._control_orders)
        else:
            self._controls.step = until

    def _visit(self, step: int) -> None:
        state = self._main.state
        measured = [child for child, steps in self._todo.measure_steps.items() if step in steps]
        due = [child for child in self._todo.divergence if step in self._divergence_steps(child)]
        forking = [c for c in self._todo.measure_steps if c.fork_step == step and c.perturbation != NONE]
        if measured or forking or step == self._trial.setting.num_steps:
            self._check_sentinels(state)
        if self._todo.is_trajectory_wanted and step in trajectory_steps(self._trial.setting.num_steps):
            self._record_trajectory(state, step)
        self._probe.visit(state, step)
        if measured or due:
            together, index = self._together(state)
            self._record_divergence(together, index, due, step)
            self._record_chaos(together, index, measured, step)
        if forking:
            self._fork(state, sorted(forking), step)

    def _divergence_steps(self, child: Child) -> list[int]:
        return divergence_steps(child.fork_step, self._trial.setting.num_steps)

    def _check_sentinels(self, state: LaneState) -> None:
        """Compare every sentinel with the reference, bit by bit, since its last fork."""
        num_sentinels = state.num_lanes - 1 - len(self._children)
        for lane in range(1, 1 + num_sentinels):
            self._is_sentinel_exact &= lanes.is_exact_copy(state, lane)
            apart = float(chaos.distance(lanes.take(state, [0, lane]))[1])
            # NaN - NaN is NaN, though the bits agree: a diverged reference is no broken sentinel.
            self._sentinel_distance = max(self._sentinel_distance, 0.0 if math.isnan(apart) else apart)

    def _together(self, state: LaneState) -> tuple[LaneState, dict[Child, int]]:
        """Put both batches into one: lane 0 the reference, lane 1 a sentinel, then children, then controls."""
        first_child = state.num_lanes - len(self._children)
        parts = [lanes.take(state, [0, 1, *range(first_child, state.num_lanes)])]
        if self._control_children:
            parts.append(lanes.take(self._controls.state, range(len(self._control_children))))
        order = [SENTINEL, *self._children, *self._control_children]
        return lanes.stack(parts), {child: lane + 1 for lane, child in enumerate(order)}

    def _fork(self, state: LaneState, forking: list[Child], step: int) -> None:
        """Fork children, controls and, anew, the sentinels, all by `fork_child`."""
        made = {child: fork_child(state, child, self._seed) for child in forking}
        self._doses |= {child: dose for child, (_, dose) in made.items()}
        perturbed = [child for child in forking if child.perturbation != ORDER]
        first_child = state.num_lanes - len(self._children)
        kept = [lanes.take(state, range(first_child, state.num_lanes))] if self._children else []
        self._children += perturbed
        num_sentinels = max(1, lanes.MIN_LANES - 1 - len(self._children))
        sentinel = replace(SENTINEL, fork_step=step)
        sentinels = [fork_child(state, sentinel, self._seed)[0] for _ in range(num_sentinels)]
        self._main.load(lanes.stack([lanes.fork(state), *sentinels, *kept, *(made[c][0] for c in perturbed)]))
        self._lane_width = max(self._lane_width, self._main.num_lanes)
        self._fork_controls({c: made[c][0] for c in forking if c.perturbation == ORDER})

    def _fork_controls(self, forked: Mapping[Child, LaneState]) -> None:
        """Append controls to their batch, padded with copies of its first lane."""
        if not forked:
            return
        old = len(self._control_children)
        present = [lanes.take(self._controls.state, range(old))] if old else []
        state = lanes.stack([*present, *forked.values()])
        self._control_children += forked
        setting, total = self._trial.setting, len(self._control_children)
        orders = [control_order(setting, self._seed, c.fork_step, c.direction) for c in self._control_children]
        padding = max(0, lanes.MIN_LANES - total)
        self._controls.load(lanes.take(state, [*range(total), *[0] * padding]))
        self._control_orders = [*orders, *orders[:1] * padding]

    def _record_trajectory(self, state: LaneState, step: int) -> None:
        reference = lanes.fork(state)
        scores = self._evaluator.scores(reference, recompute=False)
        self._rows["trajectory"].append(
            {
                "step": step,
                "train_loss": float(scores.train_loss[0]),
                "test_loss": float(scores.test_loss[0]),
                "test_accuracy": 1.0 - float(scores.test_error[0]),
                "param_norm": float(chaos.parameter_norm(reference)[0]),
                "learning_rate": learning_rate(self._trial.setting, step),
                "sharpness": float("nan"),
            }
        )

    def _record_divergence(self, state: LaneState, index: Mapping[Child, int], due: list[Child], step: int) -> None:
        if not due:
            return
        apart = chaos.distance(state)
        self._rows["divergence"] += [
            {**_child_keys(child), "step": step, "distance": float(apart[index[child]])} for child in due
        ]

    def _record_chaos(self, state: LaneState, index: Mapping[Child, int], measured: list[Child], step: int) -> None:
        """Compare children with the reference, and evaluate the paths between them."""
        if not measured:
            return
        few = lanes.take(state, [0, *(index[child] for child in measured)])
        doses = [self._doses.get(child, NO_DOSE) for child in measured]
        rows, paths = compare(few, self._evaluator, doses, self._trial.protocol.path_points)
        size = float(chaos.parameter_norm(few)[0])
        for child, row, path in zip(measured, rows, paths, strict=True):
            keys = {**_child_keys(child), "measure_step": step}
            # A sentinel's distance is the greatest of any stretch, also of one before its last fork.
            moved = distances(self._sentinel_distance, size) if child == SENTINEL else {}
            self._rows["chaos"].append({**keys, **row, **moved})
            self._rows["path"] += [{**keys, **point} for point in path]

    def _conclude(self, wall_seconds: float) -> Outcome:
        final = lanes.fork(self._main.state)
        digest = lanes.state_digest(final)
        scores = self._evaluator.scores(final, recompute=False)
        has_loss = bool((scores.train_loss[0] + scores.test_loss[0]).isfinite())
        has_diverged = not (bool(lanes.is_finite(final)[0]) and has_loss)
        for row in self._rows["chaos"]:
            row["reference_digest"] = digest
        summary = {
            "status": "diverged" if has_diverged else "ok",
            "is_sentinel_exact": self._is_sentinel_exact,
            "wall_seconds": wall_seconds,
            "lane_steps": self.lane_steps,
            "lane_width": self._lane_width,
            "test_loss": float(scores.test_loss[0]),
            "test_accuracy": 1.0 - float(scores.test_error[0]),
            "reference_digest": digest,
        }
        kernel_rows = {kind: self._probe.rows(kind) for kind in self._todo.kernel_steps}
        return Outcome(self._rows, kernel_rows, self._probe.seconds, summary)


def _repeat(state: LaneState, copies: int) -> LaneState:
    return lanes.take(state, [0] * copies)


def _child_keys(child: Child) -> Row:
    return {
        "perturbation": child.perturbation,
        "fork_step": child.fork_step,
        "magnitude": child.magnitude,
        "direction": child.direction,
    }
