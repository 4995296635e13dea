"""CIFAR's files as they are handed out: the binary version's records, or the hub's Parquet files of PNG images.

Nothing is unpickled. A file that isn't what it should be is refused in one line, with the way out.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twophase.errors import BadInput

SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Files:
    """What a CIFAR data set's files are.

    Attributes:
        name: The data set.
        folder: Folder of the binary version's files.
        train: Binary files of the training set, in order, with their SHA-256.
        test: Those of the test set.
        num_train: Training examples in all.
        num_test: Test examples in all.
        num_classes: Number of classes C.
        label_bytes: Bytes before an image in the binary version; the last is the class.
        label_column: Column of the class in the hub's files.
        hub: The data set's name on the hub.
    """

    name: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    num_train: int
    num_test: int
    num_classes: int
    label_bytes: int
    label_column: str
    hub: str


@dataclass(frozen=True)
class Images:
    """One part of a data set.

    Attributes:
        pixels: [N, 3, 32, 32], red, green, blue.
        labels: [N].
    """

    pixels: Bytes
    labels: Bytes


def find_binary(cache: Path, files: Files) -> Path | None:
    """The folder that holds all of the binary version's files, if there is one."""
    for folder in (cache / files.folder, cache / files.name):
        if all((folder / name).is_file() for name in (*files.train, *files.test)):
            return folder
    return None


def find_parquet(cache: Path, files: Files) -> tuple[list[Path], list[Path]] | None:
    """The hub's files of both parts, if there are any."""
    train, test = (sorted((cache / files.name).rglob(f"{part}-*.parquet")) for part in ("train", "test"))
    return (train, test) if train and test else None


def read_binary(paths: Mapping[Path, str], num_examples: int, files: Files) -> Images:
    """Read records of label and pixels.

    Args:
        paths: Files in order, with their SHA-256.
        num_examples: Examples that all of them hold together, equally many each.
        files: What data set it is.

    Returns:
        The images, byte by byte as they are stored.

    Raises:
        BadInput: A file has another size or another sum, or holds a label that is no class.
    """
    size = files.label_bytes + PIXELS
    expected = num_examples // len(paths) * size
    parts = []
    for path, digest in paths.items():
        found = path.stat().st_size
        if found != expected:
            raise BadInput(
                f"{path} must have {expected:,} bytes ({expected // size:,} records of {size:,}), got {found:,}; "
                "fetch it again"
            )
        content = path.read_bytes()
        if (own := hashlib.sha256(content).hexdigest()) != digest:
            raise BadInput(f"{path} must have SHA-256 {digest}, got {own}; fetch it again")
        parts.append(np.frombuffer(content, dtype=np.uint8).reshape(-1, size))
    records = np.concatenate(parts)
    labels = records[:, files.label_bytes - 1]
    _check_labels(labels, files, next(iter(paths)))
    return Images(records[:, files.label_bytes :].reshape(-1, CHANNELS, SIDE, SIDE), labels)


def read_parquet(paths: Sequence[Path], num_examples: int, files: Files) -> Images:
    """Read the hub's files: a struct of PNG bytes per image, and its class.

    Args:
        paths: Files in order.
        num_examples: Examples that all of them hold together.
        files: What data set it is.

    Returns:
        The images.

    Raises:
        BadInput: A file is no Parquet, lacks a column, holds something that isn't a 32×32 colour PNG or a label that is
            no class, or there are more or fewer examples.
    """
    images: list[Bytes] = []
    labels: list[int] = []
    for path in paths:
        for content, label in _rows(path, files.label_column):
            images.append(_pixels(content, path, len(images)))
            labels.append(label)
    if len(images) != num_examples:
        raise BadInput(f"{paths[0].parent} must hold {num_examples:,} examples, got {len(images):,}; fetch it again")
    found = np.array(labels, dtype=np.int64)
    _check_labels(found, files, paths[0])
    return Images(np.stack(images), found.astype(np.uint8))


def _rows(path: Path, label_column: str) -> list[tuple[bytes, int]]:
    import pyarrow as pa  # noqa: PLC0415 - only who reads the hub's files needs it
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        table = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} must be a Parquet file, got {str(error).splitlines()[0]}; fetch it again") from None
    image = next((name for name in ("img", "image") if name in table.column_names), None)
    if image is None or label_column not in table.column_names:
        raise BadInput(f"{path} must have columns img and {label_column}, got {', '.join(table.column_names)}")
    structs = table.column(image).to_pylist()
    return [(struct["bytes"], label) for struct, label in zip(structs, table[label_column].to_pylist(), strict=True)]


def _pixels(content: object, path: Path, number: int) -> Bytes:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - as pyarrow above

    try:
        if not isinstance(content, bytes):
            raise UnidentifiedImageError("no bytes")
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            shape = (image.mode, *image.size)
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"image {number} of {path} must be a PNG, got {str(error).splitlines()[0]}") from None
    if shape != ("RGB", SIDE, SIDE):
        raise BadInput(
            f"image {number} of {path} must be RGB of {SIDE}×{SIDE}, got {shape[0]} of {shape[1]}×{shape[2]}"
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_labels(labels: NDArray[np.integer], files: Files, path: Path) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < files.num_classes:
        raise BadInput(
            f"labels of {path.parent} must be from 0 to {files.num_classes - 1}, got {labels.min()} to {labels.max()}; "
            f"is it {files.name}?"
        )
