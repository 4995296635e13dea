"""What a stream's other end can show."""

import os
from typing import TextIO


def is_live(stream: TextIO) -> bool:
    """Whether lines may be written over: a terminal that knows escape sequences, and nobody who wants none.

    `NO_COLOR` (no-color.org) and ``TERM=dumb`` ask for plain lines, which is also what files and pipes get.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
