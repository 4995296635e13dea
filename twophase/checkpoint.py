"""A running trial as bytes: everything that it takes to go on bitwise as if it had never stopped."""

import json
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from twophase.lanes import LaneState
from twophase.snapshot import SnapshotError, named_tensors, note_of

_NOTE, _ORDER = "note", "order"


@dataclass
class Checkpoint:
    """A trial in the middle of its run.

    Attributes:
        note: All that isn't a tensor, as JSON (with NaN).
        states: Batches of lanes, by name.
        tensors: Other tensors, by name.
    """

    note: dict[str, Any] = field(default_factory=dict)
    states: dict[str, LaneState] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Write it down in safetensors."""
        named = {f"tensor|{name}": tensor for name, tensor in self.tensors.items()}
        for name, state in self.states.items():
            named |= {"|".join((name, *path)): tensor for path, tensor in named_tensors(state).items()}
        data = {name: tensor.cpu().contiguous() for name, tensor in named.items()}
        note = {_NOTE: json.dumps(self.note), _ORDER: json.dumps(list(data))}
        return bytes(safetensors.torch.save(data, metadata=note))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint":
        """The reverse of `to_bytes`, on the CPU.

        Raises:
            SnapshotError: The bytes are damaged.
        """
        try:
            read = safetensors.torch.load(data)
            note, order = (json.loads(note_of(data)[part]) for part in (_NOTE, _ORDER))
        except (SafetensorError, KeyError, ValueError) as error:
            raise SnapshotError(f"damaged: {error}") from error
        made = cls(note)
        # In the order of the network: sums, draws and digests go through a state in order.
        for path in order:
            (name, group, *key), tensor = path.split("|"), read[path]
            if name == "tensor":
                made.tensors[group] = tensor
                continue
            state = made.states.setdefault(name, LaneState({}, {}, {}))
            if group == "optimizer":
                state.optimizer[key[0], key[1]] = tensor
            else:
                getattr(state, group)[key[0]] = tensor
        return made
