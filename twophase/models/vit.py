"""Vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), on one- or two-dimensional inputs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.models.layers import Draw, LaneDropout, LaneLayer, LaneLinear, dense_norm
from twophase.models.network import ACTIVATIONS, Activation, Architecture, LaneNetwork, Leaves

MLP_RATIO = 4
"""Units of a block's hidden layer over its width."""

POSITION_STD = 0.02


class Positions(LaneLayer):
    """A learned vector per place in the sequence, [K, T, D]."""

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, num_tokens, width))

    def draws(self, init: str) -> dict[str, Draw]:  # noqa: ARG002 - the same for every scheme
        """N(0, 0.02²), as the paper's code has it."""
        return {"weight": Draw(sigma=POSITION_STD)}

    def forward(self, x: Float[Tensor, "K BT D"]) -> Float[Tensor, "K BT D"]:
        """Add it to every example's tokens."""
        num_lanes, num_tokens, width = self.weight.shape
        return (x.reshape(num_lanes, -1, num_tokens, width) + self.weight.unsqueeze(1)).flatten(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762) among the tokens of one example."""

    def __init__(self, width: int, num_heads: int, num_tokens: int) -> None:
        super().__init__()
        self.num_heads, self.num_tokens = num_heads, num_tokens
        self.qkv = LaneLinear(width, 3 * width)
        self.out = LaneLinear(width, width)

    def forward(self, x: Float[Tensor, "K BT D"]) -> Float[Tensor, "K BT D"]:
        """softmax(Q Kᵀ / √d) V for every lane, example and head: one batch of small products of matrices."""
        num_lanes, _, width = x.shape
        size = width // self.num_heads
        parts = self.qkv(x).unflatten(2, (3, self.num_heads, size)).unflatten(1, (-1, self.num_tokens))
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5).flatten(1, 3)
        weights = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(size)
        mixed = torch.bmm(weights.softmax(-1), value).view(num_lanes, -1, self.num_heads, self.num_tokens, size)
        out: Tensor = self.out(mixed.transpose(2, 3).reshape(x.shape))
        return out


class Block(nn.Module):
    """Attention and a two-layer perceptron, each on normalised inputs and added to what it was given."""

    def __init__(
        self, width: int, num_heads: int, num_tokens: int, *, activation: Activation, norm_layer: str, dropout: float
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = dense_norm(norm_layer, width)
        self.attention = Attention(width, num_heads, num_tokens)
        self.dropout1 = LaneDropout(dropout)
        self.norm2 = dense_norm(norm_layer, width)
        self.hidden = LaneLinear(width, MLP_RATIO * width)
        self.dropout2 = LaneDropout(dropout)
        self.out = LaneLinear(MLP_RATIO * width, width)
        self.dropout3 = LaneDropout(dropout)

    def forward(self, x: Float[Tensor, "K BT D"]) -> Float[Tensor, "K BT D"]:
        """Both branches in turn."""
        num_lanes = len(x)
        x = x + self.dropout1(self.attention(self.norm1(x)), num_lanes)
        hidden = self.dropout2(self.activation(self.hidden(self.norm2(x))), num_lanes)
        total: Tensor = x + self.dropout3(self.out(hidden), num_lanes)
        return total


class ViT(LaneNetwork):
    """`depth` blocks of `width` features; then a last normalisation, the mean over tokens and the logits.

    A token is a patch of `patch_size` positions in each dimension. There is no class token: the mean does as well
    (Beyer, Zhai, Kolesnikov 2022, arXiv:2205.01580).
    """

    def __init__(  # noqa: PLR0913 - one per leaf
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: int,
        width: int,
        activation: str,
        norm_layer: str,
        patch_size: int,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__(input_shape)
        channels, *positions = input_shape
        self.patch_size = patch_size
        num_tokens = math.prod(size // patch_size for size in positions)
        self.embedding = LaneLinear(channels * patch_size ** len(positions), width)
        self.positions = Positions(num_tokens, width)
        self.dropout = LaneDropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                num_tokens,
                activation=ACTIVATIONS[activation],
                norm_layer=norm_layer,
                dropout=dropout,
            )
            for _ in range(depth)
        )
        self.norm = dense_norm(norm_layer, width)
        self.head = LaneLinear(width, num_classes)

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Embed the patches, mix them, block by block, and average."""
        num_lanes, batch = self.num_lanes, inputs.shape[0 if is_shared else 1]
        rows = self._patches(inputs if is_shared else inputs.flatten(0, 1)).flatten(0, 1)
        x = self.embedding(rows.expand(num_lanes, -1, -1) if is_shared else rows.view(num_lanes, -1, rows.shape[1]))
        x = self.dropout(self.positions(x), num_lanes)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        logits: Tensor = self.head(x.reshape(num_lanes, batch, -1, x.shape[2]).mean(2))
        return logits

    def _patches(self, images: Float[Tensor, "N channels ..."]) -> Float[Tensor, "N T features"]:
        """Cut every image into patches, row by row; the features of one are its channels' positions."""
        if images.dim() == 3:
            images = images.unsqueeze(2)
        size = self.patch_size
        height = size if len(self.input_shape) == 3 else 1
        number, channels, rows, columns = images.shape
        cut = images.view(number, channels, rows // height, height, columns // size, size)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(number, -1, channels * height * size)


def settle(leaves: Leaves, input_shape: tuple[int, ...], num_classes: int) -> Leaves:  # noqa: ARG001
    """Check that heads divide the width and patches the input."""
    width, num_heads, patch_size = (int(leaves[name]) for name in ("width", "num_heads", "patch_size"))
    if width % num_heads:
        raise BadInput(f"width of model 'vit' must be a multiple of num_heads ({num_heads}), got {width}")
    if any(size % patch_size for size in input_shape[1:]):
        shape = "×".join(map(str, input_shape[1:]))
        raise BadInput(f"patch_size of model 'vit' must divide the input's {shape} positions, got {patch_size}")
    return {}


ARCHITECTURE = Architecture(
    ViT,
    defaults={
        "depth": 4,
        "width": 64,
        "activation": "gelu",
        "norm_layer": "layer",
        "init": "torch",
        "patch_size": 4,
        "num_heads": 4,
        "dropout": 0.0,
    },
    ranges={
        "depth": range(1, 257),
        "width": range(1, 16385),
        "patch_size": range(1, 1025),
        "num_heads": range(1, 257),
    },
    choices={"norm_layer": ("none", "layer")},
    settle=settle,
)
