"""Whether a worker runs the driver's code: an older copy, or a folder of the same name, would leave other numbers."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

PACKAGES = ("twophase", "search_spaces", "results", "study")


@lru_cache(maxsize=1)
def ours() -> dict[str, tuple[str, str]]:
    """Package -> its folder, and a hash of its Python files: a cluster's nodes may have it in other places."""
    return {name: read(Path(str(import_module(name).__file__)).resolve().parent) for name in PACKAGES}


def read(folder: Path) -> tuple[str, str]:
    """A package's folder, and a hash of its Python files."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return str(folder), found.hexdigest()[:16]


def difference(driver: Mapping[str, Sequence[str]]) -> str:
    """Name the first package that isn't the driver's, with both folders, in one line; empty if there is none."""
    for name, (folder, content) in ours().items():
        if driver[name][1] != content:
            return f"worker imports {name} from {folder}, which differs from the driver's in {driver[name][0]}"
    return ""
