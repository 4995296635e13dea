"""Kinds of kernel: what of the C logits of an input it is made of.

Every kind is the Gram matrix of w(x) J(x), with J(x) = ∂f(x)/∂θ, [C, P], and w(x), [R, C], that reads the logits out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.seeding import stream


@dataclass(frozen=True)
class Kind:
    """One kind of kernel.

    Attributes:
        read: (logits [N, C], labels [N], seed) -> w, [N, R, C].
        is_per_logit: Whether R is C; 1 where not.
        is_summed: Whether the kernel is the sum over the R rows, [N, N], instead of [N·R, N·R].
        uses_logits: Whether w depends on the logits' values.
        has_diagonal: Whether the diagonal says something; it is 0 where not, and trace and rank are then unknown.
    """

    read: Callable[[Tensor, Tensor | None, int], Tensor]
    is_per_logit: bool = False
    is_summed: bool = False
    uses_logits: bool = False
    has_diagonal: bool = True


def _all_logits(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    return torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device).expand(len(logits), -1, -1)


def _scaled_sum(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    return torch.full_like(logits, 1.0 / math.sqrt(logits.shape[1])).unsqueeze(1)


def _loss_gradient(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    if labels is None:
        raise BadInput("labels must be given for kernel 'loss_gradient', got None")
    return (logits.softmax(1) - nn.functional.one_hot(labels, logits.shape[1])).unsqueeze(1)


def _random_signs(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    signs = torch.randint(0, 2, logits.shape, generator=stream(seed, "kernel projection")) * 2 - 1
    return signs.to(logits).unsqueeze(1)


KINDS: dict[str, Kind] = {
    "full": Kind(_all_logits, is_per_logit=True),
    "trace": Kind(_all_logits, is_per_logit=True, is_summed=True),
    "pseudo": Kind(_scaled_sum),
    "loss_gradient": Kind(_loss_gradient, uses_logits=True),
    "projection": Kind(_random_signs, has_diagonal=False),
}
