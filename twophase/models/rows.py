"""Batch normalisation and ReLU of many short rows, compiled: each row goes once through the processor's cache.

Shapes: R rows, one per lane and channel; L positions; B examples; P padded positions. Torch takes a pass over memory
for the mean, the variance, the transform, the ReLU, and the zeros that a convolution wants around; of small networks
those passes took twice as long as the products of matrices between them. No row's sums depend on where among the
others it stands.
"""

from typing import no_type_check

import numpy as np

from twophase.compiled import compiled


@compiled
@no_type_check
def _border(length, outs):
    """Zeros before the first of the windows that see so many positions, and as many behind the last."""
    return (outs[0].shape[1] - ((length - 1) // len(outs) + 1)) // 2


@compiled
@no_type_check
def _write(row, mean, factor, offset, outs, number):
    """ReLU of (row − mean) · factor + offset into every `len(outs)`-th position of each output, zeros around."""
    length, batch = row.shape
    zero, border = row.dtype.type(0), _border(length, outs)
    for phase in range(len(outs)):
        out = outs[phase][number]
        windows = (length - phase + len(outs) - 1) // len(outs)
        for place in range(border):
            out[place, :] = zero
        for place in range(border + windows, len(out)):
            out[place, :] = zero
        for window in range(windows):
            here, there = row[window * len(outs) + phase], out[border + window]
            for i in range(batch):
                value = (here[i] - mean) * factor + offset
                # A NaN isn't below 0, and passes.
                there[i] = zero if value <= zero else value


@compiled
@no_type_check
def rectify(y, offset, outs):
    """ReLU of y plus an offset per row.

    Args:
        y: [R, L, B].
        offset: [R].
        outs: One array [R, P, B] per phase of the next stride, written to; what is wider than the phase becomes zeros
            on both sides.
    """
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for number in range(len(y)):
        _write(y[number], zero, one, offset[number], outs, number)


@compiled
@no_type_check
def normalise_and_rectify(y, weight, bias, eps, outs, moments):
    """ReLU of rows normalised by their own mean and variance (Ioffe & Szegedy 2015).

    Args:
        y: [R, L, B].
        weight: [R].
        bias: [R].
        eps: Added to the variance.
        outs: One array [R, P, B] per phase of the next stride, written to; what is wider than the phase becomes zeros
            on both sides.
        moments: Mean, (biased) variance and 1/√(variance + eps) of each row, [3, R], written to.
    """
    one, zero = y.dtype.type(1), y.dtype.type(0)
    count = y.dtype.type(y.shape[1] * y.shape[2])
    for number in range(len(y)):
        row = y[number].reshape(y.shape[1] * y.shape[2])
        total = zero
        for i in range(len(row)):
            total += row[i]
        mean = total / count
        # Twice over the row, and not by the mean of squares, which cancels where the mean is large.
        squares = zero
        for i in range(len(row)):
            apart = row[i] - mean
            squares += apart * apart
        variance = squares / count
        inverse_deviation = one / np.sqrt(variance + y.dtype.type(eps))
        moments[0, number], moments[1, number], moments[2, number] = mean, variance, inverse_deviation
        _write(y[number], mean, weight[number] * inverse_deviation, bias[number], outs, number)


@compiled
@no_type_check
def follow(running_mean, running_var, moments, momentum, count):
    """Take a batch's moments into running statistics.

    Args:
        running_mean: [R], changed in place.
        running_var: [R], changed in place.
        moments: As `normalise_and_rectify` writes them.
        momentum: Weight of this batch.
        count: Values in a row.
    """
    old, new = moments.dtype.type(1.0 - momentum), moments.dtype.type(momentum)
    unbiased = moments.dtype.type(momentum * count / (count - 1.0))
    for number in range(len(running_mean)):
        # Not by a share of the difference, which of a variance beyond the range is one of infinities.
        running_mean[number] = old * running_mean[number] + new * moments[0, number]
        running_var[number] = old * running_var[number] + unbiased * moments[1, number]


@compiled
@no_type_check
def backward(grads, outs, y, weight, moments, y_grad, by_row):
    """Gradients of `normalise_and_rectify`.

    Args:
        grads: Gradient at each phase of the output, without borders, [R, windows, B] each.
        outs: The output's phases, [R, P, B] each.
        y: What was normalised, [R, L, B].
        weight: [R].
        moments: As they were written.
        y_grad: Gradient of y, [R, L or more, B], written to; what is more becomes zeros on both sides.
        by_row: Gradients of weight and bias, [2, R], written to.
    """
    length, batch = y.shape[1:]
    border, y_border = _border(length, outs), (y_grad.shape[1] - length) // 2
    zero, count = y.dtype.type(0), y.dtype.type(length * batch)
    passed = np.empty((length, batch), y.dtype)
    for number in range(len(y)):
        mean, inverse_deviation = moments[0, number], moments[2, number]
        total, along = zero, zero
        for phase in range(len(outs)):
            for window in range(grads[phase].shape[1]):
                position = window * len(outs) + phase
                out, grad = outs[phase][number, border + window], grads[phase][number, window]
                row, kept = y[number, position], passed[position]
                for i in range(batch):
                    value = zero if out[i] <= zero else grad[i]
                    kept[i] = value
                    total += value
                    along += value * (row[i] - mean)
        by_row[0, number], by_row[1, number] = along * inverse_deviation, total
        factor = weight[number] * inverse_deviation
        level, slope = total / count, along * inverse_deviation * inverse_deviation / count
        out = y_grad[number]
        for place in range(y_border):
            out[place, :] = zero
            out[y_border + length + place, :] = zero
        for position in range(length):
            row, kept, there = y[number, position], passed[position], out[y_border + position]
            for i in range(batch):
                there[i] = factor * (kept[i] - level - (row[i] - mean) * slope)
