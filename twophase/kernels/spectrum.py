"""Greatest eigenvalues of a kernel."""

import torch
from jaxtyping import Float
from torch import Tensor

from twophase.seeding import stream

NUM_EIGENVALUES = 5
DENSE_ROWS = 2048
"""Up to so many rows all eigenvalues are computed, which then takes less time than the kernel did."""

BLOCK = 32
MOST_BLOCKS = 12
TOLERANCE = 1e-10


def top_eigenvalues(kernel: Float[Tensor, "M M"], num: int = NUM_EIGENVALUES) -> tuple[float, ...]:
    """λ₁ ≥ λ₂ ≥ … of a symmetric kernel, in float64.

    Up to 2,048 rows by LAPACK. Of larger kernels by Rayleigh and Ritz in a Krylov space that grows from a block of 32
    fixed random vectors (Musco, Musco 2015, arXiv:1504.05477) until the values stand still to 1e-10 of the greatest; by
    LAPACK after all if they don't. A block, because one vector finds a multiple eigenvalue once: at the start of
    training those of the full kernel come in groups of as many as there are logits.

    Args:
        kernel: The kernel, symmetric and positive semidefinite.
        num: How many.

    Returns:
        The eigenvalues, descending; NaN for those that a smaller kernel lacks, and all NaN where it isn't finite.
    """
    exact = kernel.double()
    scale = float(exact.abs().max())
    count = min(num, len(exact))
    missing = (float("nan"),) * num
    if not bool(exact.isfinite().all()):
        return missing
    exact = exact / (scale or 1.0)  # so that products neither over- nor underflow
    found = _krylov(exact, count) if len(exact) > DENSE_ROWS else None
    if found is None:
        found = torch.linalg.eigvalsh(exact).flip(0)[:count]
    return (*(scale * found).tolist(), *missing[count:])


def _krylov(matrix: Tensor, num: int) -> Tensor | None:
    """The greatest Ritz values once they stand still; None if they don't."""
    start = torch.randn(len(matrix), BLOCK, dtype=torch.float64, generator=stream(0, "eigenvalues"))
    block = torch.linalg.qr(start.to(matrix.device)).Q
    basis, before = block, None
    for _ in range(MOST_BLOCKS):
        block = matrix @ block
        block = block - basis @ (basis.T @ block)
        block = block - basis @ (basis.T @ block)  # twice is enough (Giraud, Langou, Rozložník 2005)
        block = torch.linalg.qr(block).Q
        basis = torch.cat([basis, block], 1)
        values: Tensor = torch.linalg.eigvalsh(basis.T @ (matrix @ basis)).flip(0)[:num]
        if before is not None and bool((values - before).abs().max() <= TOLERANCE * values[0]):
            return values
        before = values
    return None
