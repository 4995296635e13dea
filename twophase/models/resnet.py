"""Residual network for small inputs (He, Zhang, Ren, Sun 2016, arXiv:1512.03385, section 4.2), in 1-D or 2-D."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.layers import LaneConv, LaneDropout, LaneLinear, conv_norm, normed
from twophase.models.network import ACTIVATIONS, Activation, Architecture, LaneNetwork, image_lanes, pooled_lanes


class Block(nn.Module):
    """Two convolutions of kernel 3 beside a shortcut; where the channels double, the positions halve.

    Dropout between the convolutions (Zagoruyko & Komodakis 2016, arXiv:1605.07146).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        is_flat: bool,
        is_projected: bool,
        activation: Activation,
        norm_layer: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.activation = activation
        stride = channels_out // channels_in
        strides = (1, stride) if is_flat else (stride, stride)
        kernel = (1, 3) if is_flat else (3, 3)
        is_normed = norm_layer != "none"
        self.conv1 = LaneConv(channels_in, channels_out, kernel, strides, is_normed=is_normed)
        self.norm1 = conv_norm(norm_layer, channels_out)
        self.dropout = LaneDropout(dropout)
        self.conv2 = LaneConv(channels_out, channels_out, kernel, (1, 1), is_normed=is_normed)
        self.norm2 = conv_norm(norm_layer, channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = Subsample(channels_in, channels_out, strides)
            if is_projected:
                projection = LaneConv(channels_in, channels_out, (1, 1), strides, is_normed=is_normed)
                self.shortcut = nn.Sequential(projection, conv_norm(norm_layer, channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Activation of the sum of both branches, of [B, K·C, H, W] or [K, C, H, W, B]."""
        hidden = self.activation(normed(self.conv1, self.norm1, x))
        branch = normed(self.conv2, self.norm2, self.dropout(hidden, len(self.conv1.weight)))
        return self.activation(branch + self.shortcut(x))


class Subsample(nn.Module):
    """Option A: every other position, and zeros for the channels that are new; no parameters."""

    def __init__(self, channels_in: int, channels_out: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.channels_in, self.strides = channels_in, strides
        before = (channels_out - channels_in) // 2
        self.padding = (0, 0, 0, 0, before, channels_out - channels_in - before)

    def forward(self, x: Tensor) -> Tensor:
        """Pad every lane's own channels, half of the zeros before and half after them."""
        kept = x[:, :, :: self.strides[0], :: self.strides[1]]
        if x.dim() == 5:
            return F.pad(kept, (0, 0, *self.padding))
        lanes = kept.reshape(len(kept), -1, self.channels_in, *kept.shape[2:])
        return F.pad(lanes, self.padding).flatten(1, 2)


class ResNet(LaneNetwork):
    """A stem and three stages of `width`, twice and four times `width` channels, (depth − 2) / 6 blocks each."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: int,
        width: int,
        activation: str,
        norm_layer: str,
        shortcut: str,
        dropout: float,
    ) -> None:
        super().__init__(input_shape)
        self.activation = ACTIVATIONS[activation]
        is_flat = len(input_shape) == 2
        kernel = (1, 3) if is_flat else (3, 3)
        self.stem = LaneConv(input_shape[0], width, kernel, (1, 1), is_normed=norm_layer != "none")
        self.norm = conv_norm(norm_layer, width)
        widths = [stage * width for stage in (1, 2, 4) for _ in range((depth - 2) // 6)]
        self.blocks = nn.ModuleList(
            Block(
                before,
                after,
                is_flat=is_flat,
                is_projected=shortcut == "B",
                activation=self.activation,
                norm_layer=norm_layer,
                dropout=dropout,
            )
            for before, after in zip([width, *widths], widths, strict=False)
        )
        self.head = LaneLinear(4 * width, num_classes)

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Stem, blocks, mean over positions, head."""
        image = image_lanes(inputs, is_shared=is_shared, is_examples_last=self.is_examples_last)
        x = self.activation(normed(self.stem, self.norm, image))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(pooled_lanes(x, self.num_lanes))
        return logits


ARCHITECTURE = Architecture(
    ResNet,
    defaults={
        "depth": 20,
        "width": 16,
        "activation": "relu",
        "norm_layer": "batch",
        "init": "he",
        "shortcut": "A",
        "dropout": 0.0,
    },
    ranges={"depth": range(8, 1205, 6), "width": range(1, 1025)},
    is_convolutional=True,
)
