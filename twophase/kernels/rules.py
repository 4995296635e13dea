"""Layers whose parameters' gradients follow from what goes in and the gradient of what comes out.

Each is read as one and the same map, over groups g, outputs o, features k and positions t of input n,

    y_ngot = Σ_k W_gok x_ngkt + b_go ,

so that ∂/∂W_gok = Σ_t γ_ngot x_ngkt and ∂/∂b_go = Σ_t γ_ngot for γ the gradient at y. A dense layer has one group; a
convolution's features are the patch under its window; an affine normalisation has a group per channel, one feature
(the normalised input) and one output. A new layer is a rule here and a line in `RULES`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from twophase.models.layers import LaneBatchNorm, LaneConv, LaneGroupNorm, LaneLayerNorm, LaneLinear
from twophase.models.vit import Positions

Move = Callable[[Tensor], Tensor]


def _as_it_is(x: Tensor, _: int) -> Tensor:
    return x


@dataclass(frozen=True)
class Reading:
    """How a layer is that map.

    Attributes:
        features: Input, batch first -> x, [n, G, K, T]; whole numbers i, [n, 1, 1, T], stand for one-hot x (−1 for 0).
        outputs: Output or its gradient, batch first -> [n, G, O, T].
        has_weight: Whether W is to be differentiated.
        has_bias: Whether b is.
        dims: Numbers of axes, batch included, that an input may have.
        batch_first: (input or output, n) -> the same with the n inputs along its first axis.
        weight_gradients: Where there is a quicker way than by features: (input, γ) -> Σ_t γ_nrgot x_ngkt,
            [n, R, G·O·K].
    """

    features: Move
    outputs: Move
    has_weight: bool
    has_bias: bool
    dims: range
    batch_first: Callable[[Tensor, int], Tensor] = _as_it_is
    weight_gradients: Callable[[Tensor, Tensor], Tensor] | None = None


Rule = Callable[[Any], Reading | None]
ANY = 100


def read(layer: nn.Module) -> Reading | None:
    """Find the rule of a layer, if it has one that holds as it stands.

    A layer that somebody has hooked, patched or reparametrised isn't what its type says.

    Args:
        layer: Any module.

    Returns:
        Its reading; None where there is no rule, or nothing to differentiate.
    """
    rule = RULES.get(type(layer))
    if rule is None or "forward" in vars(layer) or not set(layer._parameters) <= {"weight", "bias"}:
        return None
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return None
    if not any(value is not None and value.requires_grad for value in layer._parameters.values()):
        return None
    return rule(layer)


def _trained(layer: nn.Module) -> tuple[bool, bool]:
    weight, bias = (layer._parameters.get(name) for name in ("weight", "bias"))
    return weight is not None and weight.requires_grad, bias is not None and bias.requires_grad


def _by_input(x: Tensor, num: int) -> Tensor:
    """[n·T, ...] -> [n, T, ...], if it can be; whether an input's rows do lie together is seen when the module runs."""
    return x if len(x) % num or len(x) == num else x.reshape(num, -1, *x.shape[1:])


def _by_input_in_lane(x: Tensor, num: int) -> Tensor:
    return _by_input(x[0], num)


def _positions_last(x: Tensor) -> Tensor:
    """[n, ..., features] -> [n, 1, features, T]."""
    return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2).unsqueeze(1)


def _channels(x: Tensor) -> Tensor:
    """[n, channels, ...] -> [n, channels, 1, T]: a group per channel."""
    return x.reshape(len(x), x.shape[1], 1, -1)


def _linear(layer: nn.Linear) -> Reading:
    return Reading(_positions_last, _positions_last, *_trained(layer), dims=range(2, ANY), batch_first=_by_input)


def _lane_linear(layer: LaneLinear) -> Reading | None:
    if len(layer.weight) != 1:
        return None
    return Reading(_positions_last, _positions_last, *_trained(layer), dims=range(3, 4), batch_first=_by_input_in_lane)


def patches(
    x: Tensor, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Tensor:
    """Lay out what lies under each position of a convolution's window, without padding.

    Args:
        x: Input, [n, C, *S], already padded.
        window: Size of the kernel in each dimension.
        stride: Step between positions.
        dilation: Step within the window.
        groups: Groups of channels.

    Returns:
        [n, groups, C/groups · Π window, positions].
    """
    num, channels, *sizes = x.shape
    x = x.contiguous()
    counts = [(size - d * (w - 1) - 1) // s + 1 for size, w, s, d in zip(sizes, window, stride, dilation, strict=True)]
    inner = [d * step for d, step in zip(dilation, x.stride()[2:], strict=True)]
    outer = [s * step for s, step in zip(stride, x.stride()[2:], strict=True)]
    view = x.as_strided((num, channels, *window, *counts), (*x.stride()[:2], *inner, *outer))
    return view.reshape(num, groups, -1, torch.Size(counts).numel())


def convolved(
    x: Tensor,
    gamma: Tensor,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """Every input's own gradients of a convolution's weights: those of one whose groups are inputs and groups.

    Args:
        x: Input, [n, C, *S].
        gamma: Gradients at its output, [n, R, G, O, T].
        window: Size of the kernel in each dimension.
        stride: Step between positions.
        dilation: Step within the window.
        padding: Zeros on either side.

    Returns:
        [n, R, G·O·C/G·Π window].
    """
    num, rows, groups, outputs, _ = gamma.shape
    sizes = zip(x.shape[2:], window, stride, dilation, padding, strict=True)
    counts = [(size + 2 * p - d * (w - 1) - 1) // s + 1 for size, w, s, d, p in sizes]
    channels = num * groups * rows * outputs
    by_weight = torch.ops.aten.convolution_backward(
        gamma.transpose(1, 2).reshape(1, channels, *counts),
        x.reshape(1, -1, *x.shape[2:]),
        x.new_empty(1).expand(channels, x.shape[1] // groups, *window),
        None,
        stride,
        padding,
        dilation,
        False,
        [0] * len(window),
        num * groups,
        [False, True, False],
    )[1]
    found: Tensor = by_weight.view(num, groups, rows, -1).transpose(1, 2).flatten(2)
    return found


def _conv(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Reading:
    window, stride, dilation, groups = layer.kernel_size, layer.stride, layer.dilation, layer.groups
    if layer.padding == "same":
        totals = [d * (w - 1) for d, w in zip(dilation, window, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    elif layer.padding == "valid":
        sides = [(0, 0)] * len(window)
    else:
        sides = [(int(size), int(size)) for size in layer.padding]
    padding = list(itertools.chain(*reversed(sides)))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def features(x: Tensor) -> Tensor:
        return patches(F.pad(x, padding, mode=mode) if any(padding) else x, window, stride, dilation, groups)

    def outputs(y: Tensor) -> Tensor:
        return y.reshape(len(y), groups, y.shape[1] // groups, -1)

    def weight_gradients(x: Tensor, gamma: Tensor) -> Tensor:
        x = F.pad(x, padding, mode=mode) if any(padding) else x
        return convolved(x, gamma, window, stride, dilation, (0,) * len(window))

    axes = 2 + len(window)
    return Reading(features, outputs, *_trained(layer), dims=range(axes, axes + 1), weight_gradients=weight_gradients)


def _lane_conv(layer: LaneConv) -> Reading | None:
    num_lanes, _, _, *window = layer.weight.shape
    if num_lanes != 1:
        return None
    padding = [size for size in reversed(layer.padding) for _ in range(2)]

    def features(x: Tensor) -> Tensor:
        return patches(F.pad(x, padding), tuple(window), layer.stride, (1, 1), 1)

    def outputs(y: Tensor) -> Tensor:
        return y.reshape(len(y), 1, y.shape[1], -1)

    def weight_gradients(x: Tensor, gamma: Tensor) -> Tensor:
        return convolved(x, gamma, tuple(window), layer.stride, (1, 1), layer.padding)

    return Reading(features, outputs, *_trained(layer), dims=range(4, 5), weight_gradients=weight_gradients)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Reading | None:
    mean, variance = layer.running_mean, layer.running_var
    if layer.training or mean is None or variance is None:
        return None

    def features(x: Tensor) -> Tensor:
        return _channels(F.batch_norm(x, mean, variance, eps=layer.eps))

    return Reading(features, _channels, *_trained(layer), dims=range(2, 6))


def _lane_batch_norm(layer: LaneBatchNorm) -> Reading | None:
    if layer.training or len(layer.weight) != 1:
        return None

    def channels(x: Tensor) -> Tensor:
        return _channels(x if x.dim() == 4 else x.reshape(len(x), -1, x.shape[-1]).mT)

    def features(x: Tensor) -> Tensor:
        return F.batch_norm(channels(x)[:, :, 0], layer.running_mean[0], layer.running_var[0]).unsqueeze(2)

    def batch_first(x: Tensor, num: int) -> Tensor:
        return x if x.dim() == 4 else _by_input_in_lane(x, num)

    return Reading(features, channels, *_trained(layer), dims=range(3, 5), batch_first=batch_first)


def _over_last(layer: nn.LayerNorm | nn.RMSNorm, normalise: Move) -> Reading:
    size = torch.Size(layer.normalized_shape).numel()

    def outputs(y: Tensor) -> Tensor:
        return y.reshape(len(y), -1, size).mT.unsqueeze(2)

    axes = len(layer.normalized_shape)
    return Reading(
        lambda x: outputs(normalise(x)),
        outputs,
        *_trained(layer),
        dims=range(axes + 1, ANY),
        batch_first=_by_input if axes == 1 else _as_it_is,
    )


def _layer_norm(layer: nn.LayerNorm) -> Reading:
    return _over_last(layer, lambda x: F.layer_norm(x, layer.normalized_shape, eps=layer.eps))


def _rms_norm(layer: nn.RMSNorm) -> Reading:
    return _over_last(layer, lambda x: F.rms_norm(x, list(layer.normalized_shape), eps=layer.eps))


def _group_norm(layer: nn.GroupNorm) -> Reading:
    def features(x: Tensor) -> Tensor:
        return _channels(F.group_norm(x, layer.num_groups, eps=layer.eps))

    return Reading(features, _channels, *_trained(layer), dims=range(2, ANY))


def _lane_layer_norm(layer: LaneLayerNorm) -> Reading | None:
    if len(layer.weight) != 1:
        return None

    def outputs(y: Tensor) -> Tensor:
        return y.reshape(len(y), -1, y.shape[-1]).mT.unsqueeze(2)

    def features(x: Tensor) -> Tensor:
        return outputs(F.layer_norm(x, x.shape[-1:]))

    return Reading(features, outputs, *_trained(layer), dims=range(3, 4), batch_first=_by_input_in_lane)


def _lane_group_norm(layer: LaneGroupNorm) -> Reading | None:
    if len(layer.weight) != 1:
        return None

    def features(x: Tensor) -> Tensor:
        return _channels(F.group_norm(x.contiguous(), layer.num_groups))

    return Reading(features, _channels, *_trained(layer), dims=range(4, 5))


def _places(layer: Positions) -> Reading | None:
    """A vector per place, added: an offset of every element."""
    if len(layer.weight) != 1:
        return None

    def outputs(y: Tensor) -> Tensor:
        return y.reshape(len(y), -1, 1, 1)

    return Reading(outputs, outputs, False, True, dims=range(3, 4), batch_first=_by_input_in_lane)


def _embedding(layer: nn.Embedding) -> Reading | None:
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        return None
    padding = -1 if layer.padding_idx is None else layer.padding_idx

    def features(indices: Tensor) -> Tensor:
        return indices.long().masked_fill(indices == padding, -1).reshape(len(indices), 1, 1, -1)

    return Reading(features, _positions_last, *_trained(layer), dims=range(1, ANY))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    LaneLinear: _lane_linear,
    LaneConv: _lane_conv,
    LaneBatchNorm: _lane_batch_norm,
    LaneLayerNorm: _lane_layer_norm,
    LaneGroupNorm: _lane_group_norm,
    Positions: _places,
}
