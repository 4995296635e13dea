"""Reference state -> child state: one small push, measured as it was realised after rounding."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twophase.directions import NORMS, PERTURBATIONS, Request, layers, norm, scaled, standard_normal
from twophase.lanes import LaneState
from twophase.optimizers import MOMENTA
from twophase.perturbation import parse
from twophase.seeding import stream
from twophase.subject import Parameters, Subject

NONE = "none"
"""The sentinel: forked like a child, not perturbed."""
ORDER = "order"
"""The control: not perturbed, but drawing another minibatch order from its fork on."""


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


def perturb(
    state: LaneState, perturbation: str, magnitude: float, subject: Subject, *, fork_step: int, direction: int
) -> tuple[LaneState, Dose]:
    """Perturb a state of one lane.

    θ′ = θ + ε S u, where S is what the magnitude is relative to (‖θ‖ by default) and u the noise of the kind, of norm 1
    over the parameters that are pushed. The noise is drawn from (seed, kind, fork step, direction): magnitudes and
    options share it. What isn't pushed keeps its bits. With `momentum`, momentum m gets isotropic noise of norm
    ‖m‖ ε S / ‖θ‖ on the same parameters, from a stream of its own.

    Args:
        state: A copy of the reference's state, one lane.
        perturbation: As `twophase.perturbation.parse` reads it.
        magnitude: ε > 0; of no meaning to a kind that has none.
        subject: The trial.
        fork_step: The step that the state is of.
        direction: Number of the draw.

    Returns:
        The perturbed state (running statistics as they were), and the dose of its parameters as realised.
    """
    asked = parse(perturbation)
    purpose = ("perturbation", asked.kind, fork_step, direction)
    names = frozenset(asked.pushed(subject.facts))
    request = Request(state, names, asked.fraction, subject, stream(subject.seed, *purpose))
    noise = _only(PERTURBATIONS[asked.kind].noise(request), names)
    if asked.has_magnitude:
        size = magnitude * NORMS[asked.norm](request)
        noise = {name: size * value for name, value in scaled(noise).items()}
    pushed = {name: _moved(value, noise[name]) if name in noise else value for name, value in state.parameters.items()}
    made = replace(state, parameters=pushed)
    if asked.momentum:
        whole = norm(state.parameters)
        made = replace(made, optimizer=_pushed_momenta(request, size / whole if whole > 0 else 0.0, purpose))
    return made, realised_dose(state.parameters, pushed)


def _only(noise: Parameters, names: frozenset[str]) -> Parameters:
    return {name: value for name, value in noise.items() if name in names}


def _moved(value: Tensor, change: Tensor) -> Tensor:
    """Add in float64 and round once; where there is no change, not even the sign of a zero is."""
    change = change.to(value.device)
    return torch.where(change == 0, value, (value.double() + change).to(value.dtype))


def _pushed_momenta(request: Request, relative: float, purpose: tuple[str | int, ...]) -> dict[tuple[str, str], Tensor]:
    """Optimiser state with noise on its momentum, of a norm relative to that of all of it."""
    pushed = dict(request.state.optimizer)
    for quantity in MOMENTA:
        own = {name: value for (name, kind), value in pushed.items() if kind == quantity}
        noise = standard_normal(own, stream(request.subject.seed, *purpose, "momentum", quantity))
        change = scaled(_only(noise, frozenset(request.pushed)), relative * norm(own))
        pushed |= {(name, quantity): _moved(own[name], value) for name, value in change.items()}
    return pushed


def realised_dose(before: Parameters, after: Parameters) -> Dose:
    """Measure a change of parameters, module by module."""
    change = {name: after[name].double() - before[name].double() for name in before}
    doses = []
    for names in layers(before).values():
        size = norm({name: before[name] for name in names})
        moved = norm({name: change[name] for name in names})
        doses.append(moved / size if size > 0 else float("inf") if moved > 0 else 0.0)
    num_changed = sum(int((value != 0).sum()) for value in change.values())
    num_weights = sum(value.numel() for value in change.values())
    return Dose(norm(change), min(doses), max(doses), num_changed / num_weights)
