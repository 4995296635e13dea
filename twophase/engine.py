"""Which engine trains a setting fastest: a fixed rule, for the engine belongs to a setting's identity."""

import math

LANES, LOOP, AUTO = "lanes", "loop", "auto"
WIDE = 16 * 32 * 32
"""Activations of a first stage from which one network alone fills a core's caches and vector units."""


def auto_engine(*, is_convolutional: bool, width: int, input_shape: tuple[int, ...], device: str) -> str:
    """Choose an engine, as `benchmarks/engines.md` has it.

    On a CPU a convolutional network of two dimensions whose first stage has many activations is no faster among others
    than alone, and alone it can use channels-last kernels. Whatever else, and on a GPU always: lanes.

    Args:
        is_convolutional: Whether the architecture is.
        width: Channels of its first stage.
        input_shape: Shape of one input, channels first.
        device: Type of device.
    """
    is_wide = len(input_shape) == 3 and width * math.prod(input_shape[1:]) >= WIDE
    return LOOP if device == "cpu" and is_convolutional and is_wide else LANES
