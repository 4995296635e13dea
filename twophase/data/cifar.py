"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): colour images of 32×32 pixels, 50,000 to train on and 10,000 to test.

Files are looked for in the cache folder: the binary version's, unpacked (``cifar-10-batches-bin/``,
``cifar-100-binary/``), or the hub's Parquet files (``cifar10/**/train-*.parquet``). Where there are none and
``huggingface_hub`` is installed, these are downloaded.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from twophase.data.cifar_files import (
    CHANNELS,
    SIDE,
    Files,
    Images,
    find_binary,
    find_parquet,
    read_binary,
    read_parquet,
)
from twophase.data.dataset import Dataset, Source, write_arrays
from twophase.errors import BadInput
from twophase.seeding import stream

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of each channel over the training set, of values in [0, 1]."""

CIFAR10 = Files(
    "cifar10",
    "cifar-10-batches-bin",
    {
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    {"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    num_train=50_000,
    num_test=10_000,
    num_classes=10,
    label_bytes=1,
    label_column="label",
    hub="uoft-cs/cifar10",
)
CIFAR100 = Files(
    "cifar100",
    "cifar-100-binary",
    {"train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
    {"test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
    num_train=50_000,
    num_test=10_000,
    num_classes=100,
    label_bytes=2,  # coarse, then fine
    label_column="fine_label",
    hub="uoft-cs/cifar100",
)
FILES = {files.name: files for files in (CIFAR10, CIFAR100)}
STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def prepare(name: str, cache: Path) -> None:
    """See that the files are there, or fetch them.

    Args:
        name: ``cifar10`` or ``cifar100``.
        cache: Folder that holds them.

    Raises:
        BadInput: They aren't there and can't be fetched.
    """
    files = FILES[name]
    if find_binary(cache, files) or find_parquet(cache, files):
        return
    if importlib.util.find_spec("huggingface_hub") is None:
        raise BadInput(
            f"data '{name}' must lie in {cache}, found neither {files.folder}/ (the binary version, unpacked) nor "
            f"{name}/ (Parquet files of {files.hub}); `pip install 'twophase[hub]'` downloads the latter"
        )
    _download(files, cache)


def _download(files: Files, cache: Path) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - an extra
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415 - as above

    try:
        snapshot_download(files.hub, repo_type="dataset", allow_patterns="*.parquet", local_dir=str(cache / files.name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"data '{files.name}' must lie in {cache} or be downloaded, and {files.hub} can't be: {reason}; put "
            f"{files.folder}/ (the binary version, unpacked) there"
        ) from None


def read(name: str, cache: Path) -> tuple[Images, Images]:
    """Read both parts whole, as bytes.

    The hub's images are decoded once and kept in the cache folder beside their files.

    Args:
        name: ``cifar10`` or ``cifar100``.
        cache: Folder that holds the files.

    Returns:
        Training and test images, in the files' order.

    Raises:
        BadInput: The files aren't there, or aren't what they should be.
    """
    prepare(name, cache)
    files = FILES[name]
    if folder := find_binary(cache, files):
        train, test = ({folder / file: digest for file, digest in part.items()} for part in (files.train, files.test))
        return read_binary(train, files.num_train, files), read_binary(test, files.num_test, files)
    found = find_parquet(cache, files)
    if found is None:
        raise BadInput(f"data '{name}' must lie in {cache}, found no {name}/**/train-*.parquet after downloading")
    return _decoded(cache, files, *found)


def _decoded(cache: Path, files: Files, train: list[Path], test: list[Path]) -> tuple[Images, Images]:
    """The hub's images: from what was decoded before, unless the files are newer."""
    path = cache / files.name / "decoded.npz"
    if not path.exists() or path.stat().st_mtime < max(file.stat().st_mtime for file in (*train, *test)):
        first, second = read_parquet(train, files.num_train, files), read_parquet(test, files.num_test, files)
        write_arrays(path, {"x": first.pixels, "y": first.labels, "x_test": second.pixels, "y_test": second.labels})
    with np.load(path) as arrays:
        return Images(arrays["x"], arrays["y"]), Images(arrays["x_test"], arrays["y_test"])


def load(name: str, num_train: int, num_test: int, data_seed: int, cache: Path) -> Dataset:
    """Read the data set, or so many examples of it.

    Args:
        name: ``cifar10`` or ``cifar100``.
        num_train: Number of training examples; fewer than all are drawn by a seeded shuffle, in the files' order.
        num_test: Number of test examples, likewise.
        data_seed: Seed of the shuffle.
        cache: Folder that holds the files.

    Returns:
        Inputs [N, 3, 32, 32]: values in [0, 1], standardised channel by channel with the usual constants of the
        training set.

    Raises:
        BadInput: As `read`.
    """
    train, test = read(name, cache)
    mean, deviation = (torch.tensor(values).view(1, CHANNELS, 1, 1) for values in STATISTICS[name])

    def taken(images: Images, size: int, part: str) -> tuple[Float[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
        generator = stream(data_seed, name, part)
        chosen = torch.randperm(len(images.labels), generator=generator)[:size].sort().values.numpy()
        pixels = torch.from_numpy(images.pixels[chosen]).float() / 255.0
        return (pixels - mean) / deviation, torch.from_numpy(images.labels[chosen]).long()

    return Dataset(*taken(train, num_train, "train"), *taken(test, num_test, "test"), FILES[name].num_classes)


def _source(name: str) -> Source:
    loader: Callable[[int, int, int, Path], Dataset] = partial(load, name)
    files = FILES[name]
    return Source(
        loader,
        (CHANNELS, SIDE, SIDE),
        files.num_classes,
        defaults={"num_train": files.num_train, "num_test": files.num_test, "data_seed": 0},
        max_train=files.num_train,
        max_test=files.num_test,
        is_cached=True,
        prepare=partial(prepare, name),
    )


SOURCE_10, SOURCE_100 = _source("cifar10"), _source("cifar100")
