"""Whole states of a reference as bytes that load without running code, and where they are kept.

A format of the reader's own would be one more thing to trust: safetensors holds names, shapes, types and numbers only.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from twophase.lanes import LaneState

_SEPARATOR = "|"


class SnapshotError(ValueError):
    """Bytes that are no snapshot of this network."""


class Snapshots(ABC):
    """Where whole states of one trial's reference are kept from run to run."""

    @abstractmethod
    def nearest(self, step: int, like: LaneState) -> tuple[int, LaneState] | None:
        """The latest state at or before a step that is shaped like another, and its step; None if there is none."""

    @abstractmethod
    def keep(self, step: int, state: LaneState) -> None:
        """Keep the state of a step."""


def to_bytes(state: LaneState, note: Mapping[str, str]) -> bytes:
    """Write a state down.

    Args:
        state: Any number of lanes.
        note: What else is to be known of it.
    """
    named = {_SEPARATOR.join(path): value.cpu().contiguous() for path, value in named_tensors(state).items()}
    return bytes(safetensors.torch.save(named, metadata=dict(note)))


def note_of(data: bytes) -> dict[str, str]:
    """What was noted in a snapshot; empty where the bytes are none.

    The header is JSON after its length in eight bytes (the format's own definition).
    """
    try:
        note = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (ValueError, AttributeError):
        return {}
    return {str(name): str(value) for name, value in note.items()}


def from_bytes(data: bytes, like: LaneState) -> LaneState:
    """Read a state back, on the CPU.

    Args:
        data: What `to_bytes` made.
        like: A state of the same network, of any number of lanes.

    Raises:
        SnapshotError: The bytes are damaged, or are those of another network or optimiser.
    """
    try:
        read = safetensors.torch.load(data)
    except SafetensorError as error:
        raise SnapshotError(f"damaged: {error}") from error
    found = {tuple(name.split(_SEPARATOR)): value for name, value in read.items()}
    wanted = named_tensors(like)
    if found.keys() != wanted.keys():
        raise SnapshotError("it holds other parameters than this network has")
    for path, value in found.items():
        if value.shape[1:] != wanted[path].shape[1:] or value.dtype != wanted[path].dtype:
            raise SnapshotError(f"{path[1]} is {value.dtype} {tuple(value.shape[1:])} there")
    # In the order of `like`: a digest goes through the tensors in order.
    return LaneState(
        {name: found["parameters", name] for name in like.parameters},
        {name: found["buffers", name] for name in like.buffers},
        {key: found["optimizer", *key] for key in like.optimizer},
    )


def named_tensors(state: LaneState) -> dict[tuple[str, ...], Tensor]:
    """All tensors of a state: (group, name, or of the optimiser also the quantity) -> tensor."""
    named: dict[tuple[str, ...], Tensor] = {}
    named |= {("parameters", name): value for name, value in state.parameters.items()}
    named |= {("buffers", name): value for name, value in state.buffers.items()}
    named |= {("optimizer", *key): value for key, value in state.optimizer.items()}
    return named
