"""What every data set becomes: four tensors and the number of classes."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from twophase.seeding import stream


@dataclass(frozen=True)
class Dataset:
    """Inputs and labels, resident in memory.

    Attributes:
        train_inputs: Training inputs, [N, channels, length] or [N, channels, height, width].
        train_labels: Their classes, [N].
        test_inputs: Test inputs, shaped alike.
        test_labels: Their classes.
        num_classes: Number of classes C.
    """

    train_inputs: Float[Tensor, "N ..."]
    train_labels: Int[Tensor, " N"]
    test_inputs: Float[Tensor, "M ..."]
    test_labels: Int[Tensor, " M"]
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, channels first."""
        return tuple(self.train_inputs.shape[1:])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Dataset":
        """Move to a device and precision."""
        return Dataset(
            self.train_inputs.to(device, dtype),
            self.train_labels.to(device),
            self.test_inputs.to(device, dtype),
            self.test_labels.to(device),
            self.num_classes,
        )


Loader = Callable[[int, int, int, Path], Dataset]


@dataclass(frozen=True)
class Source:
    """One entry of the table of data sets.

    Attributes:
        load: (num_train, num_test, data_seed, cache folder) -> Dataset.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.
        defaults: Default of each setting leaf that the data set has.
        max_examples: Greatest num_train + num_test, or 0 for no bound.
        max_train: Greatest num_train, or 0 for no bound of its own.
        max_test: Greatest num_test, or 0 for no bound of its own.
        is_cached: Whether it is generated into the cache folder, or kept there.
        prepare: (cache folder) -> nothing; sees that its files are there or fetches them, and says in one line what is
            missing (BadInput). None where nothing has to be there.
    """

    load: Loader
    input_shape: tuple[int, ...]
    num_classes: int
    defaults: Mapping[str, int]
    max_examples: int = 0
    max_train: int = 0
    max_test: int = 0
    is_cached: bool = False
    prepare: Callable[[Path], None] | None = None


def stratified(labels: Int[Tensor, " N"], size: int, *, seed: int, purpose: str) -> Int[Tensor, " n"]:
    """Draw a class-balanced sample of examples without replacement.

    Args:
        labels: Classes of all examples, [N].
        size: How many to draw; at most N are.
        seed: Seed of the draw.
        purpose: Name of the random stream.

    Returns:
        Indices in ascending order, [min(size, N)]; the classes' counts follow their shares to within one.
    """
    generator = stream(seed, purpose)
    order = torch.randperm(len(labels), generator=generator)
    counts = torch.bincount(labels)
    # The i-th member of a class with n members sits at (i + 1/2) / n: the smallest of these give every class its share.
    ranks = torch.empty(len(labels), dtype=torch.float64)
    for label, count in enumerate(counts.tolist()):
        members = order[labels[order] == label]
        ranks[members] = (torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1)
    return order[ranks[order].argsort(stable=True)[:size]].sort().values


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a cached file of arrays so that two processes at once both end with a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
