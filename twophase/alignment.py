"""Renumber a child's units to match its reference's: weight matching (Ainsworth et al. 2022, arXiv:2209.04836).

Hidden units can be renumbered without changing what a network computes. A barrier that is gone once they are numbered
alike lay between two numberings, not between two solutions.

A `Symmetry` says which axes of which tensors are numbered together. An axis is made of segments, each numbered by one
group: mostly one, but where a ResNet's shortcut pads channels with zeros (option A) the old channels keep the numbering
that they had, in the middle of the new axis, and only the new ones around them have one of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from twophase import lanes
from twophase.config import Setting
from twophase.errors import BadInput
from twophase.lanes import LaneState
from twophase.models import LaneNetwork
from twophase.models.resnet import Subsample
from twophase.seeding import stream

Parameters = Mapping[str, Tensor]
Permutations = dict[str, Tensor]
"""Group -> p, [n]: place i of the aligned child is filled from place p[i]."""


@dataclass(frozen=True)
class Segment:
    """Places of one axis that one group numbers, in the group's order."""

    group: str
    places: tuple[int, ...]


Axis = tuple[Segment, ...]
"""Segments of an axis; empty where nothing may be renumbered."""

FIXED: Axis = ()


@dataclass(frozen=True)
class Symmetry:
    """Which units of an architecture can be renumbered together.

    Attributes:
        sizes: Group -> number of units, from the inputs on.
        axes: Name of a parameter or buffer -> its axes after the lane axis.
    """

    sizes: dict[str, int]
    axes: dict[str, tuple[Axis, ...]]


class _Tracer:
    """Follows a network from its inputs and notes what is numbered together."""

    def __init__(self, network: LaneNetwork) -> None:
        self._tensors = dict(network.named_parameters()) | dict(network.named_buffers())
        self.sizes: dict[str, int] = {}
        self.axes: dict[str, tuple[Axis, ...]] = {}

    def layer(self, name: str, inputs: Axis, outputs: Axis) -> None:
        """Note a dense layer or a convolution."""
        weight = self._tensors[f"{name}.weight"]
        self.axes[f"{name}.weight"] = (outputs, inputs, *[FIXED] * (weight.dim() - 3))
        if f"{name}.bias" in self._tensors:
            self.axes[f"{name}.bias"] = (outputs,)

    def norm(self, name: str, axis: Axis) -> None:
        """Note a normalisation, running statistics included; where there is none, nothing."""
        for tensor in self._tensors:
            if tensor.rpartition(".")[0] == name:
                self.axes[tensor] = (axis,)

    def units(self, name: str, group: str) -> Axis:
        """Number all outputs of a layer by a group of their own."""
        self.sizes[group] = self._tensors[f"{name}.weight"].shape[1]
        return (Segment(group, tuple(range(self.sizes[group]))),)

    def symmetry(self) -> Symmetry:
        """What was noted, once every tensor was."""
        return Symmetry(self.sizes, self.axes)


def _chain(network: LaneNetwork, layers: list[tuple[str, str]]) -> Symmetry:
    """Layers in a row, each (name, name of its norm), then the head."""
    tracer, axis = _Tracer(network), FIXED
    for layer, norm in layers:
        inputs, axis = axis, tracer.units(layer, layer)
        tracer.layer(layer, inputs, axis)
        tracer.norm(norm, axis)
    tracer.layer("head", axis, FIXED)
    return tracer.symmetry()


def _mlp(network: LaneNetwork) -> Symmetry:
    depth = len(network.get_submodule("hidden")._modules)
    return _chain(network, [(f"hidden.{i}", f"norms.{i}") for i in range(depth)])


def _cnn(network: LaneNetwork) -> Symmetry:
    depth = len(network.get_submodule("convs")._modules)
    return _chain(network, [(f"convs.{i}", f"norms.{i}") for i in range(depth)])


def _vgg(network: LaneNetwork) -> Symmetry:
    names = [name for name, _ in network.named_modules() if name.startswith("stages.") and name.count(".") == 2]
    return _chain(network, list(zip(names[::2], names[1::2], strict=True)))


def _resnet(network: LaneNetwork) -> Symmetry:
    """One numbering of the stream of each stage, which every block of it adds to, and one inside each block."""
    tracer = _Tracer(network)
    stream_axis = tracer.units("stem", "stem")
    tracer.layer("stem", FIXED, stream_axis)
    tracer.norm("norm", stream_axis)
    for name in (f"blocks.{i}" for i in range(len(network.get_submodule("blocks")._modules))):
        inner = tracer.units(f"{name}.conv1", f"{name}.conv1")
        outputs = _after_shortcut(tracer, network, name, stream_axis)
        tracer.layer(f"{name}.conv1", stream_axis, inner)
        tracer.norm(f"{name}.norm1", inner)
        tracer.layer(f"{name}.conv2", inner, outputs)
        tracer.norm(f"{name}.norm2", outputs)
        stream_axis = outputs
    tracer.layer("head", stream_axis, FIXED)
    return tracer.symmetry()


def _after_shortcut(tracer: _Tracer, network: LaneNetwork, name: str, stream_axis: Axis) -> Axis:
    """The stream's axis after a block."""
    shortcut, group = network.get_submodule(f"{name}.shortcut"), f"{name}.stream"
    if isinstance(shortcut, Subsample):
        before, after = shortcut.padding[4:]
        tracer.sizes[group] = before + after
        return _padded(stream_axis, group, before, shortcut.channels_in, after)
    if not list(shortcut.parameters()):
        return stream_axis
    outputs = tracer.units(f"{name}.conv2", group)
    tracer.layer(f"{name}.shortcut.0", stream_axis, outputs)
    tracer.norm(f"{name}.shortcut.1", outputs)
    return outputs


def _padded(axis: Axis, group: str, before: int, kept: int, after: int) -> Axis:
    """An axis with new channels before and after it, which are one group."""
    shifted = (Segment(segment.group, tuple(place + before for place in segment.places)) for segment in axis)
    return (*shifted, Segment(group, (*range(before), *range(before + kept, before + kept + after))))


SYMMETRIES: dict[str, Callable[[LaneNetwork], Symmetry]] = {"cnn": _cnn, "mlp": _mlp, "resnet": _resnet, "vgg": _vgg}
"""Model -> its symmetry."""


EQUIVARIANT_NORMS = ("none", "batch", "layer")
"""Normalisations that treat all units alike, so that renumbering goes through them; groups of units it would mix."""


def check_alignable(setting: Setting) -> None:
    """Hold a setting against what is known of symmetries.

    Raises:
        BadInput: That of its model isn't known, or its normalisation has none.
    """
    if setting.model not in SYMMETRIES:
        known = ", ".join(sorted(SYMMETRIES))
        raise BadInput(
            f"chaos.alignment must go with a model whose symmetry is known ({known}), got model '{setting.model}'"
        )
    if setting.norm_layer not in EQUIVARIANT_NORMS:
        raise BadInput(
            f"chaos.alignment must go with a norm_layer that treats all units alike ({', '.join(EQUIVARIANT_NORMS)}), "
            f"got '{setting.norm_layer}'"
        )


def symmetry_of(setting: Setting, network: LaneNetwork) -> Symmetry:
    """Find what of a network can be renumbered.

    Args:
        setting: What it is.
        network: The network, of any number of lanes.

    Returns:
        Its symmetry.

    Raises:
        BadInput: As `check_alignable`.
    """
    check_alignable(setting)
    return SYMMETRIES[setting.model](network)


def permuted(state: LaneState, symmetry: Symmetry, permutations: Permutations) -> LaneState:
    """Renumber the units of all lanes; what they compute stays the same.

    Args:
        state: Lanes, whose parameters, buffers and optimiser state are renumbered together.
        symmetry: Of their architecture.
        permutations: One for every group.

    Returns:
        The renumbered lanes.
    """
    return LaneState(
        {name: _renumbered(value, symmetry.axes[name], permutations) for name, value in state.parameters.items()},
        {name: _renumbered(value, symmetry.axes[name], permutations) for name, value in state.buffers.items()},
        {
            (name, quantity): _renumbered(value, symmetry.axes[name], permutations)
            for (name, quantity), value in state.optimizer.items()
        },
    )


def _renumbered(tensor: Tensor, axes: tuple[Axis, ...], permutations: Permutations, but: int = -1) -> Tensor:
    """Renumber the axes of a tensor with a lane axis, but for one; groups without a permutation stay."""
    for dim, axis in enumerate(axes):
        if axis == FIXED or dim == but:
            continue
        index = torch.arange(tensor.shape[dim + 1])
        for segment in axis:
            if segment.group in permutations:
                places = torch.tensor(segment.places)
                index[places] = places[permutations[segment.group]]
        tensor = tensor.index_select(dim + 1, index.to(tensor.device))
    return tensor


def match(reference: Parameters, child: Parameters, symmetry: Symmetry, *, seed: int) -> Permutations:
    """Find the renumbering of a child that has the greatest inner product with its reference (algorithm 1).

    Coordinate descent: group by group, in random order, the best numbering while all others are kept is a linear
    assignment, until none changes. It ends in a local optimum that depends on where it begins. Two beginnings are
    tried, and the better end kept: as the child is numbered, which is right for one that never left its reference's
    basin; and one pass from the inputs on, each group matched by the weights towards groups that have been, which
    finds a reference that was merely renumbered, exactly.

    Args:
        reference: Parameters of one lane; finite.
        child: Parameters of one lane; finite.
        symmetry: Of their architecture.
        seed: Replicate number, of which the order of groups is drawn.

    Returns:
        One permutation per group.
    """
    pair = [{name: value.detach().cpu().double() for name, value in side.items()} for side in (reference, child)]
    ends = [
        _descend(pair[0], pair[1], symmetry, start, seed)
        for start in (_identity(symmetry), _from_the_inputs(pair[0], pair[1], symmetry))
    ]
    return max(ends, key=lambda end: _inner_product(pair[0], pair[1], symmetry, end))


def align(state: LaneState, lane: int, symmetry: Symmetry, *, seed: int) -> LaneState:
    """Put lane 0 of a state beside another lane that is renumbered to match it.

    Args:
        state: The reference, then its children.
        lane: The child; finite, as its reference.
        symmetry: Of their architecture.
        seed: Replicate number.

    Returns:
        Two lanes: the reference and the renumbered child.
    """
    reference, child = lanes.fork(state), lanes.fork(state, lane)
    found = match(reference.parameters, child.parameters, symmetry, seed=seed)
    return lanes.stack([reference, permuted(child, symmetry, found)])


def _identity(symmetry: Symmetry) -> Permutations:
    return {group: torch.arange(size) for group, size in symmetry.sizes.items()}


def _from_the_inputs(reference: Parameters, child: Parameters, symmetry: Symmetry) -> Permutations:
    """Match group after group from the inputs on, by tensors that no group still to be matched has a part in."""
    found: Permutations = {}
    for group in symmetry.sizes:
        known = {*found, group}
        settled = {
            name: axes
            for name, axes in symmetry.axes.items()
            if all(segment.group in known for axis in axes for segment in axis)
        }
        gains = _gains(reference, child, Symmetry(symmetry.sizes, settled), found, group)
        found[group] = _assignment(gains)
    return found


def _descend(
    reference: Parameters, child: Parameters, symmetry: Symmetry, start: Permutations, seed: int
) -> Permutations:
    """Improve one group at a time until a whole round changes nothing."""
    generator, found, has_improved = stream(seed, "alignment"), dict(start), True
    groups = list(symmetry.sizes)
    # An improvement by less than rounding is none; without a margin the descent could turn in circles.
    margin = 1e-12 * sum(float(value.square().sum()) for value in reference.values())
    while has_improved:
        has_improved = False
        for i in torch.randperm(len(groups), generator=generator).tolist():
            gains = _gains(reference, child, symmetry, found, groups[i])
            better, rows = _assignment(gains), torch.arange(len(gains))
            if float(gains[rows, better].sum() - gains[rows, found[groups[i]]].sum()) > margin:
                found[groups[i]], has_improved = better, True
    return found


def _gains(reference: Parameters, child: Parameters, symmetry: Symmetry, found: Permutations, group: str) -> Tensor:
    """What it gains to fill place i from place j of a group, [n, n]: products of all weights of both units."""
    gains = torch.zeros(symmetry.sizes[group], symmetry.sizes[group], dtype=torch.float64)
    for name, axes in symmetry.axes.items():
        for dim, axis in enumerate(axes if name in reference else ()):
            for segment in axis:
                if segment.group == group:
                    places = torch.tensor(segment.places)
                    others = _renumbered(child[name], axes, found, but=dim)
                    ours, theirs = (
                        value.index_select(dim + 1, places).transpose(0, dim + 1) for value in (reference[name], others)
                    )
                    gains += ours.flatten(1) @ theirs.flatten(1).T
    return gains


def _assignment(gains: Tensor) -> Tensor:
    return torch.as_tensor(linear_sum_assignment(gains.numpy(), maximize=True)[1])


def _inner_product(reference: Parameters, child: Parameters, symmetry: Symmetry, found: Permutations) -> float:
    return sum(
        float((value * _renumbered(child[name], symmetry.axes[name], found)).sum()) for name, value in reference.items()
    )
