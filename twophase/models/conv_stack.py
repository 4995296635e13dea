"""A stack of one-dimensional convolutions with batch normalisation and ReLU, of many small networks at once.

What `twophase.models.examples_last` does layer by layer, for the whole stack in one function of autograd's: a layer
writes its output with the zeros around that the next one wants, split by the phases of its stride, and nothing is
copied in between. Shapes as there. Its backward pass isn't differentiable again either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from twophase.models.examples_last import NORM_EPS, _padded, _places, _shifted, _sum_of_products

Phases = tuple[Float[Tensor, "_ _ _ B"], ...]
"""A layer's input with zeros before and behind: one tensor for each position within a stride."""


@dataclass(frozen=True)
class Course:
    """How a stack is gone through.

    Attributes:
        strides: Positions from one window to the next, layer by layer.
        taps: Taps of each kernel, an odd number.
    """

    strides: tuple[int, ...]
    taps: int

    @property
    def border(self) -> int:
        """Zeros before and behind."""
        return self.taps // 2

    def places(self, layer: int) -> list[tuple[int, int]]:
        """Phase and first place of each tap's view of a layer's input, borders counted."""
        return [(phase, self.border + shift) for phase, shift in _places(self.taps, self.strides[layer])]

    def room(self, layer: int, like: Tensor, rows: int, length: int) -> list[Tensor]:
        """Where a layer writes `length` positions for the one after it: [rows, P, B] per phase; the last, as it is."""
        if layer + 1 == len(self.strides):
            return [like.new_empty(rows, length, like.shape[-1])]
        stride = self.strides[layer + 1]
        padded = windows_of(length, stride) + 2 * self.border
        return [like.new_empty(rows, padded, like.shape[-1]) for _ in range(stride)]


def windows_of(length: int, stride: int) -> int:
    """Windows of a 'same' convolution."""
    return (length - 1) // stride + 1


@cache
def _rows() -> ModuleType:
    from twophase.models import rows  # noqa: PLC0415 - takes a second, which only those pay who train such networks

    return rows


def trained_stack(
    x: Float[Tensor, "X _ L B"],
    weights: Sequence[Float[Tensor, "K _ _ n"]],
    scales: Sequence[tuple[Float[Tensor, "K _"], Float[Tensor, "K _"]]],
    strides: Sequence[int],
) -> tuple[Float[Tensor, "K _ _ B"], list[Float[Tensor, "2 K _"]]]:
    """Convolve, normalise by the batch's own moments and rectify, layer after layer.

    Args:
        x: Inputs of X = K lanes, or of X = 1 that all share; they get no gradient.
        weights: Kernels of each layer, all of the same odd number of taps.
        scales: Factor and offset of each normalisation.
        strides: Of each layer.

    Returns:
        The last layer's output, and of each layer the mean and the (biased) variance of its channels, without gradient.

    Raises:
        RuntimeError: The inputs require a gradient.
    """
    if x.requires_grad:
        raise RuntimeError("inputs of a stack have no gradient here")
    course = Course(tuple(strides), weights[0].shape[3])
    factors, offsets = zip(*scales, strict=True)
    out, *moments = _Stack.apply(x, course, *weights, *factors, *offsets)  # type: ignore[no-untyped-call]
    return out, [found[:2] for found in moments]


def evaluated_stack(
    x: Float[Tensor, "X _ L B"],
    weights: Sequence[Float[Tensor, "K _ _ n"]],
    offsets: Sequence[Float[Tensor, "K _"]],
    strides: Sequence[int],
) -> Float[Tensor, "K _ _ B"]:
    """Convolve, add offsets and rectify, layer after layer; without gradients.

    Args:
        x: Inputs of X = K lanes, or of X = 1 that all share.
        weights: Kernels of each layer.
        offsets: One number for each of its channels.
        strides: Of each layer.
    """
    course = Course(tuple(strides), weights[0].shape[3])
    phases, length = _split(x, course), x.shape[2]
    for layer, (weight, offset) in enumerate(zip(weights, offsets, strict=True)):
        y, _ = _convolved(phases, weight, course, layer, length)
        length, lanes = y.shape[1], weight.shape[:2]
        outs = course.room(layer, y, len(y), length)
        _rows().rectify(y.numpy(), offset.reshape(-1).numpy(), _arrays(outs))
        phases = tuple(out.view(*lanes, *out.shape[1:]) for out in outs)
    return phases[0]


class _Stack(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, course: Course, *parameters: Tensor) -> tuple[Tensor, ...]:
        depth = len(course.strides)
        weights, factors, offsets = (parameters[i * depth : (i + 1) * depth] for i in range(3))
        phases, length = _split(x, course), x.shape[2]
        lengths, kept, all_moments = [length], [], []
        for layer, weight in enumerate(weights):
            y, by_tap = _convolved(phases, weight, course, layer, length)
            kept += [by_tap, y, *phases]
            length, lanes = y.shape[1], weight.shape[:2]
            lengths.append(length)
            outs, moments = course.room(layer, y, len(y), length), y.new_empty(3, len(y))
            _rows().normalise_and_rectify(
                y.numpy(), _flat(factors[layer]), _flat(offsets[layer]), NORM_EPS, _arrays(outs), moments.numpy()
            )
            all_moments.append(moments.view(3, *lanes))
            phases = tuple(out.view(*lanes, *out.shape[1:]) for out in outs)
        ctx.course, ctx.lengths = course, lengths
        ctx.save_for_backward(*factors, *all_moments, *kept, phases[0])
        ctx.mark_non_differentiable(*all_moments)
        return phases[0], *all_moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        course, depth = ctx.course, len(ctx.course.strides)
        saved = iter(ctx.saved_tensors)
        factors, all_moments = ([next(saved) for _ in range(depth)] for _ in range(2))
        layers = [(next(saved), next(saved), tuple(_taken(saved, stride))) for stride in course.strides]
        outs: Phases = (next(saved),)
        grads: Phases = (grad.contiguous(),)
        found: list[list[Tensor]] = [[], [], []]
        for layer in reversed(range(depth)):
            by_tap, y, phases = layers[layer]
            border = course.border if layer else 0
            y_grad = y.new_empty(len(y), y.shape[1] + 2 * border, y.shape[2])
            by_row = y.new_empty(2, *factors[layer].shape)
            _rows().backward(
                _arrays(part.flatten(0, 1) for part in grads),
                _arrays(part.flatten(0, 1) for part in outs),
                y.numpy(),
                _flat(factors[layer]),
                all_moments[layer].view(3, -1).numpy(),
                y_grad.numpy(),
                by_row.view(2, -1).numpy(),
            )
            y_grad = y_grad.view(*by_tap.shape[1:3], *y_grad.shape[1:])
            found[0].insert(0, _weight_gradient(phases, y_grad, course, layer, y.shape[1]))
            found[1].insert(0, by_row[0])
            found[2].insert(0, by_row[1])
            if layer:
                grads, outs = _input_gradients(by_tap, y_grad, course, layer, ctx.lengths[layer]), phases
        return (None, None, *(gradient for kind in found for gradient in kind))


def _split(x: Tensor, course: Course) -> Phases:
    """The stack's input as its first layer wants it."""
    stride = course.strides[0]
    windows = windows_of(x.shape[2], stride)
    return tuple(_padded(x[:, :, phase::stride], windows, course.border) for phase in range(stride))


def _convolved(
    phases: Phases, weight: Tensor, course: Course, layer: int, length: int
) -> tuple[Float[Tensor, "R L B"], Float[Tensor, "n K O C"]]:
    """A layer's convolution, and its weights by tap."""
    windows, by_tap = windows_of(length, course.strides[layer]), weight.movedim(3, 0).contiguous()
    seen = (_shifted(phases[phase], place, windows) for phase, place in course.places(layer))
    y = _sum_of_products(by_tap.unbind(0), seen)
    return y.view(y.shape[0] * y.shape[1], windows, -1), by_tap


def _weight_gradient(
    phases: Phases, y_grad: Float[Tensor, "K O P B"], course: Course, layer: int, windows: int
) -> Float[Tensor, "K O C n"]:
    lanes, channels = y_grad.shape[:2]
    rows = _shifted(y_grad, (y_grad.shape[2] - windows) // 2, windows)
    by_tap = y_grad.new_empty(course.taps, lanes, channels, phases[0].shape[1])
    for tap, (phase, place) in enumerate(course.places(layer)):
        torch.bmm(rows, _shifted(phases[phase], place, windows).expand(lanes, -1, -1).mT, out=by_tap[tap])
    return by_tap.movedim(0, 3)


def _input_gradients(
    by_tap: Float[Tensor, "n K O C"], y_grad: Float[Tensor, "K O P B"], course: Course, layer: int, length: int
) -> Phases:
    """The transpose: each phase of the input gathers from the windows that see it, by the tap that does."""
    border, batch = course.border, y_grad.shape[3]
    found = []
    for phase in range(course.strides[layer]):
        positions = len(range(phase, length, course.strides[layer]))
        seen_by = [(tap, 2 * border - place) for tap, (at, place) in enumerate(course.places(layer)) if at == phase]
        shape = (by_tap.shape[1], by_tap.shape[3], positions, batch)
        if not seen_by:
            found.append(y_grad.new_zeros(shape))
            continue
        rows = (_shifted(y_grad, place, positions) for _, place in seen_by)
        found.append(_sum_of_products([by_tap[tap].mT for tap, _ in seen_by], rows).view(shape))
    return tuple(found)


def _taken(tensors: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    return (next(tensors) for _ in range(count))


def _flat(tensor: Tensor) -> Any:
    return tensor.detach().reshape(-1).numpy()


def _arrays(tensors: Any) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in tensors)
