"""What a plan will take: a few steps of each kind of network, timed here on made-up inputs of the right shape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from study.labels import setting_labels, varying_axes
from study.planner import Job
from study.widths import cost_leaves
from twophase.config import Setting, digest
from twophase.data import DATA, Dataset
from twophase.errors import BadInput
from twophase.lanes import MIN_LANES
from twophase.seeding import stream
from twophase.training import DTYPES, initial_state
from twophase.width import step_seconds

MOST_LANES = 32
"""Lanes that are timed together: more are hardly cheaper each, and take longer to time."""

SHORT_HOURS = 0.02
"""Less than this is told in seconds, too."""


@dataclass(frozen=True)
class Measured:
    """One kind of network: settings that a step costs alike.

    Attributes:
        setting: One of them.
        num_lanes: Lanes that were timed together.
        seconds: Of one lane-step.
        lane_steps: All that are to be run of them.
    """

    setting: Setting
    num_lanes: int
    seconds: float
    lane_steps: int

    @property
    def hours(self) -> float:
        """Of one processor or GPU with one trial at a time."""
        return self.lane_steps * self.seconds / 3600


def measure(jobs: Iterable[Job]) -> list[Measured]:
    """Time a few steps of each kind of network that jobs train.

    Args:
        jobs: What is to be run.

    Returns:
        One entry per kind, the most costly first. It is training alone: comparing children, and kernels, come on top.

    Raises:
        BadInput: The device that a setting asks for isn't there.
    """
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(digest(cost_leaves(job.trial.setting)), []).append(job)
    return sorted((_measured(alike) for alike in kinds.values()), key=lambda found: -found.hours)


def _measured(jobs: list[Job]) -> Measured:
    point = jobs[0].trial.setting
    if point.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--measure needs a GPU here for device 'cuda'; measure where there is one, or --set device=cpu")
    num_lanes = MIN_LANES
    if point.engine != "loop":
        num_lanes = max(MIN_LANES, min(MOST_LANES, 2 + max(len(job.todo.perturbed) for job in jobs)))
    alike = replace(point, num_train=2 * point.batch_size, num_test=1)
    data = made_up(alike).to(torch.device(point.device), DTYPES[point.precision])
    one_lane = initial_state(alike, data, seed=0).map(lambda tensor: tensor.to(point.device))
    seconds = step_seconds(alike, data, one_lane, num_lanes) / num_lanes
    return Measured(point, num_lanes, seconds, sum(job.lane_steps for job in jobs))


def made_up(point: Setting) -> Dataset:
    """Noise of the shape of a setting's inputs: a step costs the same on it, and no file is needed."""
    source, generator = DATA[point.data], stream(0, "made up")
    train, test = (
        torch.randn(number, *source.input_shape, generator=generator) for number in (point.num_train, point.num_test)
    )
    labels = [torch.arange(len(inputs)) % source.num_classes for inputs in (train, test)]
    return Dataset(train, labels[0], test, labels[1], source.num_classes)


def _labels(points: Sequence[Setting]) -> list[str]:
    """Name kinds of networks by what tells them apart; a model's width always belongs to its name."""
    if not points:
        return []
    rows = pd.DataFrame([{**point.values(), "setting_key": point.key} for point in points])
    telling = varying_axes(rows, list(cost_leaves(points[0])))
    labels = setting_labels(rows, ["model", "width", *(axis for axis in telling if axis not in {"model", "width"})])
    return [str(labels[point.key]) for point in points]


def measured_lines(found: list[Measured]) -> list[str]:
    """Say what was measured, for `plan`."""
    lines = [
        f"measured      {label} on {one.setting.device}: "
        f"{1000 * one.seconds:.3g} ms a lane-step, {one.num_lanes} lanes together; {one.hours:.3g} hours"
        for one, label in zip(found, _labels([one.setting for one in found]), strict=True)
    ]
    for device, name in (("cuda", "GPU hours"), ("cpu", "processor hours")):
        hours = [one.hours for one in found if one.setting.device == device]
        if hours:
            total = sum(hours)
            plainly = f" ({3600 * total:.2g} seconds)" if total < SHORT_HOURS else ""
            lines.append(
                f"training      about {total:.3g} {name}{plainly}; comparing children, and kernels, come on top"
            )
    return lines
