"""Update rules: torch's own, elementwise, so that they serve lane-stacked parameters as they stand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEP = "step"
"""Name under which torch's optimisers count updates."""
MOMENTA = ("momentum_buffer", "exp_avg")
"""Names of what is momentum; AdamW's second moments, which can't be negative, are not."""


@dataclass(frozen=True)
class Rates:
    """What of a setting an optimiser needs.

    Attributes:
        lr: Peak learning rate.
        momentum: Momentum; β₁ of Adam.
        beta2: β₂ of Adam.
        weight_decay: L2 penalty; decoupled in AdamW.
    """

    lr: float
    momentum: float
    beta2: float
    weight_decay: float


@dataclass(frozen=True)
class OptimizerEntry:
    """One entry of the table of optimisers.

    Attributes:
        make: (parameters, setting) -> torch's optimiser.
        moments: (momentum) -> names of its state's quantities that are shaped like the parameter, all 0 at step 0.
        defaults: Default of each setting leaf that depends on the optimiser.
        is_counting: Whether its state counts the updates.
    """

    make: Callable[[list[nn.Parameter], Rates], torch.optim.Optimizer]
    moments: Callable[[float], tuple[str, ...]]
    defaults: Mapping[str, float]
    is_counting: bool = False


def _sgd(parameters: list[nn.Parameter], rates: Rates) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=rates.lr, momentum=rates.momentum, weight_decay=rates.weight_decay)


def _nesterov(parameters: list[nn.Parameter], rates: Rates) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=rates.lr, momentum=rates.momentum, weight_decay=rates.weight_decay, nesterov=True
    )


def _adamw(parameters: list[nn.Parameter], rates: Rates) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=rates.lr, betas=(rates.momentum, rates.beta2), weight_decay=rates.weight_decay
    )


def _buffer(momentum: float) -> tuple[str, ...]:
    return ("momentum_buffer",) if momentum > 0 else ()


_SGD_DEFAULTS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}

OPTIMIZERS: dict[str, OptimizerEntry] = {
    "adamw": OptimizerEntry(
        _adamw,
        lambda _: ("exp_avg", "exp_avg_sq"),
        {"lr": 1e-3, "momentum": 0.9, "beta2": 0.999, "weight_decay": 1e-2},
        is_counting=True,
    ),
    "nesterov": OptimizerEntry(_nesterov, _buffer, _SGD_DEFAULTS),
    "sgd": OptimizerEntry(_sgd, _buffer, _SGD_DEFAULTS),
}


def make_optimizer(name: str, parameters: list[nn.Parameter], rates: Rates) -> torch.optim.Optimizer:
    """Make an optimiser with its state as it is before the first update, so that it forks like everything else."""
    entry = OPTIMIZERS[name]
    optimizer = entry.make(parameters, rates)
    for parameter in parameters:
        state = optimizer.state[parameter]
        state |= {quantity: torch.zeros_like(parameter) for quantity in entry.moments(rates.momentum)}
        if entry.is_counting:
            state[STEP] = torch.zeros((), dtype=torch.float32)
    return optimizer


def set_step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Tell an optimiser that counts its updates how many there were: the count is the step, whoever carries it."""
    for state in optimizer.state.values():
        if STEP in state:
            state[STEP].fill_(float(step))


def clip_lanes(parameters: Sequence[Tensor], most: float) -> None:
    """Scale each lane's gradient to an L2 norm of at most `most`, as `clip_grad_norm_` does for one network."""
    gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # By products of matrices, one per lane: a sum over rows rounds by how many rows there are.
    squares = torch.zeros(len(gradients[0]), dtype=gradients[0].dtype, device=gradients[0].device)
    for gradient in gradients:
        rows = gradient.flatten(1)
        squares += torch.bmm(rows.unsqueeze(1), rows.unsqueeze(2)).flatten()
    factors = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
