"""VGG for small inputs (Simonyan & Zisserman 2015, arXiv:1409.1556), with one dense layer, in 1-D or 2-D."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.layers import LaneConv, LaneDropout, LaneLinear, conv_norm, normed
from twophase.models.network import ACTIVATIONS, Architecture, LaneNetwork, image_lanes, pooled_lanes

CONVOLUTIONS: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth by name -> convolutions of each stage; the name counts the three dense layers of the original."""

CHANNELS = (1, 2, 4, 8, 8)
"""Channels of each stage, in units of the width."""


class VGG(LaneNetwork):
    """Five stages of convolutions of kernel 3 with max pooling; then the mean over positions, dropout and the logits.

    A dimension of fewer than two positions is no longer pooled, so that small inputs keep one.
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
        is_normed = norm_layer != "none"
        kernel = (1, 3) if len(input_shape) == 2 else (3, 3)
        stages, channels = [], input_shape[0]
        for factor, count in zip(CHANNELS, CONVOLUTIONS[depth], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers.append(LaneConv(channels, factor * width, kernel, (1, 1), is_normed=is_normed))
                layers.append(conv_norm(norm_layer, factor * width))
                channels = factor * width
            stages.append(nn.ModuleList(layers))
        self.stages = nn.ModuleList(stages)
        self.dropout = LaneDropout(dropout)
        self.head = LaneLinear(channels, num_classes)

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Convolution, norm, activation; pooling after each stage."""
        x = image_lanes(inputs, is_shared=is_shared, is_examples_last=self.is_examples_last)
        for stage in self.stages:
            layers = list(stage.children())
            for conv, norm in zip(layers[::2], layers[1::2], strict=True):
                x = self.activation(normed(conv, norm, x))
            window = (min(2, x.shape[2]), min(2, x.shape[3]))
            x = F.max_pool3d(x, (*window, 1)) if x.dim() == 5 else F.max_pool2d(x, window)
        logits: Tensor = self.head(self.dropout(pooled_lanes(x, self.num_lanes), self.num_lanes))
        return logits


ARCHITECTURE = Architecture(
    VGG,
    defaults={"depth": 16, "width": 64, "activation": "relu", "norm_layer": "batch", "init": "he", "dropout": 0.0},
    ranges={"depth": tuple(CONVOLUTIONS), "width": range(1, 1025)},
    is_convolutional=True,
)
