"""Small files that the first of several workers writes and all read: what they must have in common."""

import contextlib
import os
from pathlib import Path

from results.files import temp_path, write_flushed
from results.places import ensure_folder, is_remote


def pin(path: Path, data: bytes) -> bytes:
    """Put a file there, whole, unless another worker was first.

    Returns:
        What is there now.
    """
    if not path.exists():
        _put(path, data)
    return path.read_bytes()


def _put(path: Path, data: bytes) -> None:
    ensure_folder(path.parent)
    if is_remote(path):
        with contextlib.suppress(FileExistsError):
            write_flushed(path, data)
        return
    temp = temp_path(path)
    write_flushed(temp, data)
    with contextlib.suppress(FileExistsError):
        os.link(temp, path)
    temp.unlink()
