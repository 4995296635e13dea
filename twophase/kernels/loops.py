"""Loops over small pieces of a kernel, compiled. Letters as in `blocks`, and S the positions of a second input."""

from typing import no_type_check

import numpy as np

from twophase.compiled import compiled

VECTOR = 16
"""Inputs that a processor takes at once, at the most; a last vector begun is finished, as its rest costs more alone."""


@compiled
@no_type_check
def write_channelwise(features, x, gamma, has_weight, has_bias):
    """Write gradients of layers with one feature and one output per group, in one pass over γ.

    Args:
        features: [n, R, parameters], changed in place: Σ_t γ_ngt x_ngt for weights, then Σ_t γ_ngt for biases.
        x: [n, G, T].
        gamma: [n, R, G, T].
        has_weight: Whether there are weights.
        has_bias: Whether there are biases.
    """
    num, rows, groups, positions = gamma.shape
    offset = groups if has_weight else 0
    for n in range(num):
        for r in range(rows):
            for g in range(groups):
                seen, by = x[n, g], gamma[n, r, g]
                along, total = gamma.dtype.type(0), gamma.dtype.type(0)
                for t in range(positions):
                    along += by[t] * seen[t]
                    total += by[t]
                if has_weight:
                    features[n, r, g] = along
                if has_bias:
                    features[n, r, offset + g] = total


@compiled
@no_type_check
def _add_block(rows, block, last):
    """Add [R, R, m] to [R, m·R]."""
    for r in range(len(block)):
        out = rows[r]
        for m in range(last):
            for q in range(len(block)):
                out[m * len(block) + q] += block[r, q, m]


@compiled
@no_type_check
def add_pairs(kernel, shared, left, right, ahead):
    """Add a layer's block by pairs of inputs: Σ_ots γ_not γ_mos shared_nst to the rows of n and the columns of m.

    Input after input is held against all others at a time, along whose axis, the last, the processor works: products of
    matrices of so few positions took longer to call than to compute.

    Args:
        kernel: [n·R, m·R], changed in place.
        shared: Σ_k x_nkt x_mks, [n, S, T, m].
        left: γ of the n inputs, [n, R, O, T].
        right: γ of the m inputs, [R, O, S, m].
        ahead: The first of n takes so many of m, each after it one more; what lies beyond, of nobody's interest, may
            be added or not. As many as m for all of all.
    """
    num, rows, outputs, positions = left.shape
    others, many = right.shape[2], right.shape[3]
    zero, half = left.dtype.type(0), (outputs + 1) // 2
    block = np.empty((rows, rows, many), left.dtype)
    moved, also = np.empty(many, left.dtype), np.empty(many, left.dtype)
    for n in range(num):
        last = min(many, (ahead + n + VECTOR - 1) // VECTOR * VECTOR)
        for r in range(rows):
            block[r, :, :last] = zero
            # Two outputs at a time, as what is read and written for them is the same; of an odd number one is 0.
            for o in range(half):
                other, share = min(half + o, outputs - 1), left.dtype.type(half + o < outputs)
                for s in range(others):
                    factor, second, row = left[n, r, o, 0], share * left[n, r, other, 0], shared[n, s, 0]
                    for m in range(last):
                        moved[m] = factor * row[m]
                        also[m] = second * row[m]
                    for t in range(1, positions):
                        factor, second, row = left[n, r, o, t], share * left[n, r, other, t], shared[n, s, t]
                        for m in range(last):
                            moved[m] += factor * row[m]
                            also[m] += second * row[m]
                    for q in range(rows):
                        to, by, beside = block[r, q], right[q, o, s], right[q, other, s]
                        for m in range(last):
                            to[m] += moved[m] * by[m] + also[m] * beside[m]
        _add_block(kernel[n * rows : (n + 1) * rows], block, last)
