"""Gradients of any parameter of any module, input by input: for what no rule answers for."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

Gradients = Callable[[Tensor, Tensor], Tensor]
"""(inputs [n, ...], w [n, R, C]) -> gradients of w(x) f(x), [n, R, parameters]."""


def gradients(module: nn.Module, names: Sequence[str], example: Tensor) -> Gradients:
    """Choose how to differentiate a module with respect to some of its parameters.

    By torch.func, which takes a chunk of inputs at once, wherever it can vectorise the module (not an LSTM, nor
    branches that depend on values); by one backward pass per input and row where it can't. Both are exact.

    Args:
        module: Any module from N inputs to logits [N, C], in evaluation mode.
        names: Parameters to differentiate with respect to, as `named_parameters` has them.
        example: One input, [1, ...].

    Returns:
        The gradients as a function of inputs and readout.
    """
    vectorised = _vectorised(module, names)
    with torch.no_grad():
        num_logits = module(example.clone()).shape[1]
    readout = example.new_ones(1, 1, num_logits, dtype=torch.float32)
    try:
        vectorised(example, readout)
    except RuntimeError:  # torch.func says so in a dozen ways; if the module itself is at fault, it fails below too
        return _looped(module, names)
    return vectorised


def _vectorised(module: nn.Module, names: Sequence[str]) -> Gradients:
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    chosen = {name: parameters[name] for name in names}
    fixed: Mapping[str, Tensor] = {**dict(module.named_buffers()), **parameters}
    # On a copy: functional_call doesn't put a submodule back that is registered under two names.
    module = copy.deepcopy(module)

    def read(values: dict[str, Tensor], example: Tensor, rows_RC: Tensor) -> Tensor:
        logits: Tensor = functional_call(module, {**fixed, **values}, (example.unsqueeze(0).clone(),))
        return rows_RC.to(logits.dtype) @ logits[0]

    function = vmap(jacrev(read), in_dims=(None, 0, 0), randomness="error")

    def jacobian(inputs: Tensor, readout_NRC: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # slower, and as exact
            found = function(chosen, inputs, readout_NRC)
        return torch.cat([found[name].detach().reshape(*readout_NRC.shape[:2], -1) for name in names], 2)

    return jacobian


def _looped(module: nn.Module, names: Sequence[str]) -> Gradients:
    parameters = [dict(module.named_parameters())[name] for name in names]

    def gradient(logits: Tensor, row: Tensor) -> Tensor:
        found = torch.autograd.grad(
            logits,
            parameters,
            row.unsqueeze(0).to(logits.dtype),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([value.detach().flatten() for value in found])

    def jacobian(inputs: Tensor, readout_NRC: Tensor) -> Tensor:
        rows = []
        # cuDNN has no gradients of recurrent layers in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            for example, rows_RC in zip(torch.split(inputs, 1), readout_NRC, strict=True):
                logits = module(example.clone())
                rows.append(torch.stack([gradient(logits, row) for row in rows_RC]))
        return torch.stack(rows)

    return jacobian
