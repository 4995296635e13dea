"""Small files in CIFAR's own formats, and what they hold."""

import hashlib
import io
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from twophase.data import cifar

NAMES = ("cifar10", "cifar100")
NUM_TRAIN, NUM_TEST = 300, 120


@cache
def images_of(name, part):
    """Pixels [N, 3, 32, 32] and labels [N] of one part, drawn."""
    number = NUM_TRAIN if part == "train" else NUM_TEST
    drawn = np.random.default_rng([len(name), number])
    pixels = drawn.integers(0, 256, (number, 3, 32, 32), dtype=np.uint8)
    return pixels, (np.arange(number) % cifar.FILES[name].num_classes).astype(np.uint8)


def binary_files(name):
    """File -> bytes: label (CIFAR-100: coarse and fine), then red, green and blue of each image."""
    files, made = cifar.FILES[name], {}
    for part in ("train", "test"):
        pixels, labels = images_of(name, part)
        before = [labels] if name == "cifar10" else [labels // 5, labels]
        records = np.concatenate([np.stack(before, 1), pixels.reshape(len(labels), -1)], 1)
        names = list(getattr(files, part))
        for file, some in zip(names, np.split(records, len(names)), strict=True):
            made[file] = some.tobytes()
    return made


def make_small(name, monkeypatch):
    """Let the program expect these files: their number of examples and their sums."""
    files, made = cifar.FILES[name], binary_files(name)
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in made.items()}
    train, test = ({file: sums[file] for file in part} for part in (files.train, files.test))
    small = replace(files, train=train, test=test, num_train=NUM_TRAIN, num_test=NUM_TEST)
    monkeypatch.setitem(cifar.FILES, name, small)


def write_binary(name, cache_folder):
    folder = cache_folder / cifar.FILES[name].folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in binary_files(name).items():
        (folder / file).write_bytes(content)
    return folder


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(out, format="PNG")
    return out.getvalue()


def write_parquet(name, cache_folder, subfolder="plain_text"):
    """As the hub has them: a struct of bytes and path, and the label under the data set's own name."""
    folder = cache_folder / name / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        pixels, labels = images_of(name, part)
        images = [{"bytes": png(one), "path": None} for one in pixels]
        columns = {"img": images, cifar.FILES[name].label_column: labels.astype(np.int64)}
        parquet.write_table(pa.table(columns), folder / f"{part}-00000-of-00001.parquet")
    return folder
