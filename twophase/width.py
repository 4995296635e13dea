"""How many lanes to train at once: measured, for caches and kernels differ from machine to machine."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from twophase import lanes
from twophase.config import Setting
from twophase.data import Dataset
from twophase.lanes import MIN_LANES
from twophase.training import DTYPES, TRAINERS, LaneTrainer, initial_state, reference_order

CANDIDATES = (16, 32, 64, 128, 256, 512)
TIMED_STEPS = 3
ENOUGH_SECONDS = 3.0
WORTHWHILE = 0.97
"""A wider batch must cost less than this share of a narrower one's time per child: else it only takes memory."""


@dataclass(frozen=True)
class Width:
    """What was found.

    Attributes:
        lane_width: Most lanes of a batch.
        seconds_per_child: Width -> measured seconds of one step over the children in it.
        bytes_per_lane: What one lane keeps in memory during a step.
    """

    lane_width: int
    seconds_per_child: dict[int, float]
    bytes_per_lane: int


def measure_width(setting: Setting, dataset: Dataset, device: torch.device, *, most: int, memory_bytes: int) -> Width:
    """Train a few steps at each width, and take the one whose children are cheapest.

    Reference and sentinel are counted as overhead: a batch of K lanes has K − 2 children.

    Args:
        setting: What is to be trained.
        dataset: Its data, anywhere.
        device: Where.
        most: Most lanes that could be of use.
        memory_bytes: Most bytes that a batch may take.

    Returns:
        The width, and what it was chosen by. At least four, whatever the memory.
    """
    data = dataset.to(device, DTYPES[setting.precision])
    one_lane = initial_state(setting, dataset, seed=0).map(lambda tensor: tensor.to(device))
    per_lane = _count_bytes(setting, data, one_lane)
    affordable = max(MIN_LANES, memory_bytes // per_lane)
    widest = min(most, affordable)
    timed: dict[int, float] = {}
    best = widest
    for width in sorted({min(width, widest) for width in (*CANDIDATES, widest)}):
        timed[width] = step_seconds(setting, data, one_lane, width) / (width - 2)
        if len(timed) == 1 or timed[width] < WORTHWHILE * timed[best]:
            best = width
        elif timed[width] > timed[best] / WORTHWHILE:
            break  # past the optimum: wider ones cost more time to measure than they could save
    return Width(best, timed, per_lane)


def step_seconds(setting: Setting, data: Dataset, one_lane: lanes.LaneState, width: int) -> float:
    """Train a few steps and time them; of slow ones fewer.

    Args:
        setting: What is trained.
        data: Its data, where it is to be trained, in its precision.
        one_lane: State of a network there.
        width: Number of lanes K.

    Returns:
        Median seconds of a step of all lanes.
    """
    trainer = TRAINERS[setting.engine](setting, data, lanes.take(one_lane, [0] * width), seed=0)
    order = [reference_order(setting, 0)]
    trainer.advance(1, order)
    taken = []
    for _ in range(TIMED_STEPS):
        _wait(data)
        began = time.perf_counter()
        trainer.advance(trainer.step + 1, order)
        _wait(data)
        taken.append(time.perf_counter() - began)
        if sum(taken) > ENOUGH_SECONDS:
            break
    return statistics.median(taken)


def bytes_per_lane(setting: Setting, dataset: Dataset, device: torch.device) -> int:
    """What one lane keeps in memory during a step, by training four of them for one."""
    one_lane = initial_state(setting, dataset, seed=0).map(lambda tensor: tensor.to(device))
    return _count_bytes(setting, dataset.to(device, DTYPES[setting.precision]), one_lane)


def _count_bytes(setting: Setting, data: Dataset, one_lane: lanes.LaneState) -> int:
    """What autograd saves during a step, and parameters, gradients and optimiser state, over the lanes."""
    trainer = LaneTrainer(setting, data, lanes.take(one_lane, [0] * MIN_LANES), seed=0)
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        trainer.advance(1, [reference_order(setting, 0)])
    held = sum(tensor.nbytes for tensor in one_lane.tensors()) + sum(t.nbytes for t in one_lane.parameters.values())
    return sum(saved.values()) // MIN_LANES + held


def _wait(data: Dataset) -> None:
    if data.train_inputs.is_cuda:
        torch.cuda.synchronize(data.train_inputs.device)
