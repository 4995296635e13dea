"""What one layer adds to a kernel, in the cheaper of two forms.

Letters: n, m inputs; R rows per input; groups G, outputs O, features K and positions T of a layer as in `rules`. With
x, [n, G, K, T], and γ, [n, R, G, O, T], the gradients of the R rows at the layer's output,

    unfolded   Σ_gok Γ_nrgok Γ_mqgok ,   Γ_nrgok = Σ_t γ_nrgot x_ngkt ;
    pairwise   Σ_gts (Σ_o γ_nrgot γ_mqgos) (Σ_k x_ngkt x_mgks)

are the same number. The first forms every input's own gradient of the weights; the second never does, and wins where
features outnumber positions, as in dense layers and late convolutions (Jacobian contraction, and structured
derivatives, in Novak, Sohl-Dickstein, Schoenholz 2022, arXiv:2206.08720).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_ROWS = 64
"""Rows of a strip of the kernel, half as many of a small one; the upper triangle is left out strip by strip."""

SQUARE_ROWS = 256
"""Rows and columns of entries that are multiplied one by one at a time."""

TILE_COLUMNS = 1 << 14
"""Columns of one product in the gradients' precision; sums of products are in float64. A sum of all columns at once, in
float32, was wrong by 8e-5 for a ResNet-20."""

COMPILED, CALLED, FEW_POSITIONS = 5, 256, 12
"""Measured, in multiplications of a large product of matrices: one that `loops` takes; and what an element costs more
whose small products are called one by one, written, and read. With more positions than these they are large enough."""

MANY_POSITIONS, MANY_CHANNELS, WINDOW = 64, 8, 9
"""Measured: from so many positions, channels and elements of a window on, a convolution's own backward pass is quicker
than laying out what lies under its window."""

WIDE = 64
"""Inputs that `loops` takes along its last axis: what a core's cache holds."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a layer, as in its equation."""

    groups: int
    outputs: int
    features: int
    positions: int
    has_weight: bool
    has_bias: bool

    @property
    def num_parameters(self) -> int:
        """Elements of W and b, as far as they are differentiated."""
        return self.groups * self.outputs * (self.features * self.has_weight + self.has_bias)

    @property
    def is_channelwise(self) -> bool:
        """Whether groups have one feature and one output each, as a normalisation's channels."""
        return self.outputs == self.features == 1

    @property
    def input_elements(self) -> int:
        """Elements of x of one input."""
        return self.groups * self.features * self.positions

    @property
    def output_elements(self) -> int:
        """Elements of y of one input."""
        return self.groups * self.outputs * self.positions


@dataclass
class Factor:
    """x and γ of some inputs: what a layer's block is made of where gradients of its weights aren't kept."""

    x: Tensor
    gamma: Tensor

    def part(self, start: int, stop: int) -> "Factor":
        """Those of some of the inputs."""
        return Factor(self.x[start:stop], self.gamma[start:stop])


def is_on_processor(device: torch.device) -> bool:
    """Whether compiled loops reach what lies on a device, and what was measured holds there."""
    return device.type == "cpu"


def is_pairwise_cheaper(sizes: Sizes, num_inputs: int, num_rows: int, *, is_compiled: bool) -> bool:
    """Compare multiplications of both forms for one layer and all pairs of inputs.

    Args:
        sizes: Of the layer.
        num_inputs: Inputs of the kernel.
        num_rows: Rows per input.
        is_compiled: Whether `loops` may be used.
    """
    rows, positions = num_inputs * num_rows, sizes.positions
    # Of products of all rows with all rows only half are formed, of gradients all.
    unfolded = rows * sizes.num_parameters * (2 * positions + rows)
    shared = num_inputs**2 * sizes.groups * sizes.features * positions**2
    if positions == 1:
        # Entries are written, multiplied and added at the memory's pace.
        return rows**2 * sizes.groups * (sizes.outputs + 40) + shared < unfolded
    is_compiled &= _is_compiled_cheaper(positions, num_rows)
    each = COMPILED * (positions + num_rows) if is_compiled else 2 * (positions + num_rows) + CALLED
    return rows * num_inputs * sizes.output_elements * each + shared < unfolded


def _is_compiled_cheaper(positions: int, num_rows: int) -> bool:
    return positions <= FEW_POSITIONS and (COMPILED - 2) * (positions + num_rows) <= CALLED


def is_convolved_faster(sizes: Sizes, channels: int) -> bool:
    """Whether a convolution's own backward pass gives gradients of its weights faster than patches do: measured.

    Args:
        sizes: Of the layer.
        channels: Of its input.
    """
    per_group = channels // sizes.groups
    is_large = sizes.positions >= MANY_POSITIONS and per_group >= MANY_CHANNELS
    return sizes.has_weight and is_large and sizes.features >= WINDOW * per_group


def unfolded(x: Tensor, gamma: Tensor, sizes: Sizes) -> Tensor:
    """Every input's own gradients of the layer's parameters.

    Args:
        x: [n, G, K, T].
        gamma: [n, R, G, O, T].
        sizes: Of the layer; of groups or outputs, those at hand may be a slice.

    Returns:
        [n, R, parameters], weights first, then biases.
    """
    num, rows, groups, outputs, positions = gamma.shape
    parts = []
    if sizes.has_weight and sizes.is_channelwise:
        parts.append((gamma[:, :, :, 0] * x[:, None, :, 0]).sum(-1))
    elif sizes.has_weight:
        left = gamma.transpose(1, 2).reshape(num * groups, rows * outputs, positions)
        weights = torch.bmm(left, x.reshape(num * groups, -1, positions).mT)
        parts.append(weights.view(num, groups, rows, -1).transpose(1, 2).reshape(num, rows, -1))
    if sizes.has_bias:
        parts.append(gamma.sum(-1).flatten(2))
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def write_unfolded(features: Tensor, x: Tensor, gamma: Tensor, sizes: Sizes) -> None:
    """Write every input's own gradients where they are kept; of a single row without a copy.

    Args:
        features: [n, R, parameters], changed in place.
        x: [n, G, K, T].
        gamma: [n, R, G, O, T].
        sizes: Of the layer.
    """
    if sizes.is_channelwise and is_on_processor(gamma.device):
        from twophase.kernels.loops import write_channelwise  # noqa: PLC0415 - see twophase.compiled

        rows = (x[:, :, 0].contiguous(), gamma[:, :, :, 0].contiguous())
        write_channelwise(features.numpy(), *(side.numpy() for side in rows), sizes.has_weight, sizes.has_bias)
        return
    if gamma.shape[1] != 1 or sizes.groups != 1 or not sizes.has_weight:
        features.copy_(unfolded(x, gamma, sizes))
        return
    num_weights = sizes.outputs * sizes.features
    weights = features[:, 0, :num_weights].view(len(features), sizes.outputs, sizes.features)
    torch.bmm(gamma[:, 0, 0], x[:, 0].mT, out=weights)
    if sizes.has_bias:
        features[:, 0, num_weights:] = gamma[:, 0, 0].sum(-1)


def write_parts(features: Tensor, weights: Tensor, gamma: Tensor, sizes: Sizes) -> None:
    """Write every input's own gradients of a layer whose weights' are at hand.

    Args:
        features: [n, R, parameters], changed in place.
        weights: Gradients of the weights, [n, R, weights].
        gamma: [n, R, G, O, T].
        sizes: Of the layer.
    """
    num_weights = weights.shape[2]
    features[:, :, :num_weights] = weights
    if sizes.has_bias:
        features[:, :, num_weights:] = gamma.sum(-1).flatten(2)


def add_products(kernel: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left · rightᵀ to a kernel; of left with itself, no more than the lower triangle.

    Args:
        kernel: [rows of left, rows of right], changed in place.
        left: Features, [rows, columns].
        right: Features of the same columns; `left` itself for a block on the diagonal.
    """
    tile = TILE_ROWS if len(left) > TILE_ROWS else TILE_ROWS // 2
    for start in range(0, len(left), tile):
        stop = min(start + tile, len(left))
        end = stop if right is left else len(right)
        for column in range(0, left.shape[1], TILE_COLUMNS):
            some = slice(column, column + TILE_COLUMNS)
            kernel[start:stop, :end] += left[start:stop, some] @ right[:end, some].T


def add_unfolded(kernel: Tensor, left: Factor, right: Factor, sizes: Sizes, workspace: int) -> None:
    """Add a layer's block from its own gradients, as many parameters at a time as fit the workspace.

    Args:
        kernel: [n·R, m·R], changed in place.
        left: x and γ of the n inputs.
        right: Of the m inputs; `left` itself for a block on the diagonal.
        sizes: Of the layer.
        workspace: Bytes for gradients.
    """
    axis = 2 if sizes.groups > 1 else 3
    length = left.gamma.shape[axis]
    elements = sum(side.gamma.shape[:4].numel() for side in (left, right)) * (sizes.features + 1)
    per_slice = elements // length * left.gamma.element_size()
    step = max(1, workspace // max(1, per_slice))
    for start in range(0, length, step):
        sides = []
        for side in (left,) if right is left else (left, right):
            gamma = side.gamma.narrow(axis, start, min(step, length - start))
            x = side.x.narrow(1, start, gamma.shape[2]) if axis == 2 else side.x
            sides.append(unfolded(x, gamma, sizes).flatten(0, 1))
        add_products(kernel, sides[0], sides[-1])


def add_pairwise(kernel: Tensor, left: Factor, right: Factor, sizes: Sizes, workspace: int) -> None:
    """Add a layer's block from products between positions.

    Args:
        kernel: [n·R, m·R], changed in place.
        left: x and γ of the n inputs.
        right: Of the m inputs; `left` itself for a block on the diagonal.
        sizes: Of the layer.
        workspace: Bytes for products.
    """
    rows, positions = left.gamma.shape[1], sizes.positions
    if positions > 1 and is_on_processor(kernel.device) and _is_compiled_cheaper(positions, rows):
        _add_compiled(kernel, left, right, sizes, workspace)
        return
    if positions > 1:
        _add_by_positions(kernel, left, right, sizes)
        return
    size = max(1, int((workspace / (sizes.groups * rows**2 * left.gamma.element_size())) ** 0.5))
    size = min(size, max(1, SQUARE_ROWS // rows))
    num, others = len(left.gamma), len(right.gamma)
    for start in range(0, num, size):
        stop = min(start + size, num)
        for first in range(0, stop if right is left else others, size):
            last = min(first + size, others)
            block = _by_one_position(left.part(start, stop), right.part(first, last), sizes)
            kernel[start * rows : stop * rows, first * rows : last * rows] += block


def _by_one_position(left: Factor, right: Factor, sizes: Sizes) -> Tensor:
    """⟨γ_nr, γ_mq⟩ ⟨x_n, x_m⟩, summed over groups: [n·R, m·R]."""
    num, rows, many = len(left.gamma), left.gamma.shape[1], len(right.gamma)
    a, b = (side.gamma[..., 0].permute(2, 0, 1, 3).flatten(1, 2) for side in (left, right))
    products = torch.bmm(a, b.mT).view(sizes.groups, num, rows, many, rows)
    shared = _features_shared(left.x, right.x, sizes).to(products.dtype)
    products *= shared.view(sizes.groups, num, 1, many, 1)
    return (products.sum(0) if sizes.groups > 1 else products).view(num * rows, many * rows)


def _add_by_positions(kernel: Tensor, left: Factor, right: Factor, sizes: Sizes) -> None:
    """For one m after the other: Σ_gos (Σ_t γ_nrgot ⟨x_ngt, x_mgs⟩) γ_mqgos."""
    rows = left.gamma.shape[1]
    for m in range(len(right.gamma)):
        first = m if right is left else 0
        gamma = left.gamma[first:]
        num, _, groups, outputs, positions = gamma.shape
        shared = _features_shared(left.x[first:], right.x[m : m + 1], sizes).to(gamma.dtype)
        shared = shared.view(groups, num, positions, positions).transpose(0, 1)
        if groups == 1:
            moved = torch.bmm(gamma.view(num, rows * outputs, positions), shared[:, 0])
        else:
            moved = gamma @ shared.unsqueeze(1)
        block = moved.view(num * rows, -1) @ right.gamma[m].view(rows, -1).T
        kernel[first * rows :, m * rows : (m + 1) * rows] += block


def _add_compiled(kernel: Tensor, left: Factor, right: Factor, sizes: Sizes, workspace: int) -> None:
    """Some inputs with some others at a time: Σ_gots γ_nrgot γ_mqgos ⟨x_ngt, x_mgs⟩."""
    from twophase.kernels.loops import add_pairs  # noqa: PLC0415 - see twophase.compiled

    _, rows, groups, outputs, positions = left.gamma.shape
    per_other = positions * left.gamma.element_size()
    wide = max(1, min(WIDE, workspace // (2 * rows * outputs * per_other)))
    high = max(1, workspace // (2 * wide * positions * per_other))
    for first in range(0, len(right.gamma), wide):
        others = right.part(first, first + wide)
        for begin in range(first if right is left else 0, len(left.gamma), high):
            some = left.part(begin, begin + high)
            block = kernel[begin * rows : (begin + high) * rows, first * rows : (first + wide) * rows].numpy()
            ahead = begin - first + 1 if right is left else len(others.gamma)
            for g in range(groups):
                shared = _features_shared(some.x[:, g : g + 1], others.x[:, g : g + 1], sizes).to(left.gamma.dtype)
                shared = shared.view(len(some.x), positions, len(others.x), positions).permute(0, 3, 1, 2).contiguous()
                seen_by = others.gamma[:, :, g].permute(1, 2, 3, 0).contiguous()
                add_pairs(block, shared.numpy(), some.gamma[:, :, g].numpy(), seen_by.numpy(), ahead)


def _features_shared(x: Tensor, other: Tensor, sizes: Sizes) -> Tensor:
    """⟨x_ngt, x_mgs⟩ over features, and 1 for the bias: [G, n·T, m·T]."""
    if not sizes.has_weight:
        return x.new_ones(sizes.groups, x.shape[0] * x.shape[3], other.shape[0] * other.shape[3])
    a, b = (side.permute(1, 0, 3, 2).flatten(1, 2) for side in (x, other))
    shared = torch.bmm(a, b.mT) if x.is_floating_point() else ((a == b.mT) & (a >= 0)).long()
    return shared + 1 if sizes.has_bias else shared
