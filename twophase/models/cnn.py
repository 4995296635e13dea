"""Plain convolutional network, on one- or two-dimensional inputs."""

from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.layers import LaneConv, LaneDropout, LaneLinear, conv_norm, normed
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
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.activation(normed(conv, norm, x))
        logits: Tensor = self.head(self.dropout(pooled_lanes(x, self.num_lanes), self.num_lanes))
        return logits


ARCHITECTURE = Architecture(
    CNN,
    defaults={"depth": 8, "width": 16, "activation": "relu", "norm_layer": "batch", "init": "he", "dropout": 0.0},
    ranges={"depth": range(1, 257), "width": range(1, 4097)},
    is_convolutional=True,
)
