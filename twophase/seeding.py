"""Named random streams: every draw comes from (seed, purpose), never from global state."""

import hashlib

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Hash a seed and a purpose to the 63-bit seed of their stream.

    Args:
        seed: The replicate number.
        purpose: What the stream is for, e.g. ``"perturbation", "gaussian", 100, 0``.

    Returns:
        An integer in [0, 2⁶³), the same on every machine.
    """
    text = "/".join(["twophase", str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """Open the random stream of one purpose.

    Streams of different purposes are independent, so that adding children to a trial changes no other draw. They
    live on the CPU: what is drawn doesn't depend on the device that trains.

    Args:
        seed: The replicate number.
        purpose: What the stream is for.

    Returns:
        A CPU generator at the start of its stream.
    """
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))
