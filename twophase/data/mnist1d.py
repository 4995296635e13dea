"""MNIST-1D (Greydanus & Kobak 2020, arXiv:2011.14439): procedural digits of 40 samples in one dimension."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twophase.data.dataset import Dataset, Source, write_arrays

NUM_CLASSES = 10


def load(num_train: int, num_test: int, data_seed: int, cache: Path) -> Dataset:
    """Generate the data set, or read it where it was generated before.

    Args:
        num_train: Number of training examples.
        num_test: Number of test examples.
        data_seed: Seed of the generator.
        cache: Folder that keeps generated sets; made if missing.

    Returns:
        Inputs [N, 1, 40], standardised over the whole set.
    """
    request = {"num_train": num_train, "num_test": num_test, "seed": data_seed}
    identity = json.dumps({"mnist1d": version("mnist1d"), "numpy": np.__version__, **request}, sort_keys=True)
    path = cache / f"mnist1d-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        write_arrays(path, _generate(num_train, num_test, data_seed))
    with np.load(path) as arrays:
        return Dataset(
            torch.from_numpy(arrays["x"]).unsqueeze(1),
            torch.from_numpy(arrays["y"]),
            torch.from_numpy(arrays["x_test"]).unsqueeze(1),
            torch.from_numpy(arrays["y_test"]),
            NUM_CLASSES,
        )


def _generate(num_train: int, num_test: int, data_seed: int) -> dict[str, NDArray[Any]]:
    from mnist1d.data import get_dataset_args, make_dataset  # noqa: PLC0415 - takes a second, needed once per data set

    args = get_dataset_args()
    # The generator makes equally many of each class, so it is asked for a multiple of ten.
    args.num_samples = -(-(num_train + num_test) // NUM_CLASSES) * NUM_CLASSES
    # int(num_samples * train_split) is its rule; half an example more keeps rounding from losing one.
    args.train_split = (num_train + 0.5) / args.num_samples
    args.seed = data_seed
    with _global_seeds_kept():
        made = make_dataset(args)
    return {
        "x": made["x"].astype(np.float32),
        "y": made["y"].astype(np.int64),
        "x_test": made["x_test"][:num_test].astype(np.float32),
        "y_test": made["y_test"][:num_test].astype(np.int64),
    }


@contextmanager
def _global_seeds_kept() -> Iterator[None]:
    """Put the global generators back as they were: the package seeds Python's and numpy's."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is what leaks
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


SOURCE = Source(
    load, (1, 40), NUM_CLASSES, defaults={"num_train": 4000, "num_test": 1000, "data_seed": 42}, is_cached=True
)
