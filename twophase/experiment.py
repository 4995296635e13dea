"""One trial: a reference, its children and its controls, trained together and compared -> rows.

Batches of lanes grow: lane 0 is the reference, then sentinels, then children in order of their fork. Many children are
dealt out to groups, one batch after the other, each with its own reference and sentinel. Controls follow other
minibatches, in batches of their own, step by step beside the first group: as one with it where that changes no bit.
"""

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import partial

import torch

from twophase import chaos, lanes
from twophase.alignment import align, symmetry_of
from twophase.batch import ChildBatch, ControlBatch, Joint
from twophase.checkpoint import Checkpoint
from twophase.children import (
    SENTINEL,
    Child,
    Todo,
    child_keys,
    chunks,
    divergence_steps,
    event_steps,
    least_lanes,
    split,
    total_lane_steps,
    trajectory_steps,
)
from twophase.comparison import Align, Row, compare, distances
from twophase.config import Trial
from twophase.data import Dataset
from twophase.evaluation import Evaluator
from twophase.growth_probe import GrowthProbe
from twophase.lanes import LaneState
from twophase.perturb import NO_DOSE, NONE, ORDER, Dose, perturb
from twophase.probe import KernelProbe
from twophase.sharpness import SharpnessProbe, stability_bound
from twophase.snapshot import Snapshots
from twophase.subject import Subject
from twophase.switch_probe import SwitchProbe
from twophase.training import (
    DTYPES,
    TRAINERS,
    MinibatchOrder,
    Trainer,
    build_model,
    control_order,
    initial_state,
    is_order_free,
    learning_rate,
    reference_order,
)

__all__ = ["SENTINEL", "Child", "Experiment", "Outcome", "Todo", "fork_child"]


@dataclass
class Outcome:
    """What a trial found.

    Attributes:
        rows: Table -> rows without keys.
        kernel_rows: Kind of kernel -> table -> rows without keys.
        kernel_seconds: Share of the wall time that they took.
        sketch_rows: Rows of `sketch` without keys.
        sketch_seconds: Share of the wall time of kernels that were sketched and nothing else.
        growth_rows: Rows of `growth` without keys.
        growth_seconds: Share of the wall time that they took.
        growth_lane_steps: Their share of the lane-steps.
        switch_rows: Rows of `switch` without keys.
        switch_seconds: Share of the wall time that they took.
        switch_lane_steps: Their share of the lane-steps.
        summary: What the `trials` row is made of.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    kernel_rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    kernel_seconds: float = 0.0
    sketch_rows: list[Row] = field(default_factory=list)
    sketch_seconds: float = 0.0
    growth_rows: list[Row] = field(default_factory=list)
    growth_seconds: float = 0.0
    growth_lane_steps: int = 0
    switch_rows: list[Row] = field(default_factory=list)
    switch_seconds: float = 0.0
    switch_lane_steps: int = 0
    summary: Row = field(default_factory=dict)


def fork_child(state: LaneState, child: Child, subject: Subject) -> tuple[LaneState, Dose]:
    """Make a child, a sentinel or a control from the reference: the one way in which lanes come about.

    Args:
        state: A batch whose lane 0 is the reference, at the child's fork step.
        child: What to make.
        subject: The trial.

    Returns:
        State of one lane, and the dose it got.
    """
    copy = lanes.fork(state)
    if child.perturbation in (NONE, ORDER):
        return copy, NO_DOSE
    return perturb(
        copy, child.perturbation, child.magnitude, subject, fork_step=child.fork_step, direction=child.direction
    )


class Experiment:
    """Runs one trial; `advance` may be followed step by step, `outcome` holds what was found."""

    def __init__(
        self,
        trial: Trial,
        todo: Todo,
        dataset: Dataset,
        device: torch.device | None = None,
        *,
        lane_width: int = 0,
        snapshots: Snapshots | None = None,
        shared_steps: Collection[int] = (),
    ) -> None:
        """Place the data and find out where to begin.

        Args:
            trial: Setting, seed and protocol.
            todo: What to compute.
            dataset: The setting's data set, anywhere.
            device: Where to train; the CPU by default.
            lane_width: Most lanes of a batch; 0 for no bound.
            snapshots: Earlier states of the reference, to go on from and to add to.
            shared_steps: Steps, beside those of its forks, at which the reference is handed to them.
        """
        setting = trial.setting
        data = dataset.to(device or torch.device("cpu"), DTYPES[setting.precision])
        self._trial, self._todo, self._seed, self._data = trial, todo, trial.seed, data
        self._snapshots, self._subject = snapshots, Subject(setting, data, trial.seed)
        self._snapshot_steps = {*todo.fork_steps, *shared_steps} if snapshots else set[int]()
        self._evaluator = Evaluator(trial, data)
        self._probe = KernelProbe(trial, data, self._evaluator, todo.kernel_steps, todo.sketch_steps)
        self._growth = GrowthProbe(trial, data, todo.growth_directions)
        self._switch = SwitchProbe(trial, data, self._evaluator, todo, lane_width)
        self._sharpness = SharpnessProbe(trial, data) if trial.protocol.sharpness else None
        self._align = self._aligner(dataset) if trial.protocol.alignment else None
        self._parts, self._part = split(todo, lane_width), todo
        self._least, self._capacity = least_lanes(setting, lane_width), lane_width or len(todo.controls)
        self._least_controls = 1 if setting.engine == "loop" else self._least
        self._joint = Joint(self._trainer, (lane_width or sys.maxsize) if is_order_free(setting, data) else 0)
        self._order = reference_order(setting, trial.seed)
        self._start, self._reference = self._begin(dataset)
        self._began, self._seconds_before = 0.0, 0.0
        self.total_lane_steps = total_lane_steps(trial, todo, lane_width=lane_width, start=self._start)
        self._running: ChildBatch | None = None
        self._controls: list[ControlBatch] = []
        # References from which later groups begin.
        self._kept_steps = {part.fork_steps[0] for part in self._parts[1:]}
        self._kept: dict[int, LaneState] = {}
        self._doses: dict[Child, Dose] = {}
        self._digests: list[str] = []
        self._is_sentinel_exact, self._sentinel_distance = True, 0.0
        self._sizes: dict[int, float] = {}
        self._lane_width, self._finished = 0, 0
        self._rows: dict[str, list[Row]] = {name: [] for name in ("trajectory", "chaos", "divergence", "path")}

    def _aligner(self, dataset: Dataset) -> Align:
        setting = self._trial.setting
        symmetry = symmetry_of(setting, build_model(setting, dataset, seed=0))
        return partial(align, symmetry=symmetry, seed=self._seed)

    def _begin(self, dataset: Dataset) -> tuple[int, LaneState]:
        """The step to begin at and the reference there: the start, or the latest snapshot before all that is wanted."""
        start = initial_state(self._trial.setting, dataset, self._seed)
        need = self._todo.first_step(self._trial.setting.num_steps)
        found = self._snapshots.nearest(need, start) if self._snapshots and need else None
        step, state = found or (0, start)
        return step, state.map(lambda tensor: tensor.to(self._data.train_inputs.device))

    @property
    def lane_steps(self) -> int:
        """Lane-steps done so far."""
        apart = self._growth.lane_steps + self._switch.lane_steps
        return self._finished + apart + sum(trainer.lane_steps for trainer in self._trainers())

    @property
    def _batch(self) -> ChildBatch:
        """The group that is training."""
        if self._running is None:
            raise RuntimeError("no group is training")
        return self._running

    def _trainers(self) -> list[Trainer]:
        mine = [self._running.trainer] if self._running else []
        return [*mine, *(batch.trainer for batch in self._controls)]

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
        self._began = time.perf_counter()
        for number in range(len(self._digests), len(self._parts)):
            if self._running is None:
                self._open(number)
            for step in self._events(number):
                while self._batch.trainer.step < step:
                    self._train(min(step, self._batch.trainer.step + stretch))
                    yield self.lane_steps
                self._visit(step)
            self._close()
        self.outcome = self._conclude()

    @property
    def seconds(self) -> float:
        """Wall time so far, also before a resumption."""
        return self._seconds_before + time.perf_counter() - self._began

    def checkpoint(self) -> Checkpoint:
        """Write down where the run stands; to be called between two steps of `advance`."""
        batch = self._batch
        states = {f"kept {step}": state for step, state in self._kept.items()}
        states |= {f"controls {i}": controls.trainer.state for i, controls in enumerate(self._controls)}
        switch, switched = self._switch.checkpoint()
        note = {
            "step": batch.trainer.step,
            "kept": list(self._kept),
            "children": [astuple(child) for child in batch.children],
            "batch": [batch.is_sentinel_exact, batch.sentinel_distance, batch.lane_width],
            "controls": [[astuple(child) for child in controls.controls] for controls in self._controls],
            "doses": [[astuple(child), astuple(dose)] for child, dose in self._doses.items()],
            "digests": self._digests,
            "trial": [self._is_sentinel_exact, self._sentinel_distance, self._lane_width],
            "sizes": list(self._sizes.items()),
            "rows": self._rows,
            "growth": self._growth.checkpoint(),
            "switch": switch,
            "lane_steps": self.lane_steps,
            "seconds": self.seconds,
        }
        kept, tensors = self._probe.checkpoint()
        states |= {**switched, "batch": batch.trainer.state, "reference": self._reference}
        return Checkpoint({**note, "probe": kept}, states, tensors)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where a run of the same trial, todo and lane width stood; before `advance`."""
        note, device = checkpoint.note, self._data.train_inputs.device
        states = {name: state.map(lambda tensor: tensor.to(device)) for name, state in checkpoint.states.items()}
        self._digests, self._rows = note["digests"], note["rows"]
        self._reference = states["reference"]
        self._kept = {step: states[f"kept {step}"] for step in note["kept"]}
        self._doses = {Child(*child): Dose(*dose) for child, dose in note["doses"]}
        self._is_sentinel_exact, self._sentinel_distance, self._lane_width = note["trial"]
        self._sizes = dict(map(tuple, note["sizes"]))
        self._growth.resume(note["growth"])
        self._switch.resume(note["switch"], states, note["step"])
        self._finished = note["lane_steps"] - self._growth.lane_steps - self._switch.lane_steps
        self._seconds_before = note["seconds"]
        self._part = self._parts[len(self._digests)]
        batch = ChildBatch(self._trainer(states["batch"], note["step"]), self._order, self._least)
        batch.children = [Child(*child) for child in note["children"]]
        batch.is_sentinel_exact, batch.sentinel_distance, batch.lane_width = note["batch"]
        self._running = batch
        for i, listed in enumerate(note["controls"]):
            controls = ControlBatch(self._trainer(states[f"controls {i}"], note["step"]), self._least_controls)
            made = [Child(*control) for control in listed]
            controls.resume(made, self._orders_of(made))
            self._controls.append(controls)
        self._probe.resume(note["probe"], checkpoint.tensors)

    def _open(self, number: int) -> None:
        """Begin a group: the first at the start, the others at their first fork, with the reference as it was there."""
        self._part = self._parts[number]
        first = self._part.fork_steps[0] if number else self._start
        reference = self._kept[first] if number else self._reference
        trainer = self._trainer(_repeat(reference, self._least), first)
        self._running = ChildBatch(trainer, self._order, self._least)

    def _close(self) -> None:
        """Take from a finished group what outlives it."""
        batch = self._batch
        self._digests.append(lanes.state_digest(batch.trainer.state))
        for row in self._rows["chaos"]:
            row.setdefault("reference_digest", self._digests[-1])
        if len(self._digests) == 1:
            self._reference = lanes.fork(batch.trainer.state)
        # Rows of one trial have one reference: a group that trained another one proves nothing.
        self._is_sentinel_exact &= batch.is_sentinel_exact and self._digests[-1] == self._digests[0]
        self._sentinel_distance = max(self._sentinel_distance, batch.sentinel_distance)
        self._lane_width = max(self._lane_width, batch.lane_width)
        self._finished += sum(trainer.lane_steps for trainer in self._trainers())
        self._controls = []
        self._running = None

    def _trainer(self, state: LaneState, step: int) -> Trainer:
        setting = self._trial.setting
        return TRAINERS[setting.engine](setting, self._data, state, seed=self._seed, step=step)

    def _events(self, number: int) -> list[int]:
        steps = event_steps(self._part, self._trial.setting.num_steps)
        if number == 0:
            steps |= {self._start, *self._kept_steps, *self._snapshot_steps}
        return sorted(step for step in steps if step >= self._batch.trainer.step)

    def _train(self, until: int) -> None:
        self._joint.advance([self._batch, *self._controls], until)
        self._switch.advance(until)

    def _visit(self, step: int) -> None:
        state = self._batch.trainer.state
        measured = [child for child, steps in self._part.measure_steps.items() if step in steps]
        due = [child for child in self._part.divergence if step in self._divergence_steps(child)]
        sketched = self._part.sketched_at(step)
        forking = [child for child in self._part.trained if child.fork_step == step]
        if measured or forking or step == self._trial.setting.num_steps:
            self._batch.check_sentinels(state)
        if self._part is self._parts[0]:
            self._visit_reference(state, step)
        if measured or due or sketched:
            together, index = self._together(state)
            self._record_divergence(together, index, due, step)
            self._record_chaos(together, index, measured, step)
            for child in sketched:
                self._probe.visit(lanes.fork(together, index[child]), step, child)
        if forking:
            self._fork(state, forking, step)

    def _visit_reference(self, state: LaneState, step: int) -> None:
        """What is taken of the reference, once per trial."""
        if self._todo.is_trajectory_wanted and step in trajectory_steps(self._trial.setting.num_steps):
            self._record_trajectory(state, step)
        self._probe.visit(state, step)
        self._growth.visit(state, step)
        self._switch.visit(state, step)
        if step in self._kept_steps:
            self._kept[step] = lanes.fork(state)
        if self._snapshots and step in self._snapshot_steps:
            self._snapshots.keep(step, lanes.fork(state))

    def _divergence_steps(self, child: Child) -> list[int]:
        return divergence_steps(child.fork_step, self._trial.setting.num_steps)

    def _together(self, state: LaneState) -> tuple[LaneState, dict[Child, int]]:
        """Put all batches into one: lane 0 the reference, lane 1 a sentinel, then children, then controls."""
        parts = [self._batch.compared(state), *(batch.state for batch in self._controls)]
        controls = [control for batch in self._controls for control in batch.controls]
        order = [SENTINEL, *self._batch.children, *controls]
        return lanes.stack(parts), {child: lane + 1 for lane, child in enumerate(order)}

    def _fork(self, state: LaneState, forking: list[Child], step: int) -> None:
        """Fork children, controls and, anew, the sentinels, all by `fork_child`."""
        made = {child: fork_child(state, child, self._subject) for child in forking}
        self._doses |= {child: dose for child, (_, dose) in made.items()}
        copies = {child: copy for child, (copy, _) in made.items()}
        sentinel = replace(SENTINEL, fork_step=step)
        perturbed = {child: copy for child, copy in copies.items() if child.perturbation != ORDER}
        self._batch.grow(state, perturbed, lambda: fork_child(state, sentinel, self._subject)[0])
        self._fork_controls({child: copy for child, copy in copies.items() if child.perturbation == ORDER}, step)

    def _fork_controls(self, forked: Mapping[Child, LaneState], step: int) -> None:
        """Put controls where they belong, in the batches that `chunks` makes of all of them."""
        for chunk in chunks(self._todo.controls, self._capacity):
            mine = [control for control in chunk if control in forked]
            if not mine:
                continue
            batch = next((b for b in self._controls if b.controls[0] in chunk), None)
            if batch is None:
                batch = ControlBatch(self._trainer(forked[mine[0]], step), self._least_controls)
                self._controls.append(batch)
            batch.grow({control: forked[control] for control in mine}, self._orders_of(mine))

    def _orders_of(self, controls: list[Child]) -> list[MinibatchOrder]:
        return [control_order(self._trial.setting, self._seed, c.fork_step, c.direction) for c in controls]

    def _record_trajectory(self, state: LaneState, step: int) -> None:
        reference = lanes.fork(state)
        scores = self._evaluator.scores(reference, recompute=False)
        setting, rate = self._trial.setting, learning_rate(self._trial.setting, step)
        self._rows["trajectory"].append(
            {
                "step": step,
                "train_loss": float(scores.train_loss[0]),
                "test_loss": float(scores.test_loss[0]),
                "test_accuracy": 1.0 - float(scores.test_error[0]),
                "param_norm": float(chaos.parameter_norm(reference)[0]),
                "learning_rate": rate,
                "sharpness": self._sharpness.measure(reference, step) if self._sharpness else float("nan"),
                "stability_bound": stability_bound(setting.optimizer, rate, setting.momentum),
            }
        )

    def _record_divergence(self, state: LaneState, index: Mapping[Child, int], due: list[Child], step: int) -> None:
        if not due:
            return
        apart = chaos.distance(state)
        self._rows["divergence"] += [
            {**child_keys(child), "step": step, "distance": float(apart[index[child]])} for child in due
        ]

    def _record_chaos(self, state: LaneState, index: Mapping[Child, int], measured: list[Child], step: int) -> None:
        """Compare children with the reference, and evaluate the paths between them."""
        if not measured:
            return
        few = lanes.take(state, [0, *(index[child] for child in measured)])
        doses = [self._doses.get(child, NO_DOSE) for child in measured]
        rows, paths = compare(few, self._evaluator, doses, self._trial.protocol.path_points, self._align)
        self._sizes[step] = float(chaos.parameter_norm(few)[0])
        for child, row, path in zip(measured, rows, paths, strict=True):
            keys = {**child_keys(child), "measure_step": step}
            self._rows["chaos"].append({**keys, **row})
            self._rows["path"] += [{**keys, **point} for point in path]

    def _conclude(self) -> Outcome:
        final, digest = self._reference, self._digests[0]
        scores = self._evaluator.scores(final, recompute=False)
        has_loss = bool((scores.train_loss[0] + scores.test_loss[0]).isfinite())
        has_diverged = not (bool(lanes.is_finite(final)[0]) and has_loss)
        for row in self._rows["chaos"]:
            # A sentinel's distance is the greatest of any stretch of any group, also of one before its last fork.
            if row["perturbation"] == NONE:
                row.update(distances(self._sentinel_distance, self._sizes[row["measure_step"]]))
        summary = {
            "status": "diverged" if has_diverged else "ok",
            "is_sentinel_exact": self._is_sentinel_exact,
            "wall_seconds": self.seconds,
            "lane_steps": self.lane_steps,
            "lane_width": self._lane_width,
            "test_loss": float(scores.test_loss[0]),
            "test_accuracy": 1.0 - float(scores.test_error[0]),
            "reference_digest": digest,
        }
        kernel_rows = {kind: self._probe.rows(kind) for kind in self._todo.kernel_steps}
        return Outcome(
            self._rows,
            kernel_rows,
            self._probe.seconds,
            self._probe.sketch_rows,
            self._probe.sketch_seconds,
            self._growth.rows,
            self._growth.seconds,
            self._growth.lane_steps,
            self._switch.rows,
            self._switch.seconds,
            self._switch.lane_steps,
            summary,
        )


def _repeat(state: LaneState, copies: int) -> LaneState:
    return lanes.take(state, [0] * copies)
