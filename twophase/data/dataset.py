"""What every data set becomes: four tensors and the number of classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
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
    """

    load: Loader
    input_shape: tuple[int, ...]
    num_classes: int
    defaults: Mapping[str, int]
    max_examples: int = 0


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
