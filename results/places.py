"""Places of studies: folders of this machine and its shared drives, and prefixes of object stores (``s3://…``).

An object store has no rename, and needs none: an upload appears whole, in one instant, when it is complete. What must
appear only if nothing is there yet is uploaded on that condition. Reached through `fsspec`, by `pathlib`'s own names.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from results.errors import StudyError

_LOCAL = ("file", "local")


def place(path: str | os.PathLike[str]) -> Path:
    """The path of a folder or of an address such as ``s3://bucket/runs``.

    Returns:
        A `pathlib.Path`, or an object that answers to its names.

    Raises:
        StudyError: Nothing here reaches such addresses.
    """
    if isinstance(path, Path) or is_remote(path):
        return cast(Path, path)
    text = os.fspath(path)
    protocol, mark, rest = text.partition("://")
    if not mark:
        return Path(text)
    if protocol in _LOCAL:
        return Path(rest)
    try:
        from upath import UPath  # noqa: PLC0415 - an extra, which those who stay on their disks don't need

        # Listings are kept by default; another writer's files would be missed.
        found = UPath(text, use_listings_cache=False)
        found.fs  # noqa: B018 - the file system is made at the first look at it
    except ImportError as error:
        raise StudyError(
            f"root {text!r} is no folder of this machine; "
            f"pip install 'twophase[remote]', and what fsspec needs for it ({error})"
        ) from error
    except ValueError as error:
        raise StudyError(f"cannot reach {text}: {error}; use a folder, or an address that fsspec knows") from error
    return cast(Path, found)


def is_remote(path: object) -> bool:
    """Whether a path made by `place` is an address."""
    return hasattr(path, "fs") and hasattr(path, "protocol")


def ensure_folder(path: Path, *, parents: bool = False) -> None:
    """Makes a folder unless it is there; in an object store a file's name is all there is of it."""
    if not is_remote(path):
        path.mkdir(parents=parents, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it; one that isn't there is fine.

    Raises:
        OSError: The store can't be reached, or refuses.
    """
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    remote = cast(Any, path)
    with _as_os_errors(path), suppress(FileNotFoundError):
        remote.fs.rm(remote.path, recursive=True)


def upload(path: Path, data: bytes, *, is_new: bool = False) -> None:
    """Puts `data` at an address, whole and in one instant.

    Args:
        path: The address.
        data: The whole content.
        is_new: Only if nothing is there.

    Raises:
        FileExistsError: Something is there, and `is_new`.
        OSError: The store can't be reached, or refuses.
    """
    remote = cast(Any, path)
    with _as_os_errors(path):
        if is_new:
            remote.fs.pipe_file(remote.path, data, mode="create")
        else:
            remote.fs.pipe_file(remote.path, data)


def upload_file(source: Path, path: Path) -> None:
    """Puts a file of this machine at an address, whole and in one instant.

    Raises:
        OSError: The store can't be reached, or refuses.
    """
    remote = cast(Any, path)
    with _as_os_errors(path):
        remote.fs.put_file(str(source), remote.path)


def require_reachable(path: Path) -> None:
    """Looks at an address once, before anything is started.

    Raises:
        OSError: The store can't be reached, or refuses.
    """
    with _as_os_errors(path):
        cast(Any, path).fs.exists(cast(Any, path).path)


def arrow_place(path: Path) -> tuple[str, Any]:
    """What Arrow calls a file: its name, and the file system that has it (None: this machine's)."""
    return (cast(Any, path).path, cast(Any, path).fs) if is_remote(path) else (str(path), None)


@contextmanager
def _as_os_errors(path: Path) -> Iterator[None]:
    """Stores raise their makers' own errors (no credentials, no such host): here they are the environment's."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise OSError(errno.EIO, f"{path}: {first}") from error
