"""One update of training as a pure function of parameters and optimiser state, so that it can be differentiated.

The rules are those of `twophase.optimizers`, written out: torch's own optimisers change tensors in place and can't be
linearised. Batch-norm runs in training mode; its running statistics follow the run but never steer it, so they are left
out.
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.func import functional_call

from twophase.config import Setting
from twophase.data import Dataset
from twophase.errors import BadInput
from twophase.growth import Parameters, Point, UpdateMap
from twophase.lanes import LaneState
from twophase.optimizers import Rates
from twophase.training import build_model, lane_losses, learning_rate, minibatch_inputs, reference_order

Moments = dict[str, Parameters]
Rule = Callable[[Parameters, Parameters, Moments, Rates, float, int], Point]
"""(θ, gradients, moments, rates, learning rate now, step) -> θ and moments after the update."""


def _sgd(theta: Parameters, gradient: Parameters, moments: Moments, rates: Rates, lr: float, step: int) -> Point:  # noqa: ARG001
    """Heavy ball: m ← β m + g + λθ; θ ← θ − η m."""
    pull = {name: gradient[name] + rates.weight_decay * theta[name] for name in theta}
    if rates.momentum == 0:
        return {name: theta[name] - lr * pull[name] for name in theta}, {}
    buffer = {name: rates.momentum * moments["momentum_buffer"][name] + pull[name] for name in theta}
    return {name: theta[name] - lr * buffer[name] for name in theta}, {"momentum_buffer": buffer}


def _nesterov(theta: Parameters, gradient: Parameters, moments: Moments, rates: Rates, lr: float, step: int) -> Point:  # noqa: ARG001
    """Look ahead: m ← β m + g + λθ; θ ← θ − η (g + λθ + β m)."""
    pull = {name: gradient[name] + rates.weight_decay * theta[name] for name in theta}
    buffer = {name: rates.momentum * moments["momentum_buffer"][name] + pull[name] for name in theta}
    moved = {name: theta[name] - lr * (pull[name] + rates.momentum * buffer[name]) for name in theta}
    return moved, {"momentum_buffer": buffer}


def _adamw(theta: Parameters, gradient: Parameters, moments: Moments, rates: Rates, lr: float, step: int) -> Point:
    """θ ← (1 − ηλ) θ − η m̂ / (√v̂ + 1e-8), with bias-corrected moments (Loshchilov & Hutter 2019)."""
    beta1, beta2 = rates.momentum, rates.beta2
    first = {name: beta1 * moments["exp_avg"][name] + (1 - beta1) * gradient[name] for name in theta}
    second = {name: beta2 * moments["exp_avg_sq"][name] + (1 - beta2) * gradient[name].square() for name in theta}
    scale1, scale2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
    moved = {
        name: (1 - lr * rates.weight_decay) * theta[name]
        - lr * (first[name] / scale1) / (_root(second[name] / scale2) + 1e-8)
        for name in theta
    }
    return moved, {"exp_avg": first, "exp_avg_sq": second}


def _root(value: Tensor) -> Tensor:
    """Square root whose derivative at 0 is taken to be 0: there a weight has never had a gradient (a dead unit)."""
    is_positive = value > 0
    return torch.where(is_positive, torch.where(is_positive, value, 1.0).sqrt(), 0.0)


RULES: dict[str, Rule] = {"adamw": _adamw, "nesterov": _nesterov, "sgd": _sgd}
"""Optimiser -> its rule."""


def clipped(gradient: Parameters, most: float) -> Parameters:
    """Scale each lane's gradient to an L2 norm of at most `most`, as `twophase.optimizers.clip_lanes` does."""
    # One after the other: a sum down a column rounds by how many columns there are.
    squares = reduce(torch.add, (value.flatten(1).square().sum(1) for value in gradient.values()))
    factors = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    return {name: value * factors.view(-1, *[1] * (value.dim() - 1)) for name, value in gradient.items()}


def point_of(state: LaneState) -> Point:
    """Parameters and optimiser state of lanes, in float64."""
    moments: Moments = {}
    for (name, quantity), value in state.optimizer.items():
        moments.setdefault(quantity, {})[name] = value.double()
    return {name: value.double() for name, value in state.parameters.items()}, moments


def update_map(setting: Setting, dataset: Dataset, seed: int) -> UpdateMap:
    """Make the update of a setting's reference, in float64 whatever its precision.

    Each step sees the reference's own minibatch, augmentation, mask of dropout and learning rate.

    Args:
        setting: What is trained.
        dataset: Its data, on the device that is to compute.
        seed: Replicate number.

    Returns:
        The map, for any number of lanes.

    Raises:
        BadInput: The optimiser's rule is not known here.
    """
    if setting.optimizer not in RULES:
        known = ", ".join(sorted(RULES))
        raise BadInput(f"growth must go with an optimizer whose rule it knows ({known}), got '{setting.optimizer}'")
    # Of the reference's seed: a module may hold constants of its own, drawn with its parameters.
    model = build_model(setting, dataset, seed).to(dataset.train_inputs.device, torch.float64).train()
    model.stop_tracking()
    order, rule, rates = reference_order(setting, seed), RULES[setting.optimizer], setting.rates

    def update(point: Point, step: int) -> Point:
        indices = order.batch(step).to(dataset.train_inputs.device)
        inputs = minibatch_inputs(setting, dataset, indices, seed, step).double()
        labels = dataset.train_labels[indices]
        model.set_noise(seed, step)
        theta, moments = point
        # As duals they are differentiable already, and have to stay what they are.
        at = {name: value if value.requires_grad else value.detach().requires_grad_() for name, value in theta.items()}
        # The sum's gradient with respect to a lane is that lane's own: no lane sees another.
        loss = lane_losses(functional_call(model, at, (inputs,)), labels).sum()
        gradient = dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))
        if setting.clip_norm:
            gradient = clipped(gradient, setting.clip_norm)
        return rule(theta, gradient, moments, rates, learning_rate(setting, step), step)

    return update
