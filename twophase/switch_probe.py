"""Linearised runs that branch off the reference of a trial at chosen steps: the rows of `switch`."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twophase import lanes
from twophase.children import LINEARISED_LANES, Todo, least_linearised, switch_batches
from twophase.config import Trial
from twophase.data import Dataset
from twophase.evaluation import Evaluator, Scores
from twophase.lanes import LaneState
from twophase.linearised import LinearisedTrainer
from twophase.training import reference_order

Row = dict[str, Any]
States = dict[str, LaneState]


class SwitchBatch:
    """Linearised runs on the same minibatches, one lane per switch step; too few are filled up with the first.

    Attributes:
        planned: Switch steps that the batch will have, ascending.
        begun: Those that it has so far, in order of their lanes.
        trainer: What trains the lanes; None before the first.
    """

    def __init__(
        self, planned: list[int], least: int, make: Callable[[LaneState, LaneState, int], LinearisedTrainer]
    ) -> None:
        """Begin empty.

        Args:
            planned: Switch steps.
            least: Fewest lanes.
            make: (state, centre, step) -> what trains them.
        """
        self.planned, self.begun = planned, list[int]()
        self.trainer: LinearisedTrainer | None = None
        self._least, self._make = least, make

    def begin(self, start: LaneState, step: int) -> None:
        """Add a run that switches at a step, from the whole state of one lane."""
        centre = replace(start, optimizer={})
        if self.trainer is not None:
            runs = range(len(self.begun))
            start = lanes.stack([lanes.take(self.trainer.state, runs), start])
            centre = lanes.stack([lanes.take(self.trainer.centre, runs), centre])
        self.begun.append(step)
        padded = [*range(len(self.begun)), *[0] * max(0, self._least - len(self.begun))]
        self.trainer = self._make(lanes.take(start, padded), lanes.take(centre, padded), step)

    def resume(self, begun: list[int], state: LaneState, centre: LaneState, step: int) -> None:
        """Go on with all lanes, padding included."""
        self.begun, self.trainer = begun, self._make(state, centre, step)


class SwitchProbe:
    """Trains linearised runs beside a reference.

    Attributes:
        rows: Found so far, without keys of the trial.
        lane_steps: Spent so far.
        seconds: Wall time spent.
    """

    def __init__(self, trial: Trial, dataset: Dataset, evaluator: Evaluator, todo: Todo, lane_width: int) -> None:
        """Say what is wanted.

        Args:
            trial: Setting, seed and protocol.
            dataset: The data, where it is to be computed.
            evaluator: The trial's, which recomputes statistics and scores.
            todo: What is wanted of the trial.
            lane_width: Most lanes of a batch; 0 for no bound.
        """
        self._trial, self._dataset, self._evaluator = trial, dataset, evaluator
        self._steps, self._order = todo.switch_steps, reference_order(trial.setting, trial.seed)
        least = least_linearised(trial.setting)
        self._batches = [
            SwitchBatch(steps, least, self._trainer)
            for steps in switch_batches(trial.setting, todo, lane_width=lane_width)
        ]
        self.rows: list[Row] = []
        self.lane_steps, self.seconds = 0, 0.0

    def visit(self, state: LaneState, step: int) -> None:
        """Begin the run that is due at a step, from lane 0 of a state, or measure all at the end."""
        if step not in self._steps and step < self._trial.setting.num_steps:
            return
        began, reference = time.perf_counter(), lanes.fork(state)
        for batch in self._batches:
            if step in batch.planned:
                # Statistics are recomputed, as for kernels: running ones lag behind, and at step 0 are of no network.
                batch.begin(self._evaluator.recomputed(reference), step)
        if step == self._trial.setting.num_steps and self._steps:
            self._conclude(reference)
        self.seconds += time.perf_counter() - began

    def advance(self, until: int) -> None:
        """Train all runs to a step."""
        began = time.perf_counter()
        for batch in self._batches:
            if batch.trainer is not None:
                self.lane_steps += LINEARISED_LANES * (until - batch.trainer.step) * batch.trainer.num_lanes
                batch.trainer.advance(until, self._order)
        self.seconds += time.perf_counter() - began

    def _trainer(self, state: LaneState, centre: LaneState, step: int) -> LinearisedTrainer:
        trial = self._trial
        return LinearisedTrainer(trial.setting, self._dataset, state, centre, seed=trial.seed, step=step)

    def _conclude(self, reference: LaneState) -> None:
        """Score every run at the end, and beside them the reference itself, which never switched."""
        num_steps = self._trial.setting.num_steps
        for batch in self._batches:
            if batch.trainer is not None:
                kept = len(batch.begun)
                scores = self._evaluator.scores_of(batch.trainer.logits, batch.trainer.num_lanes, kept)
                finite = lanes.is_finite(batch.trainer.state)
                self.rows += [_row(step, scores, i, is_finite=bool(finite[i])) for i, step in enumerate(batch.begun)]
                batch.trainer = None
        if num_steps in self._steps:
            scores = self._evaluator.scores(reference, recompute=False)
            self.rows.append(_row(num_steps, scores, 0, is_finite=bool(lanes.is_finite(reference)[0])))

    def checkpoint(self) -> tuple[dict[str, Any], States]:
        """Where the runs stand: as JSON, and states by name."""
        states: States = {}
        begun = []
        for i, batch in enumerate(self._batches):
            if batch.trainer is not None:
                begun.append([i, batch.begun])
                states |= {f"switch {i}": batch.trainer.state, f"switch centre {i}": batch.trainer.centre}
        return {"rows": self.rows, "lane_steps": self.lane_steps, "seconds": self.seconds, "begun": begun}, states

    def resume(self, note: Mapping[str, Any], states: Mapping[str, LaneState], step: int) -> None:
        """Go on from a checkpoint of a run that stood at a step."""
        self.rows, self.lane_steps, self.seconds = list(note["rows"]), note["lane_steps"], note["seconds"]
        for i, begun in note["begun"]:
            self._batches[i].resume(begun, states[f"switch {i}"], states[f"switch centre {i}"], step)


def _row(step: int, scores: Scores, lane: int, *, is_finite: bool) -> Row:
    """One row; a run with a loss or parameter that isn't finite has diverged, and has no scores."""
    found = [float(part[lane]) for part in (scores.train_loss, scores.test_loss, scores.test_error)]
    has_diverged = not (is_finite and all(map(math.isfinite, found)))
    train_loss, test_loss, test_error = [float("nan")] * 3 if has_diverged else found
    return {
        "switch_step": step,
        "train_loss": train_loss,
        "test_loss": test_loss,
        "test_accuracy": 1.0 - test_error,
        "diverged": has_diverged,
    }
