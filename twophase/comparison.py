"""Children against their reference, at one step: the rows of `chaos` and `path`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from twophase import chaos, lanes
from twophase.evaluation import Evaluator
from twophase.lanes import LaneState
from twophase.perturb import Dose

Row = dict[str, Any]
Align = Callable[[LaneState, int], LaneState]
"""(state, lane of a child) -> two lanes, the reference and the child with its units renumbered to match."""


def compare(
    state: LaneState, evaluator: Evaluator, doses: Sequence[Dose], num_points: int, align: Align | None = None
) -> tuple[list[Row], list[list[Row]]]:
    """Compare every lane with lane 0, in parameters, in predictions and along the straight path between the two.

    Args:
        state: The reference, then its children.
        evaluator: The trial's.
        doses: What each child was given.
        num_points: Points of a path, ends included.
        align: Puts the reference beside a renumbered child, where barriers are wanted so as well.

    Returns:
        Per child a row of measurements, and a list of the path's rows; both without keys.
    """
    apart, cosine = chaos.distance(state), chaos.cosine_dissimilarity(state)
    size, finite = chaos.parameter_norm(state), lanes.is_finite(state)
    own = evaluator.scores(state, recompute=False)
    probabilities, features = evaluator.test_outputs(state)
    unknown = torch.full_like(apart, torch.nan)
    angles = unknown if features is None else chaos.angular_cka(features)
    differing, variation = chaos.disagreement(probabilities), chaos.prediction_distance(probabilities)
    rows, paths = [], []
    for lane, dose in enumerate(doses, start=1):
        points = path(state, lane, evaluator, num_points)
        has_loss = bool((own.train_loss[lane] + own.test_loss[lane]).isfinite())
        rows.append(
            {
                **asdict(dose),
                **distances(float(apart[lane]), float(size[0])),
                "cosine_dissimilarity": float(cosine[lane]),
                **barriers(points),
                "disagreement": float(differing[lane]),
                "prediction_distance": float(variation[lane]),
                "angular_cka": float(angles[lane]),
                "aligned_test_barrier": aligned_barrier(state, lane, evaluator, num_points, align),
                "diverged": not (bool(finite[lane]) and has_loss),
            }
        )
        paths.append(points)
    return rows, paths


def aligned_barrier(state: LaneState, lane: int, evaluator: Evaluator, num_points: int, align: Align | None) -> float:
    """Test barrier to a child renumbered to match lane 0; NaN if that isn't wanted, or a weight isn't finite."""
    if align is None or not bool(lanes.is_finite(lanes.take(state, [0, lane])).all()):
        return math.nan
    points = path(align(state, lane), 1, evaluator, num_points)
    return float(barriers(points)["test_barrier"])


def distances(moved: float, size: float) -> Row:
    """A distance, and the same over the reference's norm."""
    return {"distance": moved, "relative_distance": moved / size}


def path(state: LaneState, lane: int, evaluator: Evaluator, num_points: int) -> list[Row]:
    """Score the straight line from the reference to a lane, one lane per point, statistics recomputed at each."""
    alphas = [i / (num_points - 1) for i in range(num_points)]
    scores = evaluator.scores(chaos.interpolate(state, lane, alphas), recompute=True)
    columns = {
        name: getattr(scores, name).tolist() for name in ("train_loss", "test_loss", "train_error", "test_error")
    }
    return [{"alpha": alpha, **{name: column[i] for name, column in columns.items()}} for i, alpha in enumerate(alphas)]


def barriers(points: Sequence[Mapping[str, float]]) -> Row:
    """Barriers of a path, by column of `chaos`."""
    column = {name: [point[name] for point in points] for name in points[0]}
    alphas = column["alpha"]
    return {
        "train_barrier": chaos.loss_barrier(alphas, column["train_loss"]),
        "test_barrier": chaos.loss_barrier(alphas, column["test_loss"]),
        "barrier_over_max": chaos.barrier_over_max(column["test_loss"]),
        "train_error_barrier": chaos.loss_barrier(alphas, column["train_error"]),
        "test_error_barrier": chaos.loss_barrier(alphas, column["test_error"]),
    }
