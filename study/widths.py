"""The lane width of each model, input, batch and device of a study: measured once, pinned in its folder."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from results.files import json_bytes
from study.pinned import pin
from twophase.children import Todo, is_width_fixed
from twophase.config import Setting, Value, digest
from twophase.data import Dataset
from twophase.width import bytes_per_lane, measure_width

FOLDER = "_lane_widths"
ALWAYS_TOGETHER = 32
"""Up to so many lanes nothing is gained by measuring."""
_MEMORY_SHARE = 0.5
_OUTSIDE = {"num_train", "num_test", "data_seed", "lr", "momentum", "weight_decay", "num_steps", "schedule", "engine"}
"""Leaves that a step's cost doesn't hang on."""
_known_bytes: dict[str, int] = {}
"""Key of what a step's cost hangs on -> memory of a lane: a worker does many trials that differ in nothing of that."""


def lane_width(study: Path, setting: Setting, dataset: Dataset, todo: Todo, gpu_share: float = 1.0) -> int:
    """The width that a job's batches are to have.

    Args:
        study: The study's folder.
        setting: What is trained.
        dataset: Its data.
        todo: What is wanted.
        gpu_share: Share of a GPU that it may fill.

    Returns:
        The study's pinned width, or a fresh one, pinned from now on; 0, no bound, where there is nothing to choose.
    """
    if setting.engine == "loop":
        return 0
    needed, device = 2 + len(todo.perturbed), torch.device(setting.device)
    key = _key(setting, dataset, device)
    path = study / FOLDER / f"{key}.json"
    if not path.exists():
        memory = _memory_bytes(device, gpu_share)
        is_free = needed <= ALWAYS_TOGETHER and not is_width_fixed(setting)
        if is_free:
            if key not in _known_bytes:
                _known_bytes[key] = bytes_per_lane(setting, dataset, device)
            # Controls may train in one batch with the others.
            if (needed + len(todo.controls)) * _known_bytes[key] <= memory:
                return 0
        found = measure_width(setting, dataset, device, most=needed, memory_bytes=memory)
        pin(path, json_bytes({"setting": setting.values(), **asdict(found)}))
    return int(json.loads(path.read_text(encoding="utf-8"))["lane_width"])


def _key(setting: Setting, dataset: Dataset, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return digest({"device_name": name, "input_shape": dataset.input_shape, **cost_leaves(setting)})


def cost_leaves(setting: Setting) -> dict[str, Value]:
    """The leaves that a step's cost hangs on."""
    return {leaf: value for leaf, value in setting.identity().items() if leaf not in _OUTSIDE}


def _memory_bytes(device: torch.device, gpu_share: float) -> int:
    """What a batch may take: half of what is free, on a CPU shared by as many trials as there are cores.

    Of a GPU no more than half of the trial's share, whatever others have not taken yet.
    """
    if device.type == "cuda":
        free, all_there_is = torch.cuda.mem_get_info(device)
        return int(_MEMORY_SHARE * min(free, gpu_share * all_there_is))
    return int(_MEMORY_SHARE * psutil.virtual_memory().available / (os.cpu_count() or 1))
