"""How far a child is from its reference: distances, barriers, disagreement. NaN in gives NaN out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from twophase.lanes import LaneState

INDICATORS: dict[str, float] = {
    "test_barrier": 0.05,
    "train_barrier": 0.05,
    "barrier_over_max": 0.05,
    "test_error_barrier": 0.02,
    "train_error_barrier": 0.02,
    "disagreement": 0.05,
}
"""Columns that fall when a child connects to its reference, each with its default threshold.

Losses in nats; errors as fractions, 2 % as in Frankle et al. (2020).
"""


def distance(state: LaneState, of: int = 0) -> Float[Tensor, " K"]:
    """‖θ_k − θ_of‖₂ over all parameters, for every lane, in float64."""
    total = torch.zeros(state.num_lanes, dtype=torch.float64, device=next(state.tensors()).device)
    for value in state.parameters.values():
        exact = value.double().flatten(1)
        total += (exact - exact[of]).square().sum(1)
    return total.sqrt()


def parameter_norm(state: LaneState) -> Float[Tensor, " K"]:
    """‖θ_k‖₂ over all parameters, for every lane, in float64."""
    total = torch.zeros(state.num_lanes, dtype=torch.float64, device=next(state.tensors()).device)
    # One after the other: a sum down a column rounds by how many columns there are.
    for value in state.parameters.values():
        total += value.double().flatten(1).square().sum(1)
    return total.sqrt()


def cosine_dissimilarity(state: LaneState, of: int = 0) -> Float[Tensor, " K"]:
    """1 − cos(θ_k, θ_of), the C of Zhou et al. (2025), figure 3a.

    Computed as ½ ‖θ_k/‖θ_k‖ − θ_of/‖θ_of‖‖², which is the same and keeps its digits when the two almost coincide.
    """
    size = parameter_norm(state)
    total = torch.zeros_like(size)
    for value in state.parameters.values():
        unit = value.double().flatten(1) / size.unsqueeze(1)
        total += (unit - unit[of]).square().sum(1)
    return 0.5 * total


def interpolate(state: LaneState, child: int, alphas: Sequence[float], of: int = 0) -> LaneState:
    """Put a lane at every point of the straight line θ(α) = (1 − α) θ_of + α θ_child; exact at both ends."""

    def points(value: Tensor) -> Tensor:
        weights = torch.tensor(list(alphas), dtype=value.dtype, device=value.device)
        shape = (-1, *([1] * (value.dim() - 1)))
        return torch.lerp(value[of : of + 1], value[child : child + 1], weights.view(shape))

    return LaneState(
        {name: points(value) for name, value in state.parameters.items()},
        # Statistics on the path are recomputed: what stands here is not used.
        {
            name: value[of : of + 1].repeat(len(alphas), *[1] * (value.dim() - 1))
            for name, value in state.buffers.items()
        },
        {},
    )


def loss_barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Greatest rise of a path's loss above the chord between its ends.

    max over α of L(α) − [(1 − α) L(0) + α L(1)] (Frankle et al. 2020, arXiv:1912.05671, with the chord in place of
    the mean).

    Args:
        alphas: Points on the path, ascending, the ends first and last.
        losses: Loss at each point.

    Returns:
        The barrier, at least 0; NaN if any loss is NaN.

    Raises:
        ValueError: Fewer than two points, lengths that differ, or points that do not ascend.
    """
    where = torch.as_tensor(alphas, dtype=torch.float64)
    height = torch.as_tensor(losses, dtype=torch.float64)
    if where.dim() != 1 or where.shape != height.shape or len(where) < 2:
        raise ValueError(
            f"alphas and losses must be of one length >= 2, got {tuple(where.shape)} and {tuple(height.shape)}"
        )
    if not bool((where.diff() > 0).all()):
        raise ValueError(f"alphas must ascend strictly, got {where.tolist()}")
    share = (where - where[0]) / (where[-1] - where[0])
    # At the ends the rise is 0 by definition; computed, it could be a rounding error above or below.
    rise = (height - (height[0] + share * (height[-1] - height[0])))[1:-1]
    return float(torch.cat([_zero_or_nan(height), rise]).max())


def barrier_over_max(losses: Sequence[float]) -> float:
    """Greatest rise of a path's loss above its worse end; NaN if any loss is NaN."""
    height = torch.as_tensor(losses, dtype=torch.float64)
    rise = height - torch.maximum(height[0], height[-1])
    return float(torch.cat([_zero_or_nan(height), rise]).max())


def _zero_or_nan(height: Tensor) -> Tensor:
    """[0], or [NaN] if anything is NaN or both ends are infinite: torch's max then hands it on."""
    is_known = not bool(height.isnan().any()) and bool((height[0] - height[-1]).isfinite())
    return torch.tensor([0.0 if is_known else float("nan")], dtype=torch.float64)


def disagreement(probabilities: Float[Tensor, "K N C"], of: int = 0) -> Float[Tensor, " K"]:
    """Share of inputs on which a lane's argmax differs from the reference's."""
    choice = probabilities.argmax(-1)
    share = (choice != choice[of]).double().mean(1)
    return _nan_where_unknown(share, probabilities, of)


def prediction_distance(probabilities: Float[Tensor, "K N C"], of: int = 0) -> Float[Tensor, " K"]:
    """Mean total variation ½ Σ_c |p_c − q_c| between a lane's predictions and the reference's."""
    exact = probabilities.double()
    return 0.5 * (exact - exact[of]).abs().sum(-1).mean(1)


def angular_cka(features: Float[Tensor, "K N F"], of: int = 0) -> Float[Tensor, " K"]:
    """Angle between the centred linear representations of a lane and of the reference, in radians.

    arccos CKA with CKA = ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) for features X, Y whose means over the inputs are taken off: the
    angle between the Gram matrices XXᵀ and YYᵀ (Kornblith et al. 2019, arXiv:1905.00414; as a metric: Williams et al.
    2021, arXiv:2110.14739). It is 0 for features that differ by a rotation and a scale, π/2 at most. An arccos
    near 1 has half the digits: angles below 1e-7 are rounding.

    Args:
        features: F features of N inputs for every lane.
        of: The reference.

    Returns:
        The angles; NaN where a feature is not finite or none varies.
    """
    reference = _centred(features[of])
    own = (reference.T @ reference).square().sum()
    angles = []
    for lane in features:
        other = _centred(lane)
        squares = (other.T @ reference).square().sum()
        # The root of a square is exact: features of equal bits are at exactly 0.
        cosine = squares / ((other.T @ other).square().sum() * own).sqrt()
        angles.append(cosine.clamp(max=1.0).arccos())
    return torch.stack(angles)


def _centred(features: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
    exact = features.double()
    return exact - exact.mean(0)


def _nan_where_unknown(values: Tensor, probabilities: Tensor, of: int) -> Tensor:
    is_unknown = probabilities.isnan().flatten(1).any(1)
    return values.masked_fill(is_unknown | is_unknown[of], float("nan"))
