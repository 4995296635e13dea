"""A user's own module: found by name, built under a seed, told by a hash of its source."""

import hashlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from twophase.errors import BadInput

FORM = "package.module:function"

Build = Callable[..., object]


def bad_build(build: str, what: str) -> BadInput:
    """An error about the function that builds a user's module, in one line."""
    return BadInput(f"build '{build}' {' '.join(what.split())}")


def say(error: Exception) -> str:
    """An error of a user's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _working_folder_searched() -> Iterator[None]:
    """Let Python look for modules in the working folder, after all others: a console script doesn't by itself."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's own generators for a user's code, which knows no streams, and put them back after."""
    is_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def find(build: str) -> Build:
    """Import the function that builds a module.

    Args:
        build: Its name, ``package.module:function``.

    Returns:
        The function.

    Raises:
        BadInput: The name is malformed, can't be imported, or isn't a function's.
    """
    module, _, function = build.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        raise BadInput(f"build must be given as {FORM} for model 'custom', got {build!r}")
    if module == "__main__":
        raise bad_build(build, "must be in a module that workers can import, not in the program itself")
    try:
        with _working_folder_searched():
            found = pkgutil.resolve_name(build)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise bad_build(build, f"can't be imported: {say(error)}") from error
    if not callable(found):
        raise bad_build(build, f"must be a function, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def make(build: str, input_shape: tuple[int, ...], num_classes: int, seed: int) -> nn.Module:
    """Build a user's module, its draws made under a seed.

    Args:
        build: Name of the function.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.
        seed: Seed of torch's generator while it is built.

    Returns:
        The module, on the CPU.

    Raises:
        BadInput: It can't be built, or isn't a module.
    """
    function = find(build)
    try:
        with _working_folder_searched(), seeded(seed):
            module = function(input_shape=input_shape, num_classes=num_classes)
    except Exception as error:  # a user's code may raise anything
        raise bad_build(
            build, f"failed when called with input_shape={input_shape}, num_classes={num_classes}: {say(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise bad_build(build, f"must return a torch.nn.Module, got {type(module).__name__}")
    return module


@lru_cache
def source_digest(build: str, input_shape: tuple[int, ...], num_classes: int) -> str:
    """Hash the source files that a module is made from.

    These are the files of the function and of the class of every part of the module that isn't torch's. What these
    import beyond that, and files that they read, are not seen.

    Args:
        build: Name of the function.
        input_shape: Shape of one input.
        num_classes: Number of classes.

    Returns:
        SHA-256, first 16 hex digits, of their text but for blanks at the ends of lines and of the file.

    Raises:
        BadInput: It can't be built, or a source file can't be read.
    """
    module = make(build, input_shape, num_classes, seed=0)
    function = find(build)
    seen = {inspect.unwrap(function), sys.modules[build.partition(":")[0]], *map(type, module.modules())}
    own = [part for part in seen if (inspect.getmodule(part) or torch).__name__.partition(".")[0] != "torch"]
    try:
        files = {os.path.realpath(inspect.getsourcefile(part) or "") for part in own if not inspect.isbuiltin(part)}
        texts = {Path(file).read_text(encoding="utf-8") for file in files}
    except (OSError, TypeError, UnicodeError) as error:
        raise bad_build(build, f"must have source files, which tell its versions apart: {say(error)}") from error
    sha = hashlib.sha256()
    for text in sorted("\n".join(line.rstrip() for line in text.splitlines()).strip() for text in texts):
        sha.update(hashlib.sha256(text.encode()).digest())
    return sha.hexdigest()[:16]
