"""What a user may hand to `twophase.entk`, held against its rules before anything is computed."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from twophase.errors import BadInput, unknown
from twophase.kernels.readouts import KINDS

DTYPES = (torch.float32, torch.float64)


def check(module: object, inputs: object, kind: object, *, seed: object, memory_bytes: object) -> None:
    """Refuse arguments that break a rule.

    Raises:
        BadInput: One of them does.
    """
    if not isinstance(module, nn.Module):
        raise BadInput(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(inputs, Tensor):
        raise BadInput(f"inputs must be a torch.Tensor, got {type(inputs).__name__}; torch.as_tensor makes one")
    if not inputs.dim() or not len(inputs):
        raise BadInput(f"inputs must hold at least one input along their first axis, got shape {tuple(inputs.shape)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown("kernel", kind, KINDS)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise BadInput(f"seed must be a whole number, got {seed!r}")
    if isinstance(memory_bytes, bool) or not isinstance(memory_bytes, int) or memory_bytes < 1:
        raise BadInput(f"memory_bytes must be a whole number >= 1, such as 2**30, got {memory_bytes!r}")
    _check_parameters(module)


def _check_parameters(module: nn.Module) -> None:
    has_trained = False
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise BadInput(f"module must have parameters of known shape, got lazy '{name}'; run it once before")
        if parameter.requires_grad and not parameter.is_floating_point():
            raise BadInput(f"module must have real parameters, got {parameter.dtype} for '{name}'")
        has_trained |= parameter.requires_grad
    if not has_trained:
        raise BadInput("module must have a parameter that requires a gradient, got none")


def checked_labels(labels: object, num_inputs: int, logits: Tensor) -> Tensor | None:
    """Hold labels against the inputs and logits they belong to.

    Args:
        labels: As given.
        num_inputs: Number of inputs N.
        logits: Logits of any inputs, [n, C].

    Returns:
        The labels, int64, beside the logits; None if there are none.

    Raises:
        BadInput: They aren't N whole numbers in [0, C).
    """
    if labels is None:
        return None
    num_classes = logits.shape[1]
    rule = f"labels must be a tensor of {num_inputs} whole numbers in [0, {num_classes}), one per input, got"
    if not isinstance(labels, Tensor):
        raise BadInput(f"{rule} {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadInput(f"{rule} {labels.dtype}")
    if labels.shape != (num_inputs,):
        raise BadInput(f"{rule} shape {tuple(labels.shape)}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise BadInput(f"{rule} {int(wrong[0])}")
    return labels.to(logits.device, torch.int64)


def converted(module: nn.Module, inputs: Tensor, dtype: torch.dtype | None) -> tuple[nn.Module, Tensor]:
    """Bring module and inputs to the precision of the computation.

    Args:
        module: The module; it is copied if it has to change.
        inputs: The inputs.
        dtype: The precision; None for the parameters' own, or float32 if that is less.

    Returns:
        Module and inputs.

    Raises:
        BadInput: The precision is another.
    """
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"dtype must be torch.float32, torch.float64 or None, got {dtype!r}")
    inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
    held = {value.dtype for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()}
    if dtype is None and held <= set(DTYPES):
        return module, inputs
    dtype = dtype or torch.float32
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return (module if held == {dtype} else copy.deepcopy(module).to(dtype)), inputs
