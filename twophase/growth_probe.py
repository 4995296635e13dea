"""Growth of small perturbations of the reference from chosen steps of a run: the rows of `growth`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from twophase import lanes
from twophase.children import growth_lane_steps
from twophase.config import Trial
from twophase.data import Dataset
from twophase.directions import scaled, standard_normal
from twophase.growth import Window, measure_growth
from twophase.lanes import LaneState
from twophase.seeding import stream
from twophase.update_map import point_of, update_map

Row = dict[str, Any]


class GrowthProbe:
    """Follows growth over windows that begin where a run passes.

    Attributes:
        rows: Found so far, without keys of the trial.
        lane_steps: Spent so far.
        seconds: Wall time spent.
    """

    def __init__(self, trial: Trial, dataset: Dataset, directions: Mapping[int, Sequence[int]]) -> None:
        """Say what is wanted.

        Args:
            trial: Setting, seed and protocol.
            dataset: The data, where it is to be computed.
            directions: Fork step -> numbers of the directions.
        """
        protocol = trial.protocol
        self._window = Window(
            protocol.growth_window, protocol.growth_burn_in, protocol.growth_low, protocol.growth_high
        )
        self._trial, self._dataset, self._directions = trial, dataset, directions
        self.rows: list[Row] = []
        self.lane_steps, self.seconds = 0, 0.0

    def visit(self, state: LaneState, step: int) -> None:
        """Follow what is due from a step, from lane 0 of a state; the run itself doesn't notice.

        Directions are drawn from the stream of (seed, fork step, direction), uniform on the unit sphere of all
        parameters.
        """
        numbers = self._directions.get(step, ())
        if not numbers:
            return
        began, seed = time.perf_counter(), self._trial.seed
        point = point_of(lanes.fork(state))
        draws = [standard_normal(point[0], stream(seed, "growth", step, number)) for number in numbers]
        device = self._dataset.train_inputs.device
        units = [{name: u.to(device) for name, u in scaled(draw).items()} for draw in draws]
        found = measure_growth(update_map(self._trial.setting, self._dataset, seed), point, units, step, self._window)
        for number, growth in zip(numbers, found, strict=True):
            keys = {"fork_step": step, "direction": number, "window": self._window.length}
            self.rows.append({**keys, **asdict(growth)})
        self.lane_steps += growth_lane_steps(len(numbers), self._window.length)
        self.seconds += time.perf_counter() - began

    def checkpoint(self) -> dict[str, Any]:
        """What has been found so far, as JSON."""
        return {"rows": self.rows, "lane_steps": self.lane_steps, "seconds": self.seconds}

    def resume(self, note: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows, self.lane_steps, self.seconds = list(note["rows"]), note["lane_steps"], note["seconds"]
