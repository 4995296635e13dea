"""Layers of K networks at once: every parameter and buffer has a leading lane axis.

Shapes: K lanes, B examples of a minibatch, C channels or features, H × W positions (H = 1 in one dimension).
Dense layers work on [K, B, C]; convolutional ones on [B, K·C, H, W], lanes as groups of channels, or on
[K, C, H, W, B], examples last (`LaneNetwork.is_examples_last` chooses). Memory is contiguous in that order, not
channels-last: there the blocks of a vectorised loop straddle lanes, and equal lanes round differently.
A layer reads K from its parameters, so one definition serves any number of lanes.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from twophase.models.examples_last import NORM_EPS, convolve, normalise
from twophase.seeding import stream


@dataclass(frozen=True)
class Draw:
    """How a tensor is drawn at step 0: from U(±bound) where there is a bound, else from N(mean, sigma²).

    Attributes:
        mean: Mean of the normal distribution.
        sigma: Its standard deviation; 0 makes a constant.
        bound: Ends of the uniform distribution.
    """

    mean: float = 0.0
    sigma: float = 0.0
    bound: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of one entry."""
        return self.bound / math.sqrt(3.0) if self.bound else self.sigma

    def fill(self, tensor: Tensor, generator: torch.Generator) -> None:
        """Draw a tensor in place; a constant takes nothing from the stream."""
        if self.bound:
            tensor.uniform_(-self.bound, self.bound, generator=generator)
        elif self.sigma:
            tensor.normal_(self.mean, self.sigma, generator=generator)
        else:
            tensor.fill_(self.mean)


class LaneLayer(nn.Module, ABC):
    """A layer with parameters of its own, one slice per lane."""

    @abstractmethod
    def draws(self, init: str) -> dict[str, Draw]:
        """Tell how its parameters are drawn, by their names in the layer, in the order in which they are.

        Args:
            init: ``he``: weights N(0, 2/fan_in) (He et al. 2015), biases 0. ``torch``: both U(±1/√fan_in), as torch
                does by default.
        """

    def reset(self, init: str, generator: torch.Generator) -> None:
        """Draw the parameters of a single lane.

        Args:
            init: Name of the scheme; see `draws`.
            generator: CPU stream that the draws come from.
        """
        with torch.no_grad():
            for name, draw in self.draws(init).items():
                draw.fill(self.get_parameter(name), generator)


class LaneWeights(LaneLayer):
    """A linear map per lane: weight [K, out, in, ...]; bias [K, out], or none.

    Attributes:
        is_normed: Whether its output goes straight into a normalisation, which takes out any positive factor of weight
            and bias together (under batch normalisation, of every output channel by itself, and the bias as well).
    """

    def __init__(self, weight_shape: tuple[int, ...], *, is_normed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, *weight_shape))
        self.is_normed = is_normed

    @property
    def fan_in(self) -> int:
        """Inputs that one output is a sum of."""
        return self.weight[0, 0].numel()

    def draws(self, init: str) -> dict[str, Draw]:
        """Weight, then bias."""
        if init == "torch":
            weight = bias = Draw(bound=1.0 / math.sqrt(self.fan_in))
        else:
            weight, bias = Draw(sigma=math.sqrt(2.0 / self.fan_in)), Draw()
        own = {"weight": weight, "bias": bias}
        return {name: own[name] for name, _ in self.named_parameters(recurse=False)}


class LaneLinear(LaneWeights):
    """Dense layer y_k = x_k W_kᵀ + b_k: weight [K, out, in], bias [K, out]."""

    def __init__(self, fan_in: int, fan_out: int, *, is_normed: bool = False) -> None:
        super().__init__((fan_out, fan_in), is_normed=is_normed)
        self.bias = nn.Parameter(torch.empty(1, fan_out))

    def forward(self, x: Float[Tensor, "K B in"]) -> Float[Tensor, "K B out"]:
        """Apply every lane's own map to its own features.

        Features lie in memory before examples: so the weight's gradient comes out as the weight lies, and isn't copied.
        """
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x.transpose(1, 2)).transpose(1, 2)


class LaneConv(LaneWeights):
    """Convolution with 'same' padding: weight [K, out, in, h, w]; bias [K, out], none before a normalisation.

    In one dimension h = 1. Lanes are the groups of one grouped convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int], *, is_normed: bool
    ) -> None:
        super().__init__((channels_out, channels_in, *kernel), is_normed=is_normed)
        self.bias = None if is_normed else nn.Parameter(torch.empty(1, channels_out))
        self.stride = stride
        self.padding = (kernel[0] // 2, kernel[1] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, K·in, H, W], or a minibatch [B, in, H, W] that all lanes share; or the same examples last."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with other weights and biases, of the layer's own shapes."""
        num_lanes, channels_out, channels_in = weight.shape[:3]
        if x.dim() == 5:
            y = convolve(x.squeeze(2), weight.squeeze(3), self.stride[1]).unsqueeze(2)
            return y if bias is None else y + bias.view(num_lanes, channels_out, 1, 1, 1)
        # On a shared minibatch the lanes are just more output channels of an ordinary convolution.
        groups = 1 if x.shape[1] == channels_in else num_lanes
        flat = None if bias is None else bias.flatten()
        return F.conv2d(x, weight.flatten(0, 1), flat, self.stride, self.padding, groups=groups)


class LaneNorm(LaneLayer):
    """What normalisations share: a factor and an offset per lane and channel, [K, C] each, at first the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels))
        self.bias = nn.Parameter(torch.empty(1, channels))

    def draws(self, init: str) -> dict[str, Draw]:  # noqa: ARG002 - the same for every scheme
        """The identity."""
        return {"weight": Draw(mean=1.0), "bias": Draw()}


BATCH_NORM_MOMENTUM = 0.1
SHORT = 16
"""Positions below which a channel's values are gathered first: torch's backward pass on a CPU takes those of an example
at a time, and below a vector's length one by one, thirty times as slowly."""


class LaneBatchNorm(LaneNorm):
    """Batch normalisation (Ioffe & Szegedy 2015) of K·C channels with running statistics per lane, [K, C].

    Attributes:
        momentum: Weight of the newest batch in the running statistics; 1/(i + 1) at batch i makes them cumulative
            averages.
        is_tracking: Whether training updates the running statistics; they never enter what training computes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(1, channels))
        self.register_buffer("running_var", torch.ones(1, channels))
        self.momentum = BATCH_NORM_MOMENTUM
        self.is_tracking = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, K·C, H, W], [K, C, H, W, B] or [K, B, C]."""
        if x.dim() == 5:
            return self._normalise(x.view(1, x.shape[0] * x.shape[1], -1)).view(x.shape)
        if x.dim() == 4:
            # Of single positions that is a view, also on the way back, channels innermost: lanes straddle vectors.
            return self._normalise_short(x) if 1 < x[0, 0].numel() < SHORT else self._normalise(x)
        # Every channel's batch lies contiguous, so that no lane's sums depend on where among the others it stands.
        num_lanes, batch, channels = x.shape
        rows = x.transpose(1, 2).reshape(1, num_lanes * channels, batch)
        return self._normalise(rows).view(num_lanes, channels, batch).transpose(1, 2)

    def _normalise_short(self, x: Float[Tensor, "B KC H W"]) -> Float[Tensor, "B KC H W"]:
        batch, channels, *positions = x.shape
        rows = x.transpose(0, 1).reshape(1, channels, -1)
        return self._normalise(rows).view(channels, batch, *positions).transpose(0, 1).contiguous()

    def _normalise(self, x: Tensor) -> Tensor:
        if self._is_lean(x):
            normed, mean, variance = normalise(x, self.weight.flatten(), self.bias.flatten())
            self.track(mean, variance, x.shape[2])
            return normed
        is_needed = self.is_tracking or not self.training
        return F.batch_norm(
            x,
            self.running_mean.view(-1) if is_needed else None,
            self.running_var.view(-1) if is_needed else None,
            self.weight.flatten(),
            self.bias.flatten(),
            training=self.training,
            momentum=self.momentum,
            eps=NORM_EPS,
        )

    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Take a batch's moments into the running statistics.

        Args:
            mean: Of each lane's channels, [K, C] or flat.
            variance: Likewise, biased.
            count: Values that they were taken of.
        """
        unbiased = variance * (count / (count - 1))
        for running, newest in ((self.running_mean, mean), (self.running_var, unbiased)):
            # Not by `lerp_`, which makes a difference of infinities of a variance beyond the range.
            running.mul_(1.0 - self.momentum).add_(newest.view_as(running), alpha=self.momentum)

    def _is_lean(self, x: Tensor) -> bool:
        """Tell whether rows [1, K·C, N] are trained on by lanes together, as gradients alone need it."""
        is_plain = self.training and self.is_tracking and x.dim() == 3 and x.shape[2] > 1
        return is_plain and len(self.weight) > 1 and x.device.type == "cpu" and x.dtype == self.weight.dtype


def normed(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolve and normalise: in evaluation of many lanes by one convolution, for batch norm is linear there."""
    is_linear = not norm.training and not torch.is_grad_enabled()
    if is_linear and isinstance(conv, LaneConv) and isinstance(norm, LaneBatchNorm) and len(conv.weight) > 1:
        weight, offset = folded(conv, norm)
        return conv.convolve(x, weight, offset)
    found: Tensor = norm(conv(x))
    return found


def folded(conv: LaneConv, norm: LaneBatchNorm) -> tuple[Float[Tensor, "K O C h w"], Float[Tensor, "K O"]]:
    """Weights and offsets of the one convolution that a convolution and its batch norm are in evaluation."""
    factor = norm.weight * torch.rsqrt(norm.running_var + NORM_EPS)
    offset = norm.bias - norm.running_mean * factor
    weight = conv.weight * factor.view(*factor.shape, 1, 1, 1)
    return weight, offset if conv.bias is None else offset + conv.bias * factor


class LaneLayerNorm(LaneNorm):
    """Layer normalisation (Ba, Kiros, Hinton 2016, arXiv:1607.06450) of the features of every row of [K, B, C]."""

    def forward(self, x: Float[Tensor, "K B C"]) -> Float[Tensor, "K B C"]:
        """Normalise each row, then apply the lane's own factors and offsets."""
        rows = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias.unsqueeze(1), rows, self.weight.unsqueeze(1))


class LaneGroupNorm(LaneNorm):
    """Group normalisation (Wu & He 2018, arXiv:1803.08494) of [B, K·C, H, W]; one group is layer normalisation."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__(channels)
        self.num_groups = num_groups

    def forward(self, x: Float[Tensor, "B KC H W"]) -> Float[Tensor, "B KC H W"]:
        """Normalise every group of channels of an example over its channels and positions."""
        # By layer normalisation of rows: torch's own group normalisation has no second derivatives in forward mode.
        rows = x.reshape(len(x), len(self.weight) * self.num_groups, -1)
        normed = F.layer_norm(rows, rows.shape[-1:]).view(x.shape)
        return torch.addcmul(self.bias.view(-1, 1, 1), normed, self.weight.view(-1, 1, 1))


def num_groups(channels: int) -> int:
    """Groups of a group normalisation: the most, up to 32, that divide the channels and hold four of them or more."""
    return max(groups for groups in range(1, 33) if channels % groups == 0 and (groups == 1 or channels // groups >= 4))


def dense_norm(kind: str, features: int) -> nn.Module:
    """Normalisation after a dense layer: ``none``, ``batch`` or ``layer``."""
    return {"none": lambda _: nn.Identity(), "batch": LaneBatchNorm, "layer": LaneLayerNorm}[kind](features)


def conv_norm(kind: str, channels: int) -> nn.Module:
    """Normalisation after a convolution: ``none``, ``batch``, ``group``, or ``layer``, which is a single group."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return LaneBatchNorm(channels)
    return LaneGroupNorm(channels, num_groups(channels) if kind == "group" else 1)


class LaneDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with one mask for all lanes, so that it drives no two of them apart.

    Attributes:
        noise: Seed, step and number of the layer, which the mask is drawn from; None switches dropout off.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction
        self.noise: tuple[int, int, int] | None = None

    def forward(self, x: Tensor, num_lanes: int) -> Tensor:
        """Set a share of the values of [K, B, C], [B, K·C, H, W] or [K, C, H, W, B] to 0, others over what is left."""
        if self.noise is None or not self.training or not self.fraction:
            return x
        if x.dim() == 3:
            return x * self._mask(x.shape[1:], x, *self.noise)
        if x.dim() == 5:
            # The same mask, whatever the layout.
            return x * self._mask((x.shape[4], *x.shape[1:4]), x, *self.noise).permute(1, 2, 3, 0)
        lanes = x.view(len(x), num_lanes, -1, *x.shape[2:])
        return (lanes * self._mask((len(x), 1, *lanes.shape[2:]), x, *self.noise)).view(x.shape)

    def _mask(self, shape: tuple[int, ...], like: Tensor, seed: int, step: int, number: int) -> Tensor:
        kept = torch.rand(shape, generator=stream(seed, "dropout", step, number)) >= self.fraction
        return kept.to(like) / (1.0 - self.fraction)
