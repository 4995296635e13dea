"""Multilayer perceptron."""

from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.layers import LaneDropout, LaneLinear, dense_norm
from twophase.models.network import ACTIVATIONS, Architecture, LaneNetwork, dense_lanes


class MLP(LaneNetwork):
    """`depth` hidden layers of `width` units, then the logits."""

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
        features = 1
        for size in input_shape:
            features *= size
        self.hidden = nn.ModuleList(
            LaneLinear(features if i == 0 else width, width, is_normed=norm_layer != "none") for i in range(depth)
        )
        self.norms = nn.ModuleList(dense_norm(norm_layer, width) for _ in range(depth))
        self.dropouts = nn.ModuleList(LaneDropout(dropout) for _ in range(depth))
        self.head = LaneLinear(width, num_classes)

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Linear, norm, activation, dropout, `depth` times."""
        x = dense_lanes(inputs, self.num_lanes, is_shared=is_shared)
        for linear, norm, dropout in zip(self.hidden, self.norms, self.dropouts, strict=True):
            x = dropout(self.activation(norm(linear(x))), self.num_lanes)
        logits: Tensor = self.head(x)
        return logits


ARCHITECTURE = Architecture(
    MLP,
    defaults={"depth": 5, "width": 64, "activation": "relu", "norm_layer": "none", "init": "he", "dropout": 0.0},
    ranges={"depth": range(1, 257), "width": range(1, 16385)},
    choices={"norm_layer": ("none", "batch", "layer")},
)
