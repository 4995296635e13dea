"""One forward pass, watched: what goes into each layer, and which parameters a layer's rule answers for.

A rule holds for a layer that is called once, on one tensor with the inputs along its batch axis, and whose parameters
are used nowhere else. The autograd graph tells: a parameter's gradient is collected where edges lead into its node,
and all of them must start inside the layer's own call. Whatever fails is left to `generic`.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from twophase.errors import BadInput
from twophase.kernels.rules import Reading

Readings = Mapping[nn.Module, Reading]


@dataclass
class Call:
    """One call of a layer.

    Attributes:
        x: Its input, batch first, as it was then.
        version: Counter of changes in place of the input.
        source: Where the input comes from in the graph, None for data.
        edge: Where gradients of the output pass, before anything changed it in place.
        output_shape: Shape of the output, batch first.
    """

    x: Tensor
    version: int
    source: Node | None
    edge: GradientEdge
    output_shape: torch.Size

    @property
    def shapes(self) -> tuple[torch.Size, torch.Size]:
        """Shapes of one input's share of what goes in and out."""
        return self.x.shape[1:], self.output_shape[1:]

    @property
    def is_input_unchanged(self) -> bool:
        """Whether x still is what the layer saw."""
        return self.x._version == self.version


@dataclass
class Record:
    """What a forward pass left.

    Attributes:
        logits: [n, C], with their graph.
        calls: Layer -> its call, of layers whose rule holds and on whom the logits depend.
        others: Parameters that the logits depend on otherwise.
        watched: Layers that were watched.
    """

    logits: Tensor
    watched: Set[nn.Module]
    calls: dict[nn.Module, Call] = field(default_factory=dict)
    others: set[nn.Parameter] = field(default_factory=set)


class Runs:
    """Runs of a module on parts of its inputs, of which the last is kept: it may be asked for again.

    Attributes:
        module: Any module from n inputs to logits [n, C], in evaluation mode.
        inputs: All inputs, [N, ...].
    """

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        self.module, self.inputs = module, inputs
        self._last: tuple[slice, Record] | None = None

    def record(self, part: slice, readings: Readings) -> Record:
        """Run one part of the inputs, unless it was the last that ran with these readings or more.

        Args:
            part: Which inputs.
            readings: Layers that have a rule.

        Returns:
            The record, of these layers at the least.

        Raises:
            BadInput: The module doesn't return [n, C].
        """
        if self._last is not None and self._last[0] == part and readings.keys() <= self._last[1].watched:
            return self._last[1]
        self._last = None  # before the next graph is made
        found = record(self.module, self.inputs[part], readings)
        self._last = (part, found)
        return found


def record(module: nn.Module, inputs: Tensor, readings: Readings) -> Record:
    """Run a module and find out which layers' rules hold.

    Args:
        module: Any module from n inputs to logits [n, C], in evaluation mode.
        inputs: [n, ...].
        readings: Layers that have a rule.

    Returns:
        The record.

    Raises:
        BadInput: The module doesn't return [n, C].
    """
    seen: dict[nn.Module, list[Call | None]] = {layer: [] for layer in readings}
    handles = [
        layer.register_forward_hook(partial(_note, seen, readings, len(inputs)), with_kwargs=True) for layer in readings
    ]
    try:
        logits = checked_logits(module(inputs.clone()), len(inputs))  # it may change them in place
    finally:
        for handle in handles:
            handle.remove()
    found = Record(logits, readings.keys())
    consumers = _consumers(logits.grad_fn)
    for layer, calls in seen.items():
        call = calls[0] if len(calls) == 1 else None
        is_used = any(parameter in consumers for parameter in layer._parameters.values())
        if is_used and call is not None and _holds(layer, readings[layer], call, consumers, len(inputs)):
            found.calls[layer] = call
    answered = {id(p) for layer in found.calls for p in layer._parameters.values()}
    found.others = {p for p in consumers if isinstance(p, nn.Parameter) and id(p) not in answered}
    return found


def checked_logits(logits: object, num_inputs: int) -> Tensor:
    """Refuse what isn't [n, C] in floating point."""
    rule = "module must return logits [N, C] for N inputs, got"
    if not isinstance(logits, Tensor):
        raise BadInput(f"{rule} a {type(logits).__name__}; wrap it in a module that returns the logits alone")
    if logits.dim() != 2 or len(logits) != num_inputs or not logits.shape[1]:
        raise BadInput(f"{rule} shape {tuple(logits.shape)} for N = {num_inputs}")
    if not logits.is_floating_point():
        raise BadInput(f"{rule} {logits.dtype}")
    return logits


def _note(
    seen: dict[nn.Module, list[Call | None]],
    readings: Readings,
    num_inputs: int,
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    """Keep what goes in and out of a layer; None where it isn't one tensor each, with a gradient."""
    reading = readings[layer]
    is_plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor)
    if not is_plain or args[0].dim() not in reading.dims or not output.requires_grad:
        seen[layer].append(None)
        return
    x, y = (reading.batch_first(tensor.detach(), num_inputs) for tensor in (args[0], output))
    seen[layer].append(Call(x, args[0]._version, args[0].grad_fn, get_gradient_edge(output), y.shape))


def _holds(
    layer: nn.Module, reading: Reading, call: Call, consumers: Mapping[Tensor, list[Node]], num_inputs: int
) -> bool:
    """Whether a layer's rule gives all of the gradients of its parameters."""
    if not (len(call.x) == call.output_shape[0] == num_inputs):
        return False
    if reading.has_weight and not call.is_input_unchanged:
        return False
    own = _between(call.edge.node, call.source)
    trained = [p for p in layer._parameters.values() if p is not None and p.requires_grad]
    return all(node in own for parameter in trained for node in consumers.get(parameter, ()))


def _consumers(root: Node | None) -> dict[Tensor, list[Node]]:
    """Leaf -> nodes of the graph that hand gradients to it."""
    found: dict[Tensor, list[Node]] = {}
    seen, waiting = {root}, [] if root is None else [root]
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "CheckpointFunctionBackward":
            # It computes gradients in a graph of its own, which neither autograd.grad nor torch.func can enter.
            raise BadInput("module must not use checkpoints with use_reentrant=True; use_reentrant=False would do")
        for following, _ in node.next_functions:
            if following is None:
                continue
            if type(following).__name__ == "AccumulateGrad":
                found.setdefault(getattr(following, "variable"), []).append(node)  # noqa: B009 - unknown to its type
            elif following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _between(end: Node, start: Node | None) -> set[Node]:
    """Nodes from an output back to an input, the input's own left out."""
    own, waiting = {end}, [end]
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is not None and following is not start and following not in own:
                own.add(following)
                waiting.append(following)
    return own
