"""Reference state -> child state: one small push, measured as it was realised after rounding."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twophase.lanes import LaneState
from twophase.seeding import stream

NONE = "none"
"""The sentinel: forked like a child, not perturbed."""
ORDER = "order"
"""The control: not perturbed, but drawing another minibatch order from its fork on."""

Parameters = dict[str, Tensor]
Direction = Callable[[Parameters, torch.Generator], Parameters]


@dataclass(frozen=True)
class Perturbation:
    """One entry of the table of perturbations.

    Attributes:
        direction: (parameters of one lane, stream) -> float64 noise of L2 norm 1 over all parameters.
        is_relative: Whether the magnitude is relative to the L2 norm of the parameters, or absolute.
    """

    direction: Direction
    is_relative: bool = True


@dataclass(frozen=True)
class Dose:
    """What a perturbation did to the parameters, after rounding to their precision.

    Attributes:
        noise_norm: L2 norm of the realised change.
        layer_noise_min: Least change of a module's own parameters over their norm.
        layer_noise_max: Greatest such change.
        changed_fraction: Share of the weights that are not what they were.
    """

    noise_norm: float
    layer_noise_min: float
    layer_noise_max: float
    changed_fraction: float


NO_DOSE = Dose(0.0, 0.0, 0.0, 0.0)


def gaussian(parameters: Parameters, generator: torch.Generator) -> Parameters:
    """Draw a direction uniform on the unit sphere of all parameters together."""
    noise = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in parameters.items()
    }
    scale = 1.0 / norm(noise)
    return {name: (value * scale).to(parameters[name].device) for name, value in noise.items()}


PERTURBATIONS: dict[str, Perturbation] = {
    "gaussian": Perturbation(gaussian),
    "gaussian_absolute": Perturbation(gaussian, is_relative=False),
}


def norm(parameters: Parameters) -> float:
    """L2 norm over all parameters, in float64."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in parameters.values()))


def perturb(
    state: LaneState, kind: str, magnitude: float, *, seed: int, fork_step: int, direction: int
) -> tuple[LaneState, Dose]:
    """Perturb a state of one lane.

    θ′ = θ + ε ‖θ‖ u (or ε u where absolute), with u drawn from (seed, kind, fork step, direction) and shared by all
    magnitudes.

    Args:
        state: A copy of the reference's state, one lane.
        kind: A key of `PERTURBATIONS`.
        magnitude: ε > 0.
        seed: Replicate number.
        fork_step: The step that the state is of.
        direction: Number of the draw.

    Returns:
        The perturbed state (optimiser and buffers as they were), and the dose as realised.
    """
    entry = PERTURBATIONS[kind]
    unit = entry.direction(state.parameters, stream(seed, "perturbation", kind, fork_step, direction))
    scale = magnitude * (norm(state.parameters) if entry.is_relative else 1.0)
    pushed = {name: (value.double() + scale * unit[name]).to(value.dtype) for name, value in state.parameters.items()}
    return replace(state, parameters=pushed), realised_dose(state.parameters, pushed)


def realised_dose(before: Parameters, after: Parameters) -> Dose:
    """Measure a change of parameters, module by module."""
    change = {name: after[name].double() - before[name].double() for name in before}
    layers: dict[str, list[str]] = {}
    for name in before:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    doses = []
    for names in layers.values():
        size = norm({name: before[name] for name in names})
        moved = norm({name: change[name] for name in names})
        doses.append(moved / size if size > 0 else float("inf") if moved > 0 else 0.0)
    num_changed = sum(int((value != 0).sum()) for value in change.values())
    num_weights = sum(value.numel() for value in change.values())
    return Dose(norm(change), min(doses), max(doses), num_changed / num_weights)
