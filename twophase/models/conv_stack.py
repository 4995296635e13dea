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

from twophase.models.examples_last import NORM_EPS, padded, places, sum_of_products, windows_of
from twophase.models.layers import LaneBatchNorm

Phases = tuple[Float[Tensor, "_ _ _"], ...]
"""A layer's input with zeros before and behind, [K, C, P·B]: one tensor for each position within a stride."""


@dataclass(frozen=True)
class Course:
    """How a stack is gone through.

    Attributes:
        strides: Positions from one window to the next, layer by layer.
        taps: Taps of each kernel, an odd number.
        batch: Examples B.
    """

    strides: tuple[int, ...]
    taps: int
    batch: int

    @property
    def border(self) -> int:
        """Zeros before and behind."""
        return self.taps // 2

    def places(self, layer: int) -> list[tuple[int, int]]:
        """Phase and first place of each tap's view of a layer's input, borders counted."""
        return [(phase, self.border + shift) for phase, shift in places(self.taps, self.strides[layer])]

    def seen(self, rows: Tensor, place: int, count: int) -> Float[Tensor, "_ _ N"]:
        """So many positions of padded rows [K, C, P·B]."""
        return rows.narrow(2, place * self.batch, count * self.batch)

    def room(self, layer: int, like: Tensor, rows: int, length: int) -> list[Tensor]:
        """Where a layer writes `length` positions for the one after it: [rows, P, B] per phase; the last, as it is."""
        if layer + 1 == len(self.strides):
            return [like.new_empty(rows, length, self.batch)]
        stride = self.strides[layer + 1]
        wide = windows_of(length, stride) + 2 * self.border
        return [like.new_empty(rows, wide, self.batch) for _ in range(stride)]


@cache
def _rows() -> ModuleType:
    from twophase.models import rows  # noqa: PLC0415 - takes a second, which only those pay who train such networks

    return rows


def trained_stack(
    x: Float[Tensor, "X _ L B"],
    weights: Sequence[Float[Tensor, "K _ _ n"]],
    norms: Sequence[LaneBatchNorm],
    strides: Sequence[int],
) -> Float[Tensor, "K _ _ B"]:
    """Convolve, normalise by the batch's own moments and rectify, layer after layer; running statistics follow.

    Args:
        x: Inputs of X = K lanes, or of X = 1 that all share; they get no gradient.
        weights: Kernels of each layer, all of the same odd number of taps.
        norms: What follows each of them.
        strides: Of each layer.

    Raises:
        RuntimeError: The inputs require a gradient.
    """
    if x.requires_grad:
        raise RuntimeError("inputs of a stack have no gradient here")
    course = Course(tuple(strides), weights[0].shape[3], x.shape[3])
    factors, offsets = [norm.weight for norm in norms], [norm.bias for norm in norms]
    out, *moments = _Stack.apply(x, course, *weights, *factors, *offsets)  # type: ignore[no-untyped-call]
    length = x.shape[2]
    for norm, stride, found in zip(norms, strides, moments, strict=True):
        length = windows_of(length, stride)
        # Views, as they are written to.
        running = norm.running_mean.view(-1), norm.running_var.view(-1)
        _rows().follow(*_arrays(running), found.numpy(), norm.momentum, length * course.batch)
    stacked: Tensor = out
    return stacked


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
    course = Course(tuple(strides), weights[0].shape[3], x.shape[3])
    phases, length = _split(x, course), x.shape[2]
    for layer, (weight, offset) in enumerate(zip(weights, offsets, strict=True)):
        y, _ = _convolved(phases, weight, course, layer, length)
        length, lanes = y.shape[1], weight.shape[:2]
        outs = course.room(layer, y, len(y), length)
        _rows().rectify(y.numpy(), offset.reshape(-1).numpy(), _arrays(outs))
        phases = tuple(out.view(*lanes, -1) for out in outs)
    return phases[0].view(*lanes, length, course.batch)


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
            all_moments.append(moments)
            phases = tuple(out.view(*lanes, -1) for out in outs)
        ctx.course, ctx.lengths = course, lengths
        ctx.save_for_backward(*factors, *all_moments, *kept, phases[0])
        ctx.mark_non_differentiable(*all_moments)
        return phases[0].view(*lanes, length, course.batch), *all_moments

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
            rows, windows, batch = y.shape
            border = course.border if layer else 0
            y_grad = y.new_empty(rows, windows + 2 * border, batch)
            by_row = y.new_empty(2, *factors[layer].shape)
            _rows().backward(
                _arrays(part.view(rows, -1, batch) for part in grads),
                _arrays(part.view(rows, -1, batch) for part in outs),
                y.numpy(),
                _flat(factors[layer]),
                all_moments[layer].numpy(),
                y_grad.numpy(),
                by_row.view(2, -1).numpy(),
            )
            y_grad = y_grad.view(*by_tap.shape[1:3], -1)
            found[0].insert(0, _weight_gradient(phases, course.seen(y_grad, border, windows), course, layer))
            found[1].insert(0, by_row[0])
            found[2].insert(0, by_row[1])
            if layer:
                grads, outs = _input_gradients(by_tap, y_grad, course, layer, ctx.lengths[layer]), phases
        return (None, None, *(gradient for kind in found for gradient in kind))


def _split(x: Tensor, course: Course) -> Phases:
    """The stack's input as its first layer wants it."""
    stride = course.strides[0]
    windows = windows_of(x.shape[2], stride)
    return tuple(padded(x[:, :, phase::stride], windows, course.border).flatten(2) for phase in range(stride))


def _convolved(
    phases: Phases, weight: Tensor, course: Course, layer: int, length: int
) -> tuple[Float[Tensor, "R L B"], Float[Tensor, "n K O C"]]:
    """A layer's convolution, and its weights by tap."""
    windows, by_tap = windows_of(length, course.strides[layer]), weight.movedim(3, 0).contiguous()
    seen = [course.seen(phases[phase], place, windows) for phase, place in course.places(layer)]
    return sum_of_products(by_tap.unbind(0), seen).view(-1, windows, course.batch), by_tap


def _weight_gradient(
    phases: Phases, rows: Float[Tensor, "K O N"], course: Course, layer: int
) -> Float[Tensor, "K O C n"]:
    """Products of the gradients at a layer's output with what each tap saw."""
    lanes, channels, count = rows.shape
    by_tap = rows.new_empty(course.taps, lanes, channels, phases[0].shape[1])
    for part, (phase, place) in zip(by_tap.unbind(0), course.places(layer), strict=True):
        seen = course.seen(phases[phase], place, count // course.batch)
        torch.bmm(rows, (seen if len(seen) == lanes else seen.expand(lanes, -1, -1)).mT, out=part)
    return by_tap.movedim(0, 3)


def _input_gradients(
    by_tap: Float[Tensor, "n K O C"], y_grad: Float[Tensor, "K O _"], course: Course, layer: int, length: int
) -> Phases:
    """The transpose: each phase of the input gathers from the windows that see it, by the tap that does."""
    found = []
    for phase in range(course.strides[layer]):
        positions = len(range(phase, length, course.strides[layer]))
        seen_by = [
            (factor.mT, course.seen(y_grad, 2 * course.border - place, positions))
            for factor, (at, place) in zip(by_tap.unbind(0), course.places(layer), strict=True)
            if at == phase
        ]
        if seen_by:
            found.append(sum_of_products([factor for factor, _ in seen_by], [rows for _, rows in seen_by]))
        else:
            found.append(y_grad.new_zeros(by_tap.shape[1], by_tap.shape[3], positions * course.batch))
    return tuple(found)


def _taken(tensors: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    return (next(tensors) for _ in range(count))


def _flat(tensor: Tensor) -> Any:
    return tensor.detach().reshape(-1).numpy()


def _arrays(tensors: Any) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in tensors)
