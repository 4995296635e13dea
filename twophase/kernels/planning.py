"""What a module is made of, as its kernel sees it: layers with a rule, and single parameters without."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.kernels.blocks import Sizes, is_convolved_faster, is_on_processor, is_pairwise_cheaper
from twophase.kernels.recording import Call, Readings, Record, Runs, record
from twophase.kernels.rules import Reading, read

ENOUGH_INPUTS, ENOUGH_BYTES = 8, 3 << 24
"""No more inputs than these, or than these bytes hold, run through the module at a time: more aren't faster."""


FEW_ELEMENTS = 1 << 19
"""Gradients of so many elements, or fewer, are kept for one product with those of other layers, though factors of them
would take less memory; of no more than an eighth of the memory."""


@dataclass(frozen=True)
class Budget:
    """Bytes for what is held beside the kernel, and what they are for.

    Attributes:
        memory_bytes: All of them.
        item: Bytes of one element.
    """

    memory_bytes: int
    item: int

    @property
    def kept(self) -> int:
        """Half, for what is kept of gradients."""
        return self.memory_bytes // 2

    @property
    def on_way(self) -> int:
        """A quarter, for the graph and gradients on their way; what is left is for products in passing."""
        return self.memory_bytes // 4

    def num_together(self, each: int) -> int:
        """Inputs that run together, of so many bytes on their way each."""
        return min(self.on_way // max(1, each), max(ENOUGH_INPUTS, ENOUGH_BYTES // max(1, each)))


@dataclass(frozen=True)
class Layer:
    """A layer with a rule.

    Attributes:
        module: The layer.
        reading: Its rule.
        sizes: Sizes of its equation.
        shapes: Shapes of its input and output, for one of the inputs.
        is_pairwise: The form of its block.
        is_kept_unfolded: Whether its inputs' own gradients are what is kept of it.
        has_indices: Whether whole numbers stand for its features.
        weight_gradients: The rule's own way to these gradients, where it is quicker than by features.
    """

    module: nn.Module
    reading: Reading
    sizes: Sizes
    shapes: tuple[torch.Size, torch.Size]
    is_pairwise: bool
    is_kept_unfolded: bool
    has_indices: bool
    weight_gradients: Callable[[Tensor, Tensor], Tensor] | None

    @property
    def is_kept_by_row(self) -> bool:
        """Whether it is as cheap to keep one row after the other as all at once."""
        return not self.is_kept_unfolded or self.sizes.is_channelwise

    def elements(self, num_rows: int) -> int:
        """Elements kept per input of so many rows."""
        if self.is_kept_unfolded:
            return num_rows * self.sizes.num_parameters
        return num_rows * self.sizes.output_elements + self.sizes.input_elements

    @property
    def columns(self) -> int:
        """Columns of a group's features that are this layer's."""
        return self.sizes.num_parameters if self.is_kept_unfolded else 0


@dataclass(frozen=True)
class Lone:
    """A parameter that no rule answers for."""

    name: str
    columns: int

    def elements(self, num_rows: int) -> int:
        """Elements kept per input of so many rows."""
        return num_rows * self.columns


@dataclass(frozen=True)
class Plan:
    """Pieces whose blocks add up to the kernel.

    Attributes:
        layers: Layers with a rule, in the order of their calls.
        lone: Parameters without.
        logits: Of one input, [1, C].
        saved_bytes: What the graph of one input holds.
    """

    layers: tuple[Layer, ...]
    lone: tuple[Lone, ...]
    logits: Tensor
    saved_bytes: int

    def bytes_on_way(self, layers: Iterable[Layer], num_rows: int, item: int) -> int:
        """Bytes of one input while it runs and so many rows' gradients reach some of the layers."""
        return self.saved_bytes + item * (num_rows + 1) * sum(layer.sizes.output_elements for layer in layers)

    def rows_at_once(self, num_inputs: int, num_rows: int, budget: Budget) -> int:
        """Rows of a kernel that is summed over them that fit at a time, at the least one."""
        pieces: tuple[Layer | Lone, ...] = (*self.layers, *self.lone)
        one, two = (sum(piece.elements(number) for piece in pieces) for number in (1, 2))
        beyond_one = budget.kept // max(1, num_inputs * budget.item) - one
        return max(1, min(num_rows, 1 + beyond_one // max(1, two - one)))


def make_plan(
    runs: Runs, num_rows: int | None, *, is_summed: bool, memory_bytes: int, excluded: Collection[Tensor] = ()
) -> Plan:
    """Look at a module on one input alone and on the same among others: those that will be the first to run together.

    Args:
        runs: Any module from N inputs to logits [N, C], in evaluation mode, with the N inputs.
        num_rows: Rows R that are read out of an input's logits; None for all C.
        is_summed: Whether the kernel is summed over them.
        memory_bytes: Bound on gradients and activations held at a time.
        excluded: Parameters that no rule shall answer for.

    Returns:
        The plan.

    Raises:
        BadInput: The module doesn't return [N, C], or a row of it depends on other rows' inputs.
    """
    module, num_inputs = runs.module, len(runs.inputs)
    without = {id(parameter) for parameter in excluded}
    readings = {
        layer: reading
        for layer in module.modules()
        if not any(id(p) in without for p in layer._parameters.values()) and (reading := read(layer))
    }
    one = min(ENOUGH_INPUTS, num_inputs) - 1
    alone, saved_bytes = _alone(module, runs.inputs[one : one + 1], readings)
    rows = alone.logits.shape[1] if num_rows is None else num_rows
    few = min(FEW_ELEMENTS, memory_bytes // 64)
    layers = tuple(
        _layer(layer, readings[layer], call, num_inputs, rows, few, is_summed=is_summed)
        for layer, call in alone.calls.items()
    )
    plan = Plan(layers, (), alone.logits.detach(), saved_bytes)
    num_first = _num_first(plan, num_inputs, rows, memory_bytes, is_summed=is_summed)
    part = slice(0, num_first) if num_first > one else slice(max(0, one - 1), one + 1)
    together, one = runs.record(part, readings), one - part.start
    if not _is_close(together.logits[one : one + 1], alone.logits):
        raise BadInput(
            "module must compute every row from its own input alone and without chance, got another row for one input "
            "alone than for the same among others"
        )
    held = [layer for layer in layers if _is_aligned(together.calls.get(layer.module), alone.calls[layer.module], one)]
    answered = {id(p) for layer in held for p in layer.module._parameters.values()}
    used = without | {id(p) for found in (together, alone) for p in found.others}
    used |= {id(p) for found in (together, alone) for layer in found.calls for p in layer._parameters.values()}
    lone = tuple(
        Lone(name, p.numel()) for name, p in module.named_parameters() if p.requires_grad and id(p) in used - answered
    )
    return replace(plan, layers=tuple(held), lone=lone)


def _num_first(plan: Plan, num_inputs: int, num_rows: int, memory_bytes: int, *, is_summed: bool) -> int:
    """Inputs that run together first; none where not all of what is kept fits, and layers will go in groups."""
    budget = Budget(memory_bytes, torch.promote_types(plan.logits.dtype, torch.float32).itemsize)
    rows = plan.rows_at_once(num_inputs, num_rows, budget) if is_summed else num_rows
    kept = num_inputs * budget.item * sum(layer.elements(rows) for layer in plan.layers)
    num = budget.num_together(plan.bytes_on_way(plan.layers, rows, budget.item)) if kept <= budget.kept else 0
    return min(num_inputs, num)


def _layer(
    layer: nn.Module, reading: Reading, call: Call, num_inputs: int, num_rows: int, few: int, *, is_summed: bool
) -> Layer:
    x = reading.features(call.x)
    _, groups, outputs, positions = reading.outputs(torch.empty(call.output_shape, device="meta")).shape
    sizes = Sizes(groups, outputs, x.shape[2], positions, reading.has_weight, reading.has_bias)
    paired, pair_rows = (replace(sizes, outputs=num_rows * outputs), 1) if is_summed else (sizes, num_rows)
    is_near = is_on_processor(call.x.device)
    is_pairwise = is_pairwise_cheaper(paired, num_inputs, pair_rows, is_compiled=is_near)
    has_indices = not x.is_floating_point()
    is_pairwise |= has_indices
    factors = num_rows * sizes.output_elements + sizes.input_elements
    columns = num_rows * sizes.num_parameters
    is_kept_unfolded = not is_pairwise and (columns <= factors or num_inputs * columns <= few)
    is_convolved = is_kept_unfolded and is_near and is_convolved_faster(sizes, call.x.shape[1])
    own = reading.weight_gradients if is_convolved else None
    return Layer(layer, reading, sizes, call.shapes, is_pairwise, is_kept_unfolded, has_indices, own)


def _alone(module: nn.Module, example: Tensor, readings: Readings) -> tuple[Record, int]:
    """Run one input, and count the bytes that its graph holds beside the parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            found = record(module, example, readings)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        # Batch statistics of a single value, for one.
        raise BadInput(f"module must take one input alone as well, got {type(error).__name__}: {error}") from error
    return found, sum(held.values())


def _is_aligned(call: Call | None, alone: Call, one: int) -> bool:
    """Whether a row of a layer's input is what that one of the inputs leads to."""
    return call is not None and call.shapes == alone.shapes and _is_close(call.x[one : one + 1], alone.x)


def _is_close(some: Tensor, others: Tensor) -> bool:
    """Equal but for rounding, to half the digits of the greatest; what isn't finite says nothing."""
    if torch.equal(some, others):
        return True
    if not some.is_floating_point():
        return False
    apart = (some - others).abs()
    scale = others.abs().nan_to_num(0.0, 0.0, 0.0).amax() if others.numel() else apart.new_zeros(())
    return bool((apart.nan_to_num(0.0, 0.0, 0.0) <= torch.finfo(some.dtype).eps ** 0.5 * scale).all())
