"""Loops that numba compiles: of small arrays, where a call of torch's takes longer than its arithmetic.

A module of such loops takes a second to import, which only those pay who come to use one: it is imported there.
"""

from collections.abc import Callable
from typing import Any

import numba

FREEDOMS = {"contract", "nsz", "reassoc"}
"""Sums may be taken in any order, the same for every row; NaN and infinity stay what they are."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep that for other processes where there is a place for it."""
    options: dict[str, Any] = {"fastmath": FREEDOMS, "error_model": "numpy", "nogil": True}
    try:
        kernel: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache folder can anything be written
        kernel = numba.njit(**options)(function)
    return kernel
