"""Convolution and batch norm with examples innermost, against torch's own, in float64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from twophase.models.cnn import CNN
from twophase.models.examples_last import convolve, normalise
from twophase.models.layers import LaneBatchNorm
from twophase.models.network import LaneNetwork
from twophase.models.resnet import ResNet
from twophase.models.vgg import VGG

LEAVES = {"activation": "relu", "norm_layer": "batch", "dropout": 0.0}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """[K, C, L, B], lane by lane through torch."""
    lanes = x.expand(len(weight), -1, -1, -1).permute(0, 3, 1, 2)
    taps = weight.shape[3]
    return torch.stack(
        [F.conv1d(lane, kernel, stride=stride, padding=taps // 2) for lane, kernel in zip(lanes, weight, strict=True)]
    ).permute(0, 2, 3, 1)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("is_shared", [False, True])
def test_convolution_and_its_gradients(length: int, taps: int, stride: int, is_shared: bool) -> None:
    x = randn(1 if is_shared else 3, 2, length, 5).requires_grad_(not is_shared)
    weight = randn(3, 4, 2, taps, seed=1).requires_grad_()
    wanted = [weight] if is_shared else [weight, x]
    found, expected = convolve(x, weight, stride), torch_convolution(x, weight, stride)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = randn(*expected.shape, seed=2)
    theirs = torch.autograd.grad(expected, wanted, upstream)
    for mine, other in zip(torch.autograd.grad(found, wanted, upstream), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_shared_inputs_have_no_gradient() -> None:
    with pytest.raises(RuntimeError, match="have no gradient here"):
        convolve(randn(1, 2, 4, 3).requires_grad_(), randn(3, 4, 2, 3), 1)


def test_gradients_are_not_differentiable_again() -> None:
    x, weight = randn(2, 2, 4, 3).requires_grad_(), randn(2, 2, 2, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(convolve(x, weight, 1).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_batch_norm_and_its_gradients() -> None:
    x = (randn(1, 6, 40) + 5.0).requires_grad_()
    weight, bias = randn(6, seed=1).requires_grad_(), randn(6, seed=2).requires_grad_()
    found, mean, variance = normalise(x, weight, bias)
    expected = F.batch_norm(x, None, None, weight, bias, training=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mean, x[0].detach().mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance, x[0].detach().var(1, correction=0), rtol=1e-12, atol=1e-12)
    upstream = randn(1, 6, 40, seed=3)
    theirs = torch.autograd.grad(expected, [x, weight, bias], upstream)
    for mine, other in zip(torch.autograd.grad(found, [x, weight, bias], upstream), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_variance_of_values_far_from_zero_keeps_its_digits() -> None:
    x = (1000.0 + randn(1, 3, 64)).float()
    variance = normalise(x, torch.ones(3), torch.zeros(3))[2]
    torch.testing.assert_close(variance.double(), x[0].double().var(1, correction=0), rtol=1e-4, atol=0.0)


def test_running_statistics_are_torchs() -> None:
    norm, theirs = LaneBatchNorm(3).double(), torch.nn.BatchNorm1d(6).double()
    for name, value in (*norm.named_parameters(), *norm.named_buffers()):
        value.data = value.data.repeat(2, 1)
        assert value.shape == (2, 3), name
    for name in ("weight", "bias"):
        torch.nn.init.constant_(getattr(norm, name), float(name == "weight"))
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    for seed in range(3):
        x = randn(2, 3, 1, 4, 5, seed=seed)
        norm(x)
        theirs(x.squeeze(2).permute(3, 0, 1, 2).flatten(1, 2))
    torch.testing.assert_close(norm.running_mean.flatten(), theirs.running_mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(norm.running_var.flatten(), theirs.running_var, rtol=1e-12, atol=1e-14)


def networks() -> list[LaneNetwork]:
    return [
        CNN((2, 11), 4, depth=5, width=3, **LEAVES),
        ResNet((2, 11), 4, depth=8, width=3, shortcut="A", **LEAVES),
        ResNet((2, 11), 4, depth=8, width=3, shortcut="B", **LEAVES),
        VGG((2, 11), 4, depth=11, width=2, **LEAVES),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_both_layouts_compute_the_same(number: int, is_shared: bool, is_training: bool) -> None:
    network = networks()[number].double().train(is_training)
    for i, (_, value) in enumerate((*network.named_parameters(), *network.named_buffers())):
        value.data = 0.3 * randn(3, *value.shape[1:], seed=i)
    for norm in network.modules():
        if isinstance(norm, LaneBatchNorm):
            norm.running_var.abs_()
    inputs = randn(6, 2, 11, seed=99) if is_shared else randn(3, 6, 2, 11, seed=99)
    assert network.is_examples_last
    with torch.set_grad_enabled(is_training):
        found = network(inputs)
    last = torch.autograd.grad(found.square().sum(), list(network.parameters())) if is_training else ()
    network.stop_tracking()
    assert not network.is_examples_last
    expected = network(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    first = torch.autograd.grad(expected.square().sum(), list(network.parameters())) if is_training else ()
    for mine, other in zip(last, first, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)
