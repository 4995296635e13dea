"""What a module is made of, as its kernel sees it: layers with a rule, and single parameters without."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.kernels.blocks import Sizes, is_pairwise_cheaper
from twophase.kernels.recording import Call, Readings, Record, record
from twophase.kernels.rules import Reading, read

PROBED = 2
"""Inputs that are run together to see what the module is made of."""


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
    """

    module: nn.Module
    reading: Reading
    sizes: Sizes
    shapes: tuple[torch.Size, torch.Size]
    is_pairwise: bool
    is_kept_unfolded: bool
    has_indices: bool

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


def make_plan(
    module: nn.Module, inputs: Tensor, num_rows: int | None, *, is_summed: bool, excluded: Collection[Tensor] = ()
) -> Plan:
    """Look at a module on a few inputs, together and alone.

    Args:
        module: Any module from N inputs to logits [N, C], in evaluation mode.
        inputs: The N inputs.
        num_rows: Rows R that are read out of an input's logits; None for all C.
        is_summed: Whether the kernel is summed over them.
        excluded: Parameters that no rule shall answer for.

    Returns:
        The plan.

    Raises:
        BadInput: The module doesn't return [N, C], or a row of it depends on other rows' inputs.
    """
    without = {id(parameter) for parameter in excluded}
    readings = {
        layer: reading
        for layer in module.modules()
        if not any(id(p) in without for p in layer._parameters.values()) and (reading := read(layer))
    }
    some = inputs[:PROBED]
    together = record(module, some, readings)
    alone, saved_bytes = _alone(module, some[-1:], readings)
    if not _is_close(together.logits[-1:], alone.logits):
        raise BadInput(
            "module must compute every row from its own input alone and without chance, got another row for one input "
            "alone than for the same among others"
        )
    held = [layer for layer, call in together.calls.items() if _is_aligned(call, alone.calls.get(layer))]
    answered = {id(p) for layer in held for p in layer.parameters()}
    used = without | {id(p) for found in (together, alone) for p in found.others}
    used |= {id(p) for found in (together, alone) for layer in found.calls for p in layer.parameters()}
    lone = tuple(
        Lone(name, p.numel()) for name, p in module.named_parameters() if p.requires_grad and id(p) in used - answered
    )
    rows = alone.logits.shape[1] if num_rows is None else num_rows
    layers = tuple(
        _layer(layer, readings[layer], alone.calls[layer], len(inputs), rows, is_summed=is_summed) for layer in held
    )
    return Plan(layers, lone, alone.logits.detach(), saved_bytes)


def _layer(layer: nn.Module, reading: Reading, call: Call, num_inputs: int, num_rows: int, *, is_summed: bool) -> Layer:
    x = reading.features(call.x)
    _, groups, outputs, positions = reading.outputs(torch.empty(call.output_shape, device="meta")).shape
    sizes = Sizes(groups, outputs, x.shape[2], positions, reading.has_weight, reading.has_bias)
    if is_summed:
        is_pairwise = is_pairwise_cheaper(replace(sizes, outputs=num_rows * outputs), num_inputs, 1)
    else:
        is_pairwise = is_pairwise_cheaper(sizes, num_inputs, num_rows)
    has_indices = not x.is_floating_point()
    is_pairwise |= has_indices
    factors = num_rows * sizes.output_elements + sizes.input_elements
    is_kept_unfolded = not is_pairwise and num_rows * sizes.num_parameters <= factors
    return Layer(layer, reading, sizes, call.shapes, is_pairwise, is_kept_unfolded, has_indices)


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


def _is_aligned(call: Call, alone: Call | None) -> bool:
    """Whether the last row of a layer's input is what the last of the inputs leads to."""
    return alone is not None and call.shapes == alone.shapes and _is_close(call.x[-1:], alone.x)


def _is_close(some: Tensor, others: Tensor) -> bool:
    """Equal but for rounding, to half the digits of the greatest; what isn't finite says nothing."""
    if not some.is_floating_point():
        return torch.equal(some, others)
    apart = (some - others).abs()
    scale = others.abs().nan_to_num(0.0, 0.0, 0.0).amax() if others.numel() else apart.new_zeros(())
    return bool((apart.nan_to_num(0.0, 0.0, 0.0) <= torch.finfo(some.dtype).eps ** 0.5 * scale).all())
