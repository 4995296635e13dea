"""Random changes of training inputs: one draw per step, for every place in the minibatch, shared by all lanes."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHIFT_FRACTION = 8
"""A shift is at most an eighth of a dimension, as 4 of 32 pixels are."""

MIRRORED_FRACTION = 0.5

Augmentation = Callable[[Tensor, int, torch.Generator], Tensor]
"""(minibatch [..., B, channels, *positions], number of dimensions of the positions, stream) -> minibatch."""


def shift(inputs: Tensor, num_dims: int, generator: torch.Generator) -> Tensor:
    """Shift every example by its own number of positions in each dimension, zeros coming in.

    Shifts are uniform from −s to s, s an eighth of the dimension's size, at least 1. In two dimensions this is the
    random crop from a zero-padded image.

    Args:
        inputs: A minibatch that all lanes share, [B, channels, *positions], or one per lane, [K, B, channels, ...];
            the same draw at the same place of each.
        num_dims: Number of dimensions of the positions, 1 or 2.
        generator: CPU stream of this step.

    Returns:
        The shifted minibatch.
    """
    batch = inputs.shape[-num_dims - 2]
    for dim in range(-num_dims, 0):
        most = max(1, inputs.shape[dim] // SHIFT_FRACTION)
        offsets = torch.randint(-most, most + 1, (batch,), generator=generator).to(inputs.device)
        inputs = _moved(inputs, offsets, dim, num_dims)
    return inputs


def flip_shift(inputs: Tensor, num_dims: int, generator: torch.Generator) -> Tensor:
    """Mirror every other example, by chance, along the last dimension; then shift it.

    In two dimensions this is the usual augmentation of CIFAR: horizontal flip and random crop (He et al. 2016).

    Args:
        inputs: As `shift` takes it.
        num_dims: Number of dimensions of the positions, 1 or 2.
        generator: CPU stream of this step.

    Returns:
        The minibatch, mirrored and shifted.
    """
    batch = inputs.shape[-num_dims - 2]
    is_mirrored = torch.rand(batch, generator=generator).to(inputs.device) < MIRRORED_FRACTION
    is_mirrored = is_mirrored.view(batch, *[1] * (num_dims + 1))
    return shift(torch.where(is_mirrored, inputs.flip(-1), inputs), num_dims, generator)


def _moved(inputs: Float[Tensor, "..."], offsets: Int[Tensor, " B"], dim: int, num_dims: int) -> Float[Tensor, "..."]:
    """Put at each position what stood `offset` before it, 0 where that is outside."""
    size = inputs.shape[dim]
    source = torch.arange(size, device=inputs.device) - offsets.unsqueeze(1)
    shape = [len(offsets), 1, *[1] * num_dims]
    shape[dim] = size
    source = source.view(shape)
    moved = torch.take_along_dim(inputs, source.clamp(0, size - 1).expand(*inputs.shape), dim)
    return moved * ((source >= 0) & (source < size))


AUGMENTATIONS: dict[str, Augmentation | None] = {"none": None, "shift": shift, "flip_shift": flip_shift}
