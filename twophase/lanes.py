"""Many networks as one: read, fork, stack and compare the states of lanes.

A `LaneState` holds everything that training carries from step to step, but for the place in the data, which is the step
itself. Every tensor has a leading lane axis of length K.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from twophase.models import LaneNetwork
from twophase.optimizers import STEP

MIN_LANES = 4
"""A batch of fewer lanes rounds differently from one of four or more, where all widths agree."""


@dataclass(frozen=True)
class LaneState:
    """Whole state of K networks.

    Attributes:
        parameters: Name -> [K, ...].
        buffers: Running statistics, name -> [K, ...].
        optimizer: (parameter's name, name of its quantity) -> [K, ...].
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    optimizer: dict[tuple[str, str], Tensor]

    @property
    def num_lanes(self) -> int:
        """Number of networks K."""
        return next(iter(self.parameters.values())).shape[0]

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, in a fixed order."""
        for group in (self.parameters, self.buffers, self.optimizer):
            yield from group.values()

    def map(self, change: Callable[[Tensor], Tensor]) -> "LaneState":
        """Apply a function to every tensor."""
        return LaneState(
            {name: change(value) for name, value in self.parameters.items()},
            {name: change(value) for name, value in self.buffers.items()},
            {name: change(value) for name, value in self.optimizer.items()},
        )


def read(model: LaneNetwork, optimizer: torch.optim.Optimizer) -> LaneState:
    """Copy the state out of a model and its optimiser."""
    moments = {
        (name, quantity): value.detach().clone()
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state[parameter].items()
        if quantity != STEP
    }
    return LaneState(
        {name: value.detach().clone() for name, value in model.named_parameters()},
        {name: value.detach().clone() for name, value in model.named_buffers()},
        moments,
    )


def write(state: LaneState, model: LaneNetwork, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Load a state of any number of lanes; parameters keep their identity, so that the optimiser goes on."""
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.data = state.parameters[name].clone()
    for name, buffer in model.named_buffers():
        buffer.data = state.buffers[name].clone()
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            for quantity in optimizer.state[parameter]:
                if quantity != STEP:
                    optimizer.state[parameter][quantity] = state.optimizer[name, quantity].clone()


def fork(state: LaneState, lane: int = 0) -> LaneState:
    """Copy the whole state of one lane, as a state of one lane."""
    return state.map(lambda tensor: tensor[lane : lane + 1].clone())


def stack(states: Sequence[LaneState]) -> LaneState:
    """Put the lanes of several states into one."""
    first = states[0]
    return LaneState(
        {name: torch.cat([state.parameters[name] for state in states]) for name in first.parameters},
        {name: torch.cat([state.buffers[name] for state in states]) for name in first.buffers},
        {name: torch.cat([state.optimizer[name] for state in states]) for name in first.optimizer},
    )


def take(state: LaneState, lanes: Sequence[int]) -> LaneState:
    """Select lanes, in the order given; a lane may come more than once."""
    index = torch.tensor(list(lanes), device=next(state.tensors()).device)
    return state.map(lambda tensor: tensor.index_select(0, index))


def is_exact_copy(state: LaneState, lane: int, of: int = 0) -> bool:
    """Tell whether two lanes are bitwise equal in parameters, buffers and optimiser state.

    Bits, not values: NaN equals itself, and −0 differs from 0.
    """
    return all(torch.equal(_bits(tensor[lane]), _bits(tensor[of])) for tensor in state.tensors())


def is_finite(state: LaneState) -> Bool[Tensor, " K"]:
    """Tell for every lane whether all its parameters are finite."""
    finite = [tensor.flatten(1).isfinite().all(1) for tensor in state.parameters.values()]
    return torch.stack(finite).all(0)


def state_digest(state: LaneState, lane: int = 0) -> str:
    """Hash one lane's whole state: SHA-256 of its bytes, first 16 hex digits."""
    sha = hashlib.sha256()
    for tensor in state.tensors():
        sha.update(_bits(tensor[lane]).cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def _bits(tensor: Tensor) -> Tensor:
    """View a tensor as integers of its size."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])
