"""Inner products of kernels that come one after the other, without holding them all in memory."""

import tempfile
import weakref
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

MEMORY_BYTES = 1 << 28

BLOCK = 1 << 18
"""Entries multiplied at a time: the same products wherever a kernel is kept."""


class StreamingGram:
    """G_ij = ⟨H_i, H_j⟩_F of kernels in the order of their coming, float64.

    The first kernels stay in memory, the others go to a scratch file that is gone when this object is, or its process.
    A product depends on its two kernels alone: not on where they are kept, nor on kernels that come later.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        """Begin without kernels.

        Args:
            memory_bytes: Bound on the kernels kept in memory; further ones are written to the folder for temporary
                files (`TMPDIR`).
        """
        self._free_bytes = memory_bytes
        self._kernels: list[Tensor] = []
        self._rows: list[list[float]] = []
        self._scratch: BinaryIO | None = None

    def add(self, kernel: Tensor) -> None:
        """Take one more kernel, and its products with itself and all before.

        Args:
            kernel: Of the same shape as the others, on any device.
        """
        kernel = kernel.detach().to("cpu").flatten()
        self._rows.append([*(inner_product(kernel, other) for other in self._kernels), inner_product(kernel, kernel)])
        self._kernels.append(self._kept(kernel))

    def matrix(self) -> Float[NDArray[np.float64], "m m"]:
        """The products so far."""
        gram = np.zeros((len(self._rows), len(self._rows)))
        for i, row in enumerate(self._rows):
            gram[i, : i + 1] = gram[: i + 1, i] = row
        return gram

    def checkpoint(self) -> tuple[list[list[float]], list[Tensor]]:
        """The products so far, row by row, and the kernels, flat."""
        return self._rows, self._kernels

    def resume(self, rows: list[list[float]], kernels: Sequence[Tensor]) -> None:
        """Go on from a checkpoint, as an object without kernels."""
        self._rows, self._kernels = rows, [self._kept(kernel) for kernel in kernels]

    def close(self) -> None:
        """Forget the kernels and remove the scratch file; the products stay."""
        self._kernels = []
        if self._scratch is not None:
            self._scratch.close()

    def _kept(self, kernel: Tensor) -> Tensor:
        size = kernel.numel() * kernel.element_size()
        if size <= self._free_bytes:
            self._free_bytes -= size
            return kernel.clone()
        self._free_bytes = 0
        if self._scratch is None:
            # Without a name, so that not even a killed process leaves it behind.
            self._scratch = tempfile.TemporaryFile(prefix="twophase-kernels-")  # noqa: SIM115 - lives as long as this
            weakref.finalize(self, self._scratch.close)
        begin = self._scratch.seek(0, 2)
        self._scratch.write(kernel.numpy().data)
        self._scratch.flush()
        mapped = np.memmap(self._scratch, kernel.numpy().dtype, "r+", begin, (kernel.numel(),))
        return torch.from_numpy(mapped)


def inner_product(first: Tensor, second: Tensor) -> float:
    """⟨H₁, H₂⟩_F in float64: a product in float32 leaves a kernel 2e-7 from itself."""
    first, second = first.flatten(), second.flatten()
    total = 0.0
    for start in range(0, len(first), BLOCK):
        a, b = (kernel[start : start + BLOCK].to(torch.float64, copy=True) for kernel in (first, second))
        total += float(torch.dot(a, b))
    return total
