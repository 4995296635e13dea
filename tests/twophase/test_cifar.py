"""CIFAR from files of its own formats: byte by byte what was written, and nothing else is taken."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tests import cifar_samples
from twophase.data import DATA, cifar
from twophase.errors import BadInput

every_name = pytest.mark.parametrize("name", cifar_samples.NAMES)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name in cifar_samples.NAMES:
        cifar_samples.make_small(name, monkeypatch)


def assert_is_what_was_written(name, cache):
    for part, found in zip(("train", "test"), cifar.read(name, cache), strict=True):
        pixels, labels = cifar_samples.images_of(name, part)
        assert found.pixels.dtype == np.uint8
        assert np.array_equal(found.pixels, pixels)
        assert np.array_equal(found.labels, labels)


@every_name
def test_the_binary_version_byte_by_byte(name, tmp_path):
    cifar_samples.write_binary(name, tmp_path)
    assert_is_what_was_written(name, tmp_path)


@every_name
def test_the_hub_s_files_byte_by_byte_and_decoded_once(name, tmp_path, monkeypatch):
    cifar_samples.write_parquet(name, tmp_path)
    assert_is_what_was_written(name, tmp_path)
    monkeypatch.setattr(cifar, "read_parquet", lambda *_: pytest.fail("decoded again"))
    assert_is_what_was_written(name, tmp_path)


@every_name
def test_both_formats_give_one_data_set_standardised_by_channel(name, tmp_path):
    cifar_samples.write_binary(name, tmp_path / "one")
    cifar_samples.write_parquet(name, tmp_path / "two", "data")
    one, two = (DATA[name].load(200, 50, 3, tmp_path / folder) for folder in ("one", "two"))
    assert torch.equal(one.train_inputs, two.train_inputs)
    assert torch.equal(one.test_labels, two.test_labels)
    whole = DATA[name].load(cifar_samples.NUM_TRAIN, cifar_samples.NUM_TEST, 0, tmp_path / "one")
    pixels, labels = cifar_samples.images_of(name, "train")
    mean, deviation = (np.array(values).reshape(3, 1, 1) for values in cifar.STATISTICS[name])
    # float32 against float64: a unit in the last place of numbers up to 2.
    np.testing.assert_allclose(whole.train_inputs.numpy(), (pixels / 255 - mean) / deviation, rtol=0, atol=1e-6)
    assert whole.train_labels.tolist() == labels.tolist(), "the whole set keeps the files' order"


def truncated(folder):
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-100])


def altered(folder):
    path = folder / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, r"test_batch.bin must have 368,760 bytes \(120 records of 3,073\), got 368,660; fetch it again"),
        (altered, r"data_batch_3.bin must have SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; fetch it again"),
    ],
)
def test_a_damaged_binary_file_is_refused(damage, words, tmp_path):
    damage(cifar_samples.write_binary("cifar10", tmp_path))
    with pytest.raises(BadInput, match=words) as caught:
        cifar.read("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def rewritten(change):
    def damage(folder):
        path = folder / "train-00000-of-00001.parquet"
        parquet.write_table(change(parquet.read_table(path)), path)

    return damage


def of_shape(*shape):
    def change(table):
        image = cifar_samples.png(np.zeros(shape, dtype=np.uint8))
        rows = [{"bytes": image, "path": None}, *table["img"].to_pylist()[1:]]
        return table.set_column(0, "img", pa.array(rows))

    return change


def garbled(table):
    return table.set_column(0, "img", pa.array([{"bytes": b"no picture", "path": None}] * len(table)))


def cut(folder):
    path = folder / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:1000])


def labels_of_another(table):
    return table.set_column(1, "label", pa.array([77] * len(table)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "must be a Parquet file, got .*; fetch it again"),
        (rewritten(lambda table: table.slice(0, 250)), "must hold 300 examples, got 250; fetch it again"),
        (rewritten(lambda table: table.drop_columns(["label"])), "must have columns img and label, got img"),
        (rewritten(of_shape(3, 28, 32)), "image 0 of .* must be RGB of 32×32, got RGB of 32×28"),
        (rewritten(garbled), "image 0 of .* must be a PNG"),
        (rewritten(labels_of_another), "labels of .* must be from 0 to 9, got 77 to 77; is it cifar10"),
    ],
)
def test_a_damaged_file_of_the_hub_is_refused(damage, words, tmp_path):
    damage(cifar_samples.write_parquet("cifar10", tmp_path))
    with pytest.raises(BadInput, match=words) as caught:
        cifar.read("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        BadInput, match=r"cifar-10-batches-bin/ .*; `pip install 'twophase\[hub\]'` downloads the latter"
    ):
        DATA["cifar10"].prepare(tmp_path)
    cifar_samples.write_binary("cifar10", tmp_path)
    DATA["cifar10"].prepare(tmp_path)


def test_no_more_examples_than_there_are():
    from twophase.config import setting

    assert setting({"data": "cifar10"}).num_train == 50_000
    with pytest.raises(BadInput, match="num_train must be <= 50,000 for data 'cifar10', got 50,001"):
        setting({"data": "cifar10", "num_train": 50_001})
    with pytest.raises(BadInput, match="num_test must be <= 10,000 for data 'cifar100', got 10,001"):
        setting({"data": "cifar100", "num_test": 10_001})
