"""Layers of K networks at once: every parameter and buffer has a leading lane axis.

Shapes: K lanes, B examples of a minibatch, C channels or features, H × W positions (H = 1 in one dimension).
Dense layers work on [K, B, C]; convolutional ones on [B, K·C, H, W], lanes as groups of channels. Memory is contiguous
in that order, not channels-last: there the blocks of a vectorised loop straddle lanes, and equal lanes round
differently.
A layer reads K from its parameters, so one definition serves any number of lanes.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn


class LaneLayer(nn.Module, ABC):
    """A layer with parameters of its own, one slice per lane."""

    @abstractmethod
    def reset(self, init: str, generator: torch.Generator) -> None:
        """Draw the parameters of a single lane.

        Args:
            init: ``he``: weights N(0, 2/fan_in) (He et al. 2015), biases 0. ``torch``: both U(±1/√fan_in), as torch
                does by default.
            generator: CPU stream that the draws come from.
        """


def _draw(weight: Tensor, bias: Tensor | None, fan_in: int, init: str, generator: torch.Generator) -> None:
    with torch.no_grad():
        if init == "he":
            weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
            if bias is not None:
                bias.zero_()
            return
        bound = 1.0 / math.sqrt(fan_in)
        for parameter in (weight, bias):
            if parameter is not None:
                parameter.uniform_(-bound, bound, generator=generator)


class LaneLinear(LaneLayer):
    """Dense layer y_k = x_k W_kᵀ + b_k: weight [K, out, in], bias [K, out]."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, fan_out, fan_in))
        self.bias = nn.Parameter(torch.empty(1, fan_out))

    def reset(self, init: str, generator: torch.Generator) -> None:
        """Draw weight, then bias."""
        _draw(self.weight, self.bias, self.weight.shape[2], init, generator)

    def forward(self, x: Float[Tensor, "K B in"]) -> Float[Tensor, "K B out"]:
        """Apply every lane's own map to its own features.

        Features lie in memory before examples: so the weight's gradient comes out as the weight lies, and isn't copied.
        """
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x.transpose(1, 2)).transpose(1, 2)


class LaneConv(LaneLayer):
    """Convolution with 'same' padding: weight [K, out, in, h, w], bias [K, out] where asked.

    In one dimension h = 1. Lanes are the groups of one grouped convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int], *, bias: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels_out, channels_in, *kernel))
        self.bias = nn.Parameter(torch.empty(1, channels_out)) if bias else None
        self.stride = stride
        self.padding = (kernel[0] // 2, kernel[1] // 2)

    def reset(self, init: str, generator: torch.Generator) -> None:
        """Draw weight, then bias."""
        _draw(self.weight, self.bias, self.weight[0, 0].numel(), init, generator)

    def forward(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B KC H2 W2"]:
        """Convolve [B, K·in, H, W], or a minibatch [B, in, H, W] that all lanes share."""
        num_lanes, _, channels_in = self.weight.shape[:3]
        # On a shared minibatch the lanes are just more output channels of an ordinary convolution.
        is_shared = x.shape[1] == channels_in
        weight = self.weight.flatten(0, 1)
        bias = None if self.bias is None else self.bias.flatten()
        groups = 1 if is_shared else num_lanes
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=groups)


class LaneBatchNorm(LaneLayer):
    """Batch normalisation (Ioffe & Szegedy 2015) of K·C channels with running statistics per lane, [K, C].

    Attributes:
        momentum: Weight of the newest batch in the running statistics; 1/(i + 1) at batch i makes them cumulative
            averages.
        is_tracking: Whether training updates the running statistics; they never enter what training computes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels))
        self.bias = nn.Parameter(torch.empty(1, channels))
        self.register_buffer("running_mean", torch.zeros(1, channels))
        self.register_buffer("running_var", torch.ones(1, channels))
        self.momentum = 0.1
        self.is_tracking = True

    def reset(self, init: str, generator: torch.Generator) -> None:  # noqa: ARG002 - the same for every scheme
        """Start at the identity."""
        with torch.no_grad():
            self.weight.fill_(1.0)
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, K·C, H, W] or [K, B, C]."""
        if x.dim() == 4:
            return self._normalise(x)
        # Every channel's batch lies contiguous, so that no lane's sums depend on where among the others it stands.
        num_lanes, batch, channels = x.shape
        rows = x.transpose(1, 2).reshape(1, num_lanes * channels, batch)
        return self._normalise(rows).view(num_lanes, channels, batch).transpose(1, 2)

    def _normalise(self, x: Tensor) -> Tensor:
        is_needed = self.is_tracking or not self.training
        return F.batch_norm(
            x,
            self.running_mean.view(-1) if is_needed else None,
            self.running_var.view(-1) if is_needed else None,
            self.weight.flatten(),
            self.bias.flatten(),
            training=self.training,
            momentum=self.momentum,
        )
