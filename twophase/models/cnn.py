"""Plain convolutional network, on one- or two-dimensional inputs."""

from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.conv_stack import evaluated_stack, trained_stack
from twophase.models.layers import LaneBatchNorm, LaneConv, LaneDropout, LaneLinear, conv_norm, folded, normed
from twophase.models.network import ACTIVATIONS, Architecture, LaneNetwork, image_lanes, pooled_lanes


class CNN(LaneNetwork):
    """`depth` layers of `width` channels, kernel 3; then the mean over positions, dropout and the logits.

    The first layer and every other one after it has stride 2.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: int,
        width: int,
        activation: str,
        norm_layer: str,
        dropout: float,
    ) -> None:
        super().__init__(input_shape)
        self.activation = ACTIVATIONS[activation]
        is_flat = len(input_shape) == 2
        convs = []
        for i in range(depth):
            stride = 2 - i % 2
            convs.append(
                LaneConv(
                    input_shape[0] if i == 0 else width,
                    width,
                    kernel=(1, 3) if is_flat else (3, 3),
                    stride=(1, stride) if is_flat else (stride, stride),
                    is_normed=norm_layer != "none",
                )
            )
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(conv_norm(norm_layer, width) for _ in range(depth))
        self.dropout = LaneDropout(dropout)
        self.head = LaneLinear(width, num_classes)

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Convolution, norm, activation, `depth` times; then the mean over positions."""
        x = image_lanes(inputs, is_shared=is_shared, is_examples_last=self.is_examples_last)
        x = self._stacked(x) if self._is_stack(x) else self._layer_by_layer(x)
        logits: Tensor = self.head(self.dropout(pooled_lanes(x, self.num_lanes), self.num_lanes))
        return logits

    def _layer_by_layer(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.activation(normed(conv, norm, x))
        return x

    def _is_stack(self, x: Tensor) -> bool:
        """Whether the layers can be gone through at once: examples last, and where gradients are taken, in training."""
        is_lean = x.dim() == 5 and x.shape[4] > 1 and x.dtype == self.head.weight.dtype
        return is_lean and self._is_rectified and (self.training or not torch.is_grad_enabled())

    @cached_property
    def _is_rectified(self) -> bool:
        return self.activation is F.relu and all(isinstance(norm, LaneBatchNorm) for norm in self.norms)

    def _stacked(self, x: Float[Tensor, "X _ 1 L B"]) -> Float[Tensor, "K _ 1 _ B"]:
        layers = [
            (conv, norm)
            for conv, norm in zip(self.convs, self.norms, strict=True)
            if isinstance(conv, LaneConv) and isinstance(norm, LaneBatchNorm)
        ]
        x, strides = x.squeeze(2), [conv.stride[1] for conv, _ in layers]
        if not self.training:
            both = [folded(conv, norm) for conv, norm in layers]
            weights, offsets = [weight.squeeze(3) for weight, _ in both], [offset for _, offset in both]
            return evaluated_stack(x, weights, offsets, strides).unsqueeze(2)
        weights = [conv.weight.squeeze(3) for conv, _ in layers]
        return trained_stack(x, weights, [norm for _, norm in layers], strides).unsqueeze(2)


ARCHITECTURE = Architecture(
    CNN,
    defaults={"depth": 8, "width": 16, "activation": "relu", "norm_layer": "batch", "init": "he", "dropout": 0.0},
    ranges={"depth": range(1, 257), "width": range(1, 4097)},
    is_convolutional=True,
)
