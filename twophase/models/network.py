"""What every network of lanes has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.layers import (
    BATCH_NORM_MOMENTUM,
    Draw,
    LaneBatchNorm,
    LaneDropout,
    LaneGroupNorm,
    LaneLayer,
    LaneWeights,
)

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}
INITS = ("he", "torch")


class LaneNetwork(nn.Module, ABC):
    """K networks of one architecture; K is the length of the leading axis of its parameters.

    Attributes:
        input_shape: Shape of one input, channels first.
        is_tracking: Whether training updates running statistics; they never enter what training computes.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.is_tracking = True

    @property
    def num_lanes(self) -> int:
        """Number of networks K."""
        holder, name = self._first
        lanes: Tensor = getattr(holder, name)
        return lanes.shape[0]

    # Looked up once: a walk through all modules takes as long as a small network's layer, and each step has several.
    @cached_property
    def _first(self) -> tuple[nn.Module, str]:
        """Where the first parameter is: what holds it may hold another in its place while it is called."""
        return next((m, name) for m in self.modules() for name, _ in m.named_parameters(recurse=False))

    @cached_property
    def _dropouts(self) -> list[LaneDropout]:
        return [module for module in self.modules() if isinstance(module, LaneDropout)]

    @cached_property
    def can_have_examples_last(self) -> bool:
        """Whether its convolutions are of one dimension, and all its normalisations work on examples innermost."""
        return len(self.input_shape) == 2 and not any(isinstance(module, LaneGroupNorm) for module in self.modules())

    @property
    def is_examples_last(self) -> bool:
        """Whether convolutions work on [K, C, H, W, B]: on a CPU, in one dimension, and where gradients are all.

        There batch norm takes a third of the time. In two dimensions the columns of a convolution are nine times its
        input, and that eats it up.
        """
        holder, name = self._first
        parameter: Tensor = getattr(holder, name)
        is_lean = len(parameter) > 1 and parameter.device.type == "cpu" and self.can_have_examples_last
        return is_lean and self.is_tracking and not torch.is_autocast_enabled("cpu")

    def forward(self, inputs: Tensor) -> Float[Tensor, "K B C"]:
        """Compute the logits of every lane.

        Args:
            inputs: One minibatch for all lanes, [B, *input_shape], or one per lane, [K, B, *input_shape].

        Returns:
            Logits, [K, B, C].
        """
        return self.logits(inputs, is_shared=inputs.dim() == len(self.input_shape) + 1)

    @abstractmethod
    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Compute the logits from inputs that all lanes share, or not."""

    def reset(self, init: str, generator: torch.Generator) -> None:
        """Draw the parameters of a single lane, layer by layer in order of definition."""
        for module in self.modules():
            if isinstance(module, LaneLayer):
                module.reset(init, generator)

    def draws(self, init: str) -> dict[str, Draw]:
        """Tell how parameters are drawn, by name; those that belong to no lane layer are missing."""
        return {
            f"{layer}.{name}": draw
            for layer, module in self.named_modules()
            if isinstance(module, LaneLayer)
            for name, draw in module.draws(init).items()
        }

    def normed_layers(self) -> frozenset[str]:
        """Name the layers whose output goes straight into a normalisation, so that their weights' scale is free."""
        return frozenset(
            layer for layer, module in self.named_modules() if isinstance(module, LaneWeights) and module.is_normed
        )

    def stop_tracking(self) -> None:
        """Leave running statistics as they are from now on, in training as well."""
        self.is_tracking = False
        for norm in self._batch_norms():
            norm.is_tracking = False

    def set_noise(self, seed: int, step: int) -> None:
        """Say what the masks of dropout are drawn from: one per layer and step, whatever the number of lanes.

        A network that was never told trains without dropout, as statistics are recomputed.
        """
        for number, dropout in enumerate(self._dropouts):
            dropout.noise = (seed, step, number)

    def reset_statistics(self) -> bool:
        """Forget the running statistics of batch normalisation; tell whether there are any."""
        norms = self._batch_norms()
        for norm in norms:
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
        return bool(norms)

    def set_statistics_weight(self, weight: float | None) -> None:
        """Set the weight of the newest batch in the running statistics; None for the usual one."""
        for norm in self._batch_norms():
            norm.momentum = BATCH_NORM_MOMENTUM if weight is None else weight

    def _batch_norms(self) -> list[LaneBatchNorm]:
        return [module for module in self.modules() if isinstance(module, LaneBatchNorm)]


class OneLane(nn.Module):
    """A network of one lane as an ordinary module: N inputs to logits [N, C]."""

    def __init__(self, network: LaneNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Float[Tensor, "N C"]:
        """Drop the lane axis."""
        logits: Tensor = self.network(inputs)[0]
        return logits


def image_lanes(inputs: Tensor, *, is_shared: bool, is_examples_last: bool = False) -> Tensor:
    """Lay inputs out for convolutions; in one dimension H = 1.

    Returns:
        [B, C, H, W] when shared, else [B, K·C, H, W]; examples last, [1, C, H, W, B] or [K, C, H, W, B].
    """
    if is_examples_last:
        lanes = inputs.unsqueeze(0) if is_shared else inputs
        image = lanes.movedim(1, -1)
        return (image if image.dim() == 5 else image.unsqueeze(2)).contiguous()
    if not is_shared:
        inputs = inputs.transpose(0, 1).flatten(1, 2)
    image = inputs if inputs.dim() == 4 else inputs.unsqueeze(2)
    return image.contiguous()


def dense_lanes(inputs: Tensor, num_lanes: int, *, is_shared: bool) -> Float[Tensor, "K B features"]:
    """Lay inputs out for dense layers: one flat vector per lane and example."""
    if is_shared:
        return inputs.flatten(1).expand(num_lanes, -1, -1)
    return inputs.flatten(2)


def pooled_lanes(features: Tensor, num_lanes: int) -> Float[Tensor, "K B channels"]:
    """Average [B, K·C, H, W] or [K, C, H, W, B] over positions and hand each lane its own channels."""
    means = features.mean((2, 3))
    return means.transpose(1, 2) if features.dim() == 5 else means.view(len(features), num_lanes, -1).transpose(0, 1)


Builder = Callable[..., LaneNetwork]
Leaves = Mapping[str, str | int | float]
Settle = Callable[[Leaves, tuple[int, ...], int], Leaves]


def _as_they_are(leaves: Leaves, input_shape: tuple[int, ...], num_classes: int) -> Leaves:  # noqa: ARG001
    return {}


@dataclass(frozen=True)
class Architecture:
    """One entry of the table of models.

    Attributes:
        build: (input_shape, num_classes, and the leaves below but `init`) -> a network of one lane, not yet drawn.
        defaults: Default of each setting leaf that the model has.
        ranges: Values that would do, ascending, of its integer leaves.
        choices: Values that would do, for leaves where a model takes fewer than there are.
        settle: (leaves, input_shape, num_classes) -> leaves that follow from the others; raises `BadInput` where they
            don't go together or with the data.
        is_convolutional: Whether most of its work is convolutions, which decides the engine.
    """

    build: Builder
    defaults: Leaves
    ranges: Mapping[str, Sequence[int]]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settle: Settle = _as_they_are
    is_convolutional: bool = False
