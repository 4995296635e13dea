"""A stack of convolutions, batch norms and ReLUs at once, against torch's own layers, in float64."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from twophase.models.cnn import CNN
from twophase.models.conv_stack import evaluated_stack, trained_stack
from twophase.models.examples_last import windows_of
from twophase.models.layers import LaneBatchNorm

LANES, CHANNELS, EPS = 3, 4, 1e-5
Layer = Callable[[Tensor, int, int], Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(depth: int, taps: int) -> list[Tensor]:
    return [randn(LANES, CHANNELS, CHANNELS if i else 2, taps, seed=10 + i).requires_grad_() for i in range(depth)]


def norm_of(seed: int, lanes: int = LANES) -> LaneBatchNorm:
    norm = LaneBatchNorm(CHANNELS).double()
    norm.weight.data, norm.bias.data = randn(lanes, CHANNELS, seed=seed), randn(lanes, CHANNELS, seed=seed + 1)
    norm.running_mean, norm.running_var = (torch.full((lanes, CHANNELS), at, dtype=torch.float64) for at in (0.0, 1.0))
    return norm


def by_torch(x: Tensor, weights: list[Tensor], strides: list[int], after: Layer) -> Tensor:
    """[K, C, L, B], lane by lane; `after` is given a convolution's output [B, C, L], its layer and its lane."""
    outs = []
    for lane in range(LANES):
        y = x.expand(LANES, -1, -1, -1)[lane].permute(2, 0, 1)
        for layer, (weight, stride) in enumerate(zip(weights, strides, strict=True)):
            y = after(F.conv1d(y, weight[lane], stride=stride, padding=weight.shape[3] // 2), layer, lane)
        outs.append(y.permute(1, 2, 0))
    return torch.stack(outs)


stacks = pytest.mark.parametrize(
    ("length", "taps", "strides"),
    [(8, 3, [2, 1, 2, 1]), (7, 3, [1, 2, 2]), (1, 3, [1, 2]), (9, 5, [1, 3, 1]), (10, 1, [2, 3]), (5, 3, [1])],
)
shared = pytest.mark.parametrize("is_shared", [True, False])


@stacks
@shared
def test_training_and_its_gradients(length: int, taps: int, strides: list[int], is_shared: bool) -> None:
    x, weights = randn(1 if is_shared else LANES, 2, length, 5), kernels(len(strides), taps)
    norms = [norm_of(30 + i) for i in range(len(strides))]
    seen = {}

    def normed(y: Tensor, layer: int, lane: int) -> Tensor:
        seen[layer, lane] = torch.stack([y.mean((0, 2)), y.var((0, 2))])
        factor, offset = norms[layer].weight[lane], norms[layer].bias[lane]
        return F.relu(F.batch_norm(y, None, None, factor, offset, training=True, eps=EPS))

    expected = by_torch(x, weights, strides, normed)
    found = trained_stack(x, weights, norms, strides)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for layer, norm in enumerate(norms):
        mean, variance = (torch.stack([seen[layer, lane][i] for lane in range(LANES)]) for i in range(2))
        torch.testing.assert_close(norm.running_mean, 0.1 * mean, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance, rtol=1e-11, atol=1e-11)
    parameters = [*weights, *(part for norm in norms for part in (norm.weight, norm.bias))]
    upstream = randn(*expected.shape, seed=2)
    theirs = torch.autograd.grad(expected, parameters, upstream)
    for mine, other in zip(torch.autograd.grad(found, parameters, upstream), theirs, strict=True):
        # Of a single value the normalised one is 0 / 0 but for eps, and its gradient rounding.
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


@stacks
@shared
def test_evaluation(length: int, taps: int, strides: list[int], is_shared: bool) -> None:
    x, weights = randn(1 if is_shared else LANES, 2, length, 5), kernels(len(strides), taps)
    offsets = [randn(LANES, CHANNELS, seed=50 + i) for i in range(len(strides))]
    with torch.no_grad():
        found = evaluated_stack(x, weights, offsets, strides)
        expected = by_torch(x, weights, strides, lambda y, layer, lane: F.relu(y + offsets[layer][lane].unsqueeze(1)))
    assert found.shape[2] == expected.shape[2]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_windows() -> None:
    assert [windows_of(length, 2) for length in (1, 2, 3, 8)] == [1, 1, 2, 4]


def test_inputs_have_no_gradient() -> None:
    with pytest.raises(RuntimeError, match="have no gradient here"):
        trained_stack(randn(1, 2, 4, 3).requires_grad_(), kernels(1, 3), [norm_of(0)], [1])


def test_gradients_are_not_differentiable_again() -> None:
    weights = kernels(1, 3)
    out = trained_stack(randn(1, 2, 4, 3), weights, [norm_of(0)], [1])
    (gradient,) = torch.autograd.grad(out.square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("is_training", [True, False])
def test_what_is_not_finite_stays_in_its_lane(broken: float, is_training: bool) -> None:
    network = CNN((1, 12), 4, depth=4, width=3, activation="relu", norm_layer="batch", dropout=0.0).double()
    for i, (_, value) in enumerate(network.named_parameters()):
        value.data = randn(LANES, *value.shape[1:], seed=i)
    for name, value in network.named_buffers():
        value.data = torch.full((LANES, *value.shape[1:]), float(name.endswith("var")), dtype=torch.float64)
    network.train(is_training)
    inputs = randn(6, 1, 12, seed=99)
    with torch.no_grad():
        whole = network(inputs)
        network.convs[1].weight[1, 0, 0, 0, 0] = broken
        found = network(inputs)
    assert found[1].isnan().all() or (not is_training and not found[1].isfinite().all())
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


def test_no_lane_depends_on_its_place() -> None:
    weights = [randn(7, CHANNELS, CHANNELS if i else 2, 3, seed=i).float() for i in range(4)]
    for weight in weights:
        weight[5] = weight[0]
        weight.requires_grad_()
    norms = [norm_of(60 + i, lanes=7).float() for i in range(4)]
    for norm in norms:
        norm.weight.data[5], norm.bias.data[5] = norm.weight.data[0], norm.bias.data[0]
    out = trained_stack(randn(1, 2, 21, 13, seed=7).float(), weights, norms, [2, 1, 2, 1])
    assert torch.equal(out[0], out[5])
    for gradient in torch.autograd.grad(out.square().sum(), weights):
        assert torch.equal(gradient[0], gradient[5])


def test_it_runs_where_nothing_compiled_can_be_kept() -> None:
    code = """
import numpy as np
from twophase.models import rows
out = (np.ones((1, 4, 2)),)
rows.rectify(np.full((1, 2, 2), -1.0), np.array([3.0]), out)
print(rows.rectify.stats.cache_path, out[0][0, :, 0].tolist())
"""
    # A place for what was compiled is looked for in archives alone: there is none.
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("None [0.0, 2.0, 2.0, 0.0]\n", "")
