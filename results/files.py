"""Files that are whole or not there.

Written under a temporary name that begins with a dot (readers of Parquet folders skip it), flushed to the disk,
renamed, and the folder flushed: a kill or a power cut leaves the old file or the new one. In an object store one upload
does it all.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.places import is_remote, upload

TEMP_SUFFIX = ".tmp"


def temp_path(path: Path) -> Path:
    """A fresh temporary name beside `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMP_SUFFIX}")


def is_temp(path: Path) -> bool:
    """Whether `path` has a name made by `temp_path`."""
    return path.name.startswith(".") and path.name.endswith(TEMP_SUFFIX)


def flush_folder(folder: Path) -> None:
    """Makes renames and removals in `folder` last through a power cut; an object store's last by themselves."""
    if is_remote(folder):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a file that must not exist yet, down to the disk.

    Raises:
        FileExistsError: it exists.
        OSError: the disk is full or fails; says in which folder, which a failed write itself doesn't.
    """
    if is_remote(path):
        upload(path, data, is_new=True)
        return
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path.parent)) from error


def write_bytes(path: Path, data: bytes, before_replace: Callable[[], None] | None = None) -> None:
    """Puts `data` at `path` in one instant.

    Args:
        path: the file; its folder must exist.
        data: the whole content.
        before_replace: called last before the file appears; if it raises, nothing appears.
    """
    if is_remote(path):
        if before_replace is not None:
            before_replace()
        upload(path, data)
        return
    temp = temp_path(path)
    try:
        write_flushed(temp, data)
        if before_replace is not None:
            before_replace()
        temp.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    flush_folder(path.parent)


def json_bytes(value: Any) -> bytes:
    """Strict JSON (no NaN, no infinity).

    Raises:
        ValueError: on a number that JSON does not have.
        TypeError: on anything else it does not have.
    """
    return (json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1) + "\n").encode()


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file; strings are dictionary-encoded inside it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
