"""Handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998), as scikit-learn ships them: 1,797 examples."""

from pathlib import Path

import torch

from twophase.data.dataset import Dataset, Source
from twophase.seeding import stream

NUM_CLASSES = 10
NUM_EXAMPLES = 1797


def load(num_train: int, num_test: int, data_seed: int, cache: Path) -> Dataset:  # noqa: ARG001 - nothing to cache
    """Read the digits and split them by a seeded shuffle.

    Args:
        num_train: Number of training examples.
        num_test: Number of test examples; together at most 1,797.
        data_seed: Seed of the split.
        cache: Not used: the files come with scikit-learn.

    Returns:
        Inputs [N, 1, 8, 8], standardised by the mean and deviation of all pixels.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a slow import that only this data set needs

    images, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images).reshape(-1, 1, 8, 8)
    inputs = ((inputs - inputs.mean()) / inputs.std()).float()
    targets = torch.from_numpy(labels).long()
    order = torch.randperm(NUM_EXAMPLES, generator=stream(data_seed, "digits", "split"))
    train, test = order[:num_train], order[num_train : num_train + num_test]
    return Dataset(inputs[train], targets[train], inputs[test], targets[test], NUM_CLASSES)


SOURCE = Source(
    load,
    (1, 8, 8),
    NUM_CLASSES,
    defaults={"num_train": 1437, "num_test": 360, "data_seed": 0},
    max_examples=NUM_EXAMPLES,
)
