"""Sharpness: the greatest eigenvalue of the Hessian of the training loss (Cohen et al. 2021, arXiv:2103.00065).

The loss is the one that training descends, without weight decay: batch-norm normalises each batch by its own mean and
variance, in batches of 256 as everywhere else. In evaluation mode the statistics would be constants, and the loss no
longer blind to the scale of the weights before a norm: its curvature says little about which steps are stable.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from twophase import dual, lanes
from twophase.config import Trial
from twophase.data import Dataset, stratified
from twophase.evaluation import BATCH
from twophase.lanes import LaneState
from twophase.models import LaneNetwork
from twophase.seeding import stream
from twophase.training import build_model, lane_losses

SAMPLE = 512
"""Most examples of the training sample that curvature is computed on: a balanced part of it."""

TOLERANCE = 1e-3
"""Greatest residual ‖Hv − λv‖ of the eigenvector, over λ: an eigenvalue lies within it, and mostly far nearer."""

MOST_PRODUCTS = 200
"""Hessian-vector products after which an eigenvalue that hasn't settled is given up."""

Product = Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]]
"""v -> H v."""


def top_eigenvalue(product: Product, start: Float[Tensor, " P"]) -> float:
    """Find the greatest eigenvalue of a symmetric matrix by Lanczos iteration.

    Without reorthogonalisation: it keeps three vectors, and what rounding adds are copies of eigenvalues found before.

    Args:
        product: Products with the matrix.
        start: A vector with a part along every eigenvector, such as a random one.

    Returns:
        The eigenvalue, to `TOLERANCE`; NaN if it doesn't settle or something isn't finite.
    """
    vector, before = start / start.norm(), torch.zeros_like(start)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(MOST_PRODUCTS):
        image = product(vector)
        diagonal.append(float(image @ vector))
        image = image - diagonal[-1] * vector - (beside[-1] if beside else 0.0) * before
        beside.append(float(image.norm()))
        if not math.isfinite(diagonal[-1] + beside[-1]):
            return math.nan
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
        if beside[-1] * abs(vectors[-1, -1]) <= TOLERANCE * abs(values[-1]):
            return float(values[-1])
        vector, before = image / beside[-1], vector
    return math.nan


def hessian_product(
    model: LaneNetwork, inputs: Float[Tensor, "N ..."], labels: Int[Tensor, " N"]
) -> tuple[Product, int]:
    """Products with the Hessian of the mean training loss of a network of one lane.

    Args:
        model: The network; put into training mode, its running statistics no longer kept.
        inputs: Examples.
        labels: Their classes.

    Returns:
        The product on flat vectors, parameters in order of definition, and their number P.
    """
    model.train()
    model.stop_tracking()
    theta = {name: value.detach() for name, value in model.named_parameters()}
    sizes = [value.numel() for value in theta.values()]
    # A last batch of one example has no variance.
    batches = [
        (x, y)
        for x, y in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True)
        if len(y) > 1 or len(labels) <= BATCH
    ]
    total = sum(len(y) for _, y in batches)

    def product(vector: Tensor) -> Tensor:
        parts = torch.split(vector, sizes)
        out = torch.zeros_like(vector)
        for x, y in batches:
            with dual.level():
                at = {
                    name: dual.differentiable(value, part.view_as(value))
                    for (name, value), part in zip(theta.items(), parts, strict=True)
                }
                loss = lane_losses(functional_call(model, at, (x,)), y)[0]
                gradient = torch.autograd.grad(loss, list(at.values()))
                image = [dual.tangent_of(value).flatten() for value in gradient]
            out += len(y) / total * torch.cat(image)
        return out

    return product, sum(sizes)


class SharpnessProbe:
    """Sharpness of a reference, on a balanced part of a trial's fixed training sample."""

    def __init__(self, trial: Trial, dataset: Dataset) -> None:
        """Draw the examples; `dataset` is on the device that is to compute."""
        setting, device = trial.setting, dataset.train_inputs.device
        size = min(SAMPLE, trial.protocol.train_sample)
        sample = stratified(dataset.train_labels.cpu(), size, seed=setting.data_seed, purpose="train sample").to(device)
        self._inputs, self._labels = dataset.train_inputs[sample], dataset.train_labels[sample]
        self._model, self._seed = build_model(setting, dataset, seed=0).to(device), trial.seed

    def measure(self, state: LaneState, step: int) -> float:
        """Sharpness of lane 0; the iteration starts from the stream of (seed, step)."""
        lanes.write(lanes.fork(state), self._model)
        product, size = hessian_product(self._model, self._inputs, self._labels)
        start = torch.randn(size, generator=stream(self._seed, "sharpness", step), dtype=torch.float64)
        return top_eigenvalue(product, start.to(self._inputs))


def stability_bound(optimizer: str, learning_rate: float, momentum: float) -> float:
    """Sharpness above which gradient descent on a quadratic diverges (Cohen et al. 2021, appendix B).

    2 (1 + β) / η with heavy-ball momentum, 2 (1 + β) / ((1 + 2β) η) with Nesterov's.

    Args:
        optimizer: A key of `OPTIMIZERS`.
        learning_rate: η.
        momentum: β.

    Returns:
        The bound, +inf at a learning rate of 0; NaN for AdamW, which weighs directions.
    """
    factor = {"sgd": 2 * (1 + momentum), "nesterov": 2 * (1 + momentum) / (1 + 2 * momentum)}.get(optimizer, math.nan)
    return factor / learning_rate if learning_rate > 0 else factor * math.inf
