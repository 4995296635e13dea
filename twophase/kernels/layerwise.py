"""A kernel piece by piece: blocks are added to it one after the other, and the Jacobian is never held whole.

The pieces of a module, layers with a rule and parameters without, are taken in groups that fit the memory. For each
group the inputs run through the module; one backward pass per row gives the gradients at the outputs of the group's
layers, and no further down. A layer keeps its inputs' own gradients where these are the smaller and are what its block
is made of, else what they follow from.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from twophase.kernels import generic
from twophase.kernels.blocks import (
    TILE_ROWS,
    Factor,
    add_pairwise,
    add_products,
    add_unfolded,
    write_parts,
    write_unfolded,
)
from twophase.kernels.planning import Budget, Layer, Lone, Plan, make_plan
from twophase.kernels.recording import Record, Runs

CACHE_BYTES = 1 << 22
"""Patches that are laid out at a time: what a core's cache holds."""

WORKSPACE_BYTES = 1 << 25
"""Most bytes of products made in passing."""

SMALL_BYTES = 1 << 22
"""Gradients of so many bytes, or less, at the outputs of layers: calls cost more than arithmetic then."""


@dataclass(frozen=True)
class Group:
    """Pieces that are done together."""

    layers: tuple[Layer, ...] = ()
    lone: tuple[Lone, ...] = ()

    @property
    def pieces(self) -> tuple[Layer | Lone, ...]:
        """All of them."""
        return (*self.layers, *self.lone)

    def elements(self, num_rows: int) -> int:
        """Elements kept per input of so many rows."""
        return sum(piece.elements(num_rows) for piece in self.pieces)

    @property
    def columns(self) -> int:
        """Columns of its features."""
        return sum(piece.columns for piece in self.pieces)


@dataclass
class Kept:
    """What is kept of a group for some inputs: features, [n·R, columns], and factors of layers without columns."""

    features: Tensor
    factors: dict[Layer, Factor]


class _OtherwiseUsed(Exception):  # noqa: N818 - no mistake: a second look
    """Some inputs use parameters otherwise than those that the plan was made from."""

    def __init__(self, parameters: set[Tensor]) -> None:
        super().__init__()
        self.parameters = parameters


def gram(runs: Runs, readout_NRC: Tensor, plan: Plan, *, is_summed: bool, memory_bytes: int) -> Tensor:
    """Products of all rows' gradients with all rows'.

    Args:
        runs: Any module from N inputs to logits [N, C], in evaluation mode, with the N inputs.
        readout_NRC: w, in the dtype of the kernel.
        plan: Of the module, for these inputs.
        is_summed: Whether to sum over the rows of an input.
        memory_bytes: Bound on gradients and activations held at a time, the kernel itself not counted.

    Returns:
        The kernel, [N·R, N·R] or summed [N, N], exactly symmetric.
    """
    excluded: set[Tensor] = set()
    while True:
        try:
            kernel = _lower(runs, readout_NRC, plan, is_summed=is_summed, memory_bytes=memory_bytes)
            break
        except _OtherwiseUsed as found:
            excluded |= found.parameters
            plan = make_plan(
                runs, readout_NRC.shape[1], is_summed=is_summed, memory_bytes=memory_bytes, excluded=excluded
            )
    _mirror(kernel)
    return kernel.to(readout_NRC.dtype)


def _mirror(kernel: Tensor) -> None:
    """Copy the lower triangle to the upper: products of floats needn't be symmetric to the last bit."""
    for start in range(0, len(kernel), TILE_ROWS):
        strip = slice(start, start + TILE_ROWS)
        kernel[:start, strip] = kernel[strip, :start].T
        square = kernel[strip, strip]
        square.copy_(square.tril() + square.tril(-1).T)


def _lower(runs: Runs, readout_NRC: Tensor, plan: Plan, *, is_summed: bool, memory_bytes: int) -> Tensor:
    """The lower triangle, summed in float64; where rows are summed, as many at a time as fit, at the least one."""
    num, num_rows = readout_NRC.shape[:2]
    size = num if is_summed else num * num_rows
    kernel = readout_NRC.new_zeros(size, size, dtype=torch.float64)
    budget = Budget(memory_bytes, readout_NRC.element_size())
    at_once = plan.rows_at_once(num, num_rows, budget) if is_summed else num_rows
    for rows_NRC in torch.split(readout_NRC, at_once, 1):
        _Assembly(runs, rows_NRC, plan, budget, is_summed=is_summed).add_to(kernel)
    return kernel


class _Assembly:
    """One pass over the pieces of a module."""

    def __init__(self, runs: Runs, readout_NRC: Tensor, plan: Plan, budget: Budget, *, is_summed: bool) -> None:
        self._runs, self._readout, self._plan, self._budget = runs, readout_NRC, plan, budget
        self._is_summed, self._num_rows = is_summed, readout_NRC.shape[1]
        self._readings = {layer.module: layer.reading for layer in plan.layers}
        self._lone = {runs.module.get_parameter(piece.name) for piece in plan.lone}
        self._workspace = min(WORKSPACE_BYTES, budget.memory_bytes // 8)
        self._gradients: dict[tuple[Lone, ...], generic.Gradients] = {}
        self._buffers: dict[Layer, Tensor] = {}

    def add_to(self, kernel: Tensor) -> None:
        """Add all blocks to the lower triangle of a kernel."""
        pieces = [Group(layers=(layer,)) for layer in reversed(self._plan.layers)]
        pieces += [Group(lone=(piece,)) for piece in self._plan.lone]
        if not pieces:
            return
        rows = 1 if self._is_summed else self._num_rows
        largest = max(piece.elements(self._num_rows) for piece in pieces) * self._budget.item
        num = len(self._readout)
        blocks = list(
            _slices(slice(0, num), num if num * largest <= self._budget.kept else self._budget.kept // (2 * largest))
        )
        groups = list(self._grouped(pieces, num if len(blocks) == 1 else 2 * blocks[0].stop))
        for i, some in enumerate(blocks):
            for others in blocks[: i + 1]:
                part = kernel[some.start * rows : some.stop * rows, others.start * rows : others.stop * rows]
                for group in groups:
                    left = self._keep(group, some)
                    right = left if others is some else self._keep(group, others)
                    self._add(part, group, left, right)

    def _grouped(self, pieces: Sequence[Group], num_inputs: int) -> Iterator[Group]:
        """Put pieces together as long as they fit."""
        most = self._budget.kept // (num_inputs * self._budget.item)
        group = Group()
        for piece in pieces:
            joined = Group(group.layers + piece.layers, group.lone + piece.lone)
            if (group.layers or group.lone) and joined.elements(self._num_rows) > most:
                yield group
                joined = piece
            group = joined
        yield group

    def _keep(self, group: Group, some: slice) -> Kept:
        """Run some inputs through the module, and keep what the group's blocks are made of."""
        num, rows = some.stop - some.start, self._num_rows
        features = self._readout.new_empty(num, rows, group.columns)
        kept = Kept(features.view(num, -1) if self._is_summed else features.view(num * rows, -1), {})
        for layer in group.layers:
            if not layer.is_kept_unfolded:
                kept.factors[layer] = self._empty_factor(layer, num)
        on_way = self._plan.bytes_on_way(group.layers, rows, self._budget.item)
        if group.layers:
            for part in _slices(some, self._budget.num_together(on_way)):
                here = slice(part.start - some.start, part.stop - some.start)
                self._keep_layers(group, part, features[here], kept, here)
            self._buffers.clear()
        if group.lone:
            column = sum(layer.columns for layer in group.layers)
            on_way = rows * (self._plan.saved_bytes + self._budget.item * (group.columns - column))
            for part in _slices(some, self._budget.num_together(on_way)):
                here = slice(part.start - some.start, part.stop - some.start)
                features[here, :, column:] = self._lone_gradients(group.lone)(
                    self._runs.inputs[part], self._readout[part]
                )
        return kept

    def _empty_factor(self, layer: Layer, num: int) -> Factor:
        sizes, rows = layer.sizes, self._num_rows
        outputs = (1, sizes.groups, rows * sizes.outputs) if self._is_summed else (rows, sizes.groups, sizes.outputs)
        dtype = torch.long if layer.has_indices else self._readout.dtype
        return Factor(
            self._readout.new_empty(num, sizes.groups, sizes.features, sizes.positions, dtype=dtype),
            self._readout.new_empty(num, *outputs, sizes.positions),
        )

    def _keep_layers(self, group: Group, part: slice, features: Tensor, kept: Kept, here: slice) -> None:
        """Take gradients at the outputs of the group's layers for one part of the inputs."""
        found = self._record(part)
        ends = list(itertools.accumulate(layer.columns for layer in group.layers))
        own = {layer: features[..., end - layer.columns : end] for layer, end in zip(group.layers, ends, strict=True)}
        seen: dict[Layer, Tensor] = {}
        unreached = dict.fromkeys(group.layers)
        for rows, gammas in self._output_gradients(found, group.layers, self._readout[part]):
            while gammas:  # each is let go when it is done with
                layer, gamma = gammas.popitem()
                unreached.pop(layer, None)
                x = found.calls[layer.module].x
                if layer.is_kept_unfolded:
                    self._unfold(layer, x, gamma, own[layer][:, rows], seen)
                else:
                    self._keep_factor(kept.factors[layer], here, layer, x, gamma, rows)
        for layer in unreached:
            own[layer].zero_()
            if layer in kept.factors:
                kept.factors[layer].gamma[here] = kept.factors[layer].x[here] = 0

    def _unfold(self, layer: Layer, x: Tensor, gamma: Tensor, features: Tensor, seen: dict[Layer, Tensor]) -> None:
        """Write every input's own gradients of a layer for some rows, some inputs at a time where patches are made."""
        read, sizes = layer.reading.features, layer.sizes
        if layer.weight_gradients is not None:
            write_parts(features, layer.weight_gradients(x.to(gamma.dtype), gamma), gamma, sizes)
        elif sizes.is_channelwise:
            if layer not in seen:
                seen[layer] = read(x).to(gamma.dtype)
            write_unfolded(features, seen[layer], gamma, sizes)
        else:
            step = CACHE_BYTES // max(1, sizes.input_elements * self._budget.item)
            for few in _slices(slice(0, len(features)), step):
                write_unfolded(features[few], read(x[few]).to(gamma.dtype), gamma[few], sizes)

    def _keep_factor(self, factor: Factor, here: slice, layer: Layer, x: Tensor, gamma: Tensor, rows: slice) -> None:
        """Write what a layer's block is made of, for some inputs and rows."""
        if rows.start == 0:
            factor.x[here] = layer.reading.features(x)
        kept = factor.gamma[here]
        if self._is_summed:  # rows count as outputs then
            by_row = kept.view(len(kept), layer.sizes.groups, self._num_rows, layer.sizes.outputs, -1)
            by_row[:, :, rows] = gamma.transpose(1, 2)
        else:
            kept[:, rows] = gamma

    def _output_gradients(
        self, found: Record, layers: Sequence[Layer], readout_NRC: Tensor
    ) -> Iterator[tuple[slice, dict[Layer, Tensor]]]:
        """One backward pass per row: some rows' gradients at layers' outputs, [n, r, G, O, T], where there are any."""
        num, rows = readout_NRC.shape[:2]
        called = [layer for layer in layers if layer.module in found.calls]
        edges = [found.calls[layer.module].edge for layer in called]
        if not edges:
            return
        weights = readout_NRC.to(found.logits.dtype).transpose(0, 1)
        per_row = num * sum(layer.sizes.output_elements for layer in called) * self._budget.item
        is_small = rows > 1 and per_row <= SMALL_BYTES
        if is_small and (at_once := self._all_gammas(found.logits, called, edges, weights)) is not None:
            yield slice(0, rows), at_once
            return
        together: dict[Layer, Tensor] = {}
        for number in range(rows):
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                found.logits, edges, weights[number], retain_graph=True, allow_unused=True
            )
            by_row: dict[Layer, Tensor] = {}
            for layer, gradient in zip(called, gradients, strict=True):
                if gradient is None:  # whatever the row: the logits don't depend on it
                    continue
                gamma = self._gamma(layer, gradient, num)
                if rows == 1 or layer.is_kept_by_row:
                    by_row[layer] = gamma.unsqueeze(1)
                    continue
                if layer not in together:
                    together[layer] = self._buffer(layer, num, gamma)
                together[layer][:, number] = gamma
            yield slice(number, number + 1), by_row
        yield slice(0, rows), together

    def _gamma(self, layer: Layer, gradient: Tensor, num: int) -> Tensor:
        """Gradient at a layer's output, as its equation has it: [n, G, O, T]."""
        return layer.reading.outputs(layer.reading.batch_first(gradient, num)).to(self._readout.dtype)

    def _all_gammas(
        self, logits: Tensor, called: Sequence[Layer], edges: Sequence[GradientEdge], weights_RNC: Tensor
    ) -> dict[Layer, Tensor] | None:
        at_once = _all_at_once(logits, edges, weights_RNC)
        if at_once is None:
            return None
        return {
            layer: self._gammas(layer, of_rows, len(logits))
            for layer, of_rows in zip(called, at_once, strict=True)
            if of_rows is not None
        }

    def _gammas(self, layer: Layer, of_rows: Tensor, num: int) -> Tensor:
        """Gradients of all rows at a layer's output, [R, ...], as its equation has them: [n, R, G, O, T]."""
        first = of_rows[0]
        if layer.reading.batch_first(first, num) is not first:
            return torch.stack([self._gamma(layer, row, num) for row in of_rows], 1)
        gammas = layer.reading.outputs(of_rows.flatten(0, 1)).to(self._readout.dtype)
        return gammas.view(-1, num, *gammas.shape[1:]).transpose(0, 1)

    def _buffer(self, layer: Layer, num: int, gamma: Tensor) -> Tensor:
        """Room for gradients of all rows; the same for one part after another, as fresh memory costs time."""
        kept = self._buffers.get(layer)
        if kept is None or len(kept) < num:
            kept = self._buffers[layer] = gamma.new_empty(num, self._num_rows, *gamma.shape[1:])
        return kept[:num]

    def _record(self, part: slice) -> Record:
        """Run one part of the inputs, and see that it uses its parameters as planned."""
        found = self._runs.record(part, self._readings)
        strangers: set[Tensor] = {parameter for parameter in found.others if parameter not in self._lone}
        for layer in self._plan.layers:
            call = found.calls.get(layer.module)
            if call is not None and call.shapes != layer.shapes:
                strangers.update(layer.module.parameters())
        if strangers:
            raise _OtherwiseUsed(strangers)
        return found

    def _lone_gradients(self, lone: tuple[Lone, ...]) -> generic.Gradients:
        if lone not in self._gradients:
            names = [piece.name for piece in lone]
            self._gradients[lone] = generic.gradients(self._runs.module, names, self._runs.inputs[:1])
        return self._gradients[lone]

    def _add(self, kernel: Tensor, group: Group, left: Kept, right: Kept) -> None:
        """Add the blocks of a group."""
        if group.columns:
            add_products(kernel, left.features, left.features if right is left else right.features)
        for layer, factor in left.factors.items():
            form = add_pairwise if layer.is_pairwise else add_unfolded
            form(kernel, factor, factor if right is left else right.factors[layer], layer.sizes, self._workspace)


def _slices(whole: slice, size: int) -> Iterator[slice]:
    size = max(1, size)
    for start in range(whole.start, whole.stop, size):
        yield slice(start, min(start + size, whole.stop))


def _all_at_once(
    logits: Tensor, edges: Sequence[GradientEdge], weights_RNC: Tensor
) -> tuple[Tensor | None, ...] | None:
    """One backward pass for all rows: gradients at edges, [R, ...]; None where the graph has no such pass."""
    reached: list[bool] = []

    def backward(weights_NC: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(logits, edges, weights_NC, retain_graph=True, allow_unused=True)
        reached[:] = [gradient is not None for gradient in found]
        return tuple(gradient for gradient in found if gradient is not None)

    try:
        # Not by is_grads_batched, which goes through a convolution row by row.
        found = iter(torch.func.vmap(backward)(weights_RNC))
    except RuntimeError:
        # Of a user's own function that looks at values, for one; if it is at fault, it fails below too.
        return None
    return tuple(next(found) if is_reached else None for is_reached in reached)
