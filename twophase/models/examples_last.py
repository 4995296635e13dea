"""One-dimensional convolution and batch normalisation of many small networks at once, examples innermost.

Shapes: K lanes, C input and O output channels, L positions, n taps of a kernel, B examples. In [K, C, L, B] every
channel of a lane is one contiguous row: its statistics are sums along it, each tap of a convolution is one product of
matrices per lane, of rows as they lie, and no lane's arithmetic depends on where among others it stands.
Backward passes here are not differentiable again, nor do they know forward mode: for training by gradients alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NORM_EPS = 1e-5


def convolve(x: Float[Tensor, "X C L B"], weight: Float[Tensor, "K O C n"], stride: int) -> Float[Tensor, "K O L2 B"]:
    """Convolve every lane with its own weights, 'same' padding, an odd number of taps.

    Args:
        x: Inputs of X = K lanes, or of X = 1 that all share and that get no gradient.
        weight: The kernels.
        stride: Positions from one window to the next.

    Raises:
        RuntimeError: Inputs that lanes share require a gradient.
    """
    if len(x) < len(weight) and x.requires_grad:
        raise RuntimeError("inputs that lanes share have no gradient here")
    convolved: Tensor = _Convolution.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return convolved


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        num_lanes, channels_out, _, taps = weight.shape
        length, batch = x.shape[2:]
        windows = windows_of(length, stride)
        by_tap = weight.movedim(3, 0).contiguous()
        phases = [padded(x[:, :, phase::stride], windows, taps // 2) for phase in range(stride)]
        ctx.stride, ctx.length = stride, length
        ctx.save_for_backward(by_tap, *phases)
        seen = [_shifted(phases[phase], taps // 2 + shift, windows) for phase, shift in places(taps, stride)]
        return sum_of_products(by_tap.unbind(0), seen).view(num_lanes, channels_out, windows, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        by_tap, *phases = ctx.saved_tensors
        taps, num_lanes, channels_out, _ = by_tap.shape
        windows, border = grad.shape[2], taps // 2
        rows = grad.reshape(num_lanes, channels_out, -1)
        by_tap_grad = [
            torch.bmm(rows, _shifted(phases[phase], border + shift, windows).expand(num_lanes, -1, -1).mT)
            for phase, shift in places(taps, ctx.stride)
        ]
        weight_grad = torch.stack(by_tap_grad, 3)
        x_grad = _input_gradient(by_tap, grad, ctx.length, ctx.stride) if ctx.needs_input_grad[0] else None
        return x_grad, weight_grad, None


def _input_gradient(
    by_tap: Float[Tensor, "n K O C"], grad: Float[Tensor, "K O L2 B"], length: int, stride: int
) -> Float[Tensor, "K C L B"]:
    """The transpose: each phase of the input gathers from the windows that see it, by the tap that does."""
    taps, num_lanes, _, channels_in = by_tap.shape
    border, batch, seen = taps // 2, grad.shape[3], places(taps, stride)
    rows_around = padded(grad, grad.shape[2], border)

    def gathered(phase: int) -> Tensor:
        positions = len(range(phase, length, stride))
        seen_by = [(by_tap[tap].mT, shift) for tap, (at, shift) in enumerate(seen) if at == phase]
        rows = [_shifted(rows_around, border - shift, positions) for _, shift in seen_by]
        return sum_of_products([factor for factor, _ in seen_by], rows).view(num_lanes, channels_in, positions, batch)

    if stride == 1:
        return gathered(0)
    x_grad = grad.new_zeros(num_lanes, channels_in, length, batch)
    for phase in {at for at, _ in seen if at < length}:
        x_grad[:, :, phase::stride] = gathered(phase)
    return x_grad


def places(taps: int, stride: int) -> list[tuple[int, int]]:
    """Phase that each tap of window 0 looks at, and its place there: input position = place · stride + phase."""
    offsets = range(-(taps // 2), taps - taps // 2)
    return [(offset % stride, offset // stride) for offset in offsets]


def padded(x: Float[Tensor, "K C L B"], length: int, border: int) -> Float[Tensor, "K C P B"]:
    """Copy with zeros: `border` of them before, and up to `length + border` behind."""
    wide = x.new_empty(*x.shape[:2], length + 2 * border, x.shape[3])
    wide[:, :, :border].zero_()
    wide[:, :, border : border + x.shape[2]] = x
    wide[:, :, border + x.shape[2] :].zero_()
    return wide


def _shifted(padded: Float[Tensor, "K C P B"], start: int, count: int) -> Float[Tensor, "K C N"]:
    """View positions from `start` on as one row per channel."""
    return padded.narrow(2, start, count).flatten(2)


def sum_of_products(factors: Sequence[Float[Tensor, "K O C"]], rows: Sequence[Tensor]) -> Float[Tensor, "K O N"]:
    """Multiply matrices lane by lane, and add up; rows may be shared by all lanes."""
    if len(rows[0]) < len(factors[0]):
        rows = [row.expand(len(factors[0]), -1, -1) for row in rows]
    total = torch.bmm(factors[0], rows[0])
    for factor, row in zip(factors[1:], rows[1:], strict=True):
        total.baddbmm_(factor, row)
    return total


def windows_of(length: int, stride: int) -> int:
    """Windows of a 'same' convolution."""
    return (length - 1) // stride + 1


def normalise(
    x: Float[Tensor, "1 channels N"], weight: Float[Tensor, " channels"], bias: Float[Tensor, " channels"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise channels by their own mean and variance (Ioffe & Szegedy 2015), in half the time that torch takes.

    Returns:
        The normalised rows, [1, channels, N]; each channel's mean and (biased) variance, without gradient.
    """
    normed, mean, variance = _BatchNorm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return normed, mean, variance


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(2).view(-1)
        # Twice over the row, and not by the mean of squares, which cancels where the mean is large.
        apart = torch.linalg.vector_norm(x - mean.view(-1, 1), dim=2)
        variance = apart.square().view(-1) / x.shape[2]
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + NORM_EPS))
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=NORM_EPS), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        x_grad, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
            grad.contiguous(), x, weight, None, None, mean, inverse_deviation, True, NORM_EPS, [True, True, True]
        )
        return x_grad, weight_grad, bias_grad
