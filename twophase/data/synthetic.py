"""Gaussian clusters in one dimension's worth of positions: one per class, drawn, not downloaded."""

from pathlib import Path

import torch

from twophase.data.dataset import Dataset, Source
from twophase.seeding import stream

NUM_CLASSES = 10
LENGTH = 32
SEPARATION = 0.5
"""Deviation of the clusters' means; that of an example about its cluster's is 1, in every position."""


def load(num_train: int, num_test: int, data_seed: int, cache: Path) -> Dataset:  # noqa: ARG001 - nothing to cache
    """Draw the clusters and examples of them, classes in turn.

    Args:
        num_train: Number of training examples.
        num_test: Number of test examples.
        data_seed: Seed of the clusters and the examples.
        cache: Not used.

    Returns:
        Inputs x = μ_y + N(0, 1), μ_y ~ N(0, 0.5²) in every position; [N, 1, 32].
    """
    means = SEPARATION * torch.randn(NUM_CLASSES, 1, LENGTH, generator=stream(data_seed, "synthetic", "means"))
    train, test = torch.arange(num_train) % NUM_CLASSES, torch.arange(num_test) % NUM_CLASSES
    return Dataset(
        means[train] + torch.randn(num_train, 1, LENGTH, generator=stream(data_seed, "synthetic", "train")),
        train,
        means[test] + torch.randn(num_test, 1, LENGTH, generator=stream(data_seed, "synthetic", "test")),
        test,
        NUM_CLASSES,
    )


SOURCE = Source(load, (1, LENGTH), NUM_CLASSES, defaults={"num_train": 4000, "num_test": 1000, "data_seed": 0})
