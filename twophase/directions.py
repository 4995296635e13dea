"""Kinds of perturbation: each draws noise in float64, of any length; `twophase.perturb` makes it a push of a size.

A new kind is a function here and a line in `PERTURBATIONS`.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from twophase.lanes import LaneState
from twophase.subject import Facts, Parameters, Subject


@dataclass(frozen=True)
class Request:
    """What a kind is asked for.

    Attributes:
        state: The reference's state, one lane.
        pushed: Names of the parameters that may be moved.
        fraction: Share of their weights that ``sparse`` moves.
        subject: The trial.
        stream: Stream of the draw, which options don't enter: one draw serves all of them.
    """

    state: LaneState
    pushed: Collection[str]
    fraction: float
    subject: Subject
    stream: torch.Generator


def norm(parameters: Parameters) -> float:
    """L2 norm over all parameters, in float64."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in parameters.values()))


def scaled(noise: Parameters, size: float = 1.0) -> Parameters:
    """Noise scaled to an L2 norm; zeros stay zeros, for they have no direction."""
    length = norm(noise)
    if length == 0:
        return noise
    factor = size / length
    return {name: value * factor for name, value in noise.items()}


def layers(names: Iterable[str]) -> dict[str, list[str]]:
    """Layer -> names of its own parameters, in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def standard_normal(parameters: Parameters, generator: torch.Generator) -> Parameters:
    """Independent N(0, 1) draws for every weight, in order, on the CPU."""
    return {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in parameters.items()
    }


def gaussian(request: Request) -> Parameters:
    """Isotropic: a direction uniform on the unit sphere of all parameters together."""
    return standard_normal(request.state.parameters, request.stream)


def init_scaled(request: Request) -> Parameters:
    """Each parameter's noise in proportion to the standard deviation with which it was initialised.

    What starts as a constant (biases under ``he``, factors and offsets of a normalisation) is not moved. Altıntaş,
    Kwok, Raffel, Rolnick 2025 (arXiv:2506.13234) let these take the next layer's.
    """
    noise = standard_normal(request.state.parameters, request.stream)
    return {name: noise[name] * request.subject.facts.draws[name].std for name in request.pushed}


def layerwise(request: Request) -> Parameters:
    """Each layer's noise in proportion to its own norm; where a normalisation follows, orthogonal to the weights.

    Orthogonal for every output unit by itself: no scale that the normalisation takes out again is moved, so that all of
    the push changes the function.
    """
    noise = standard_normal(request.state.parameters, request.stream)
    own = {name: value.double().cpu() for name, value in request.state.parameters.items()}
    found: Parameters = {}
    for layer, names in layers(name for name in own if name in request.pushed).items():
        is_normed = layer in request.subject.facts.normed_layers
        drawn = {name: across(noise[name], own[name]) if is_normed else noise[name] for name in names}
        found |= scaled(drawn, norm({name: own[name] for name in names}))
    return found


def across(noise: Tensor, weight: Tensor) -> Tensor:
    """Take out of noise what lies along the weights of each output unit, [1, out, ...]: n − w ⟨n, w⟩ / ⟨w, w⟩."""
    rows, along = noise.flatten(2), weight.flatten(2)
    if rows.shape[2] == 1:  # nothing is across a single weight, and rounding would leave a trace of it
        return torch.zeros_like(noise)
    squares = along.square().sum(2, keepdim=True)
    share = (rows * along).sum(2, keepdim=True) / torch.where(squares == 0, 1.0, squares)
    return (rows - share * along).view(noise.shape)


def gradient(request: Request) -> Parameters:
    """Gradient of the training loss at the reference's state, on one minibatch that the stream draws; uphill."""
    found = request.subject.gradient(request.state, request.stream)
    return {name: value.cpu() for name, value in found.items()}


def sparse(request: Request) -> Parameters:
    """Isotropic on a random share of the weights, at least one; a larger share holds a smaller one."""
    noise = standard_normal(request.state.parameters, request.stream)
    flat = torch.cat([value.flatten() for value in noise.values()])
    order = torch.randperm(len(flat), generator=request.stream)
    may = torch.cat([torch.full((value.numel(),), name in request.pushed) for name, value in noise.items()])
    order = order[may[order]]
    is_chosen = torch.zeros(len(flat), dtype=torch.bool)
    is_chosen[order[: max(1, round(request.fraction * len(order)))]] = True
    chosen = torch.split(torch.where(is_chosen, flat, 0.0), [value.numel() for value in noise.values()])
    return {name: part.view(noise[name].shape) for name, part in zip(noise, chosen, strict=True)}


def ulp(request: Request) -> Parameters:
    """One weight that is not 0, to the next number of its type, away from 0; the noise is the push itself."""
    own = {name: value.cpu() for name, value in request.state.parameters.items() if name in request.pushed}
    push = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in own.items()}
    places = {name: value.flatten().nonzero().flatten() for name, value in own.items()}
    total = sum(map(len, places.values()))
    number = int(torch.randint(max(1, total), (), generator=request.stream))
    for name, among in places.items():
        if number < len(among):
            weight = own[name].flatten()[among[number]]
            beyond = torch.nextafter(weight, torch.copysign(torch.full_like(weight, math.inf), weight))
            push[name].view(-1)[among[number]] = beyond.double() - weight.double()
            break
        number -= len(among)
    return push


NORMS: dict[str, Callable[[Request], float]] = {
    "absolute": lambda _: 1.0,
    "init": lambda request: request.subject.init_norm,
    "parameters": lambda request: norm(request.state.parameters),
    "pushed": lambda request: norm({k: v for k, v in request.state.parameters.items() if k in request.pushed}),
}
"""What a magnitude is relative to: 1, the root mean square norm at step 0, that of all parameters, of those pushed."""


def _is_drawn(facts: Facts, name: str) -> bool:
    return facts.draws[name].std > 0


def _is_scaleless(facts: Facts, name: str) -> bool:
    """A layer's bias takes part in the scale of its normed weights, and most normalisations take it out whole."""
    layer, _, own = name.rpartition(".")
    return layer not in facts.normed_layers or own == "weight"


@dataclass(frozen=True)
class Kind:
    """One entry of the table of perturbations.

    Attributes:
        noise: Draws float64 noise on the CPU; what isn't asked for may be missing, or is dropped.
        doc: What it is, in a line.
        norm: What its magnitude is relative to by default; ``none``: it has no magnitude, its noise is the push.
        options: Names of the options that it takes.
        can_push: (facts, parameter) -> whether it ever moves that parameter.
        needs_draws: Whether it asks how parameters are drawn.
    """

    noise: Callable[[Request], Parameters]
    doc: str
    norm: str = "parameters"
    options: tuple[str, ...] = ("exclude", "include", "momentum", "norm")
    can_push: Callable[[Facts, str], bool] = lambda _, __: True
    needs_draws: bool = False


PERTURBATIONS: dict[str, Kind] = {
    "gaussian": Kind(gaussian, "isotropic over all parameters"),
    "gaussian_absolute": Kind(
        gaussian,
        "the same, in draws of its own, its magnitude an L2 norm by itself",
        norm="absolute",
        options=("exclude", "include", "momentum"),
    ),
    "gradient": Kind(gradient, "up the gradient of the training loss on one minibatch, which is drawn"),
    "init_scaled": Kind(
        init_scaled,
        "each parameter in proportion to the standard deviation of its init",
        can_push=_is_drawn,
        needs_draws=True,
    ),
    "layerwise": Kind(
        layerwise,
        "each layer in proportion to its norm, and orthogonal to weights that a normalisation follows",
        norm="pushed",
        can_push=_is_scaleless,
    ),
    "sparse": Kind(
        sparse,
        "isotropic on a random share of the weights",
        options=("exclude", "fraction", "include", "momentum", "norm"),
    ),
    "ulp": Kind(ulp, "one weight, drawn, by one unit in the last place", norm="none", options=("exclude", "include")),
}
