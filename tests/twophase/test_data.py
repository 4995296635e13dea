"""Data sets: sizes to the example, the same every time, cached once, and no trace left in global seeds."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import cifar_samples
from twophase.data import DATA, digits, mnist1d, stratified


@pytest.fixture(autouse=True)
def _cifar_is_there(tmp_path, monkeypatch):
    """Small files in CIFAR's own format, wherever a test looks for them."""
    for name in cifar_samples.NAMES:
        cifar_samples.make_small(name, monkeypatch)
        for folder in (tmp_path, tmp_path / "a", tmp_path / "b"):
            cifar_samples.write_binary(name, folder)


FIELDS = ("train_inputs", "train_labels", "test_inputs", "test_labels")


def is_same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


@pytest.mark.parametrize("name", sorted(DATA))
@pytest.mark.parametrize(("num_train", "num_test"), [(60, 20), (57, 16), (1, 3), (95, 5)])
def test_sizes_are_exact(name, num_train, num_test, tmp_path):
    made = DATA[name].load(num_train, num_test, 0, tmp_path)
    assert made.train_inputs.shape == (num_train, *made.input_shape)
    assert made.test_inputs.shape == (num_test, *made.input_shape)
    assert made.train_labels.shape == (num_train,)
    assert made.test_labels.shape == (num_test,)
    assert made.train_inputs.dtype == made.test_inputs.dtype == torch.float32
    assert made.train_labels.dtype == made.test_labels.dtype == torch.int64
    assert made.num_classes == DATA[name].num_classes
    assert set(torch.cat([made.train_labels, made.test_labels]).tolist()) <= set(range(made.num_classes))
    assert made.input_shape == DATA[name].input_shape


def test_shapes_and_classes_are_those_of_the_literature():
    known = {"mnist1d": ((1, 40), 10), "digits": ((1, 8, 8), 10), "synthetic": ((1, 32), 10)}
    known |= {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}
    assert {name: (DATA[name].input_shape, DATA[name].num_classes) for name in known} == known


@pytest.mark.parametrize("name", sorted(DATA))
def test_the_same_again_and_another_for_another_seed(name, tmp_path):
    one = DATA[name].load(60, 20, 0, tmp_path / "a")
    assert is_same(one, DATA[name].load(60, 20, 0, tmp_path / "b"))
    assert not torch.equal(one.train_inputs, DATA[name].load(60, 20, 1, tmp_path / "a").train_inputs)


@pytest.mark.parametrize("name", sorted(DATA))
def test_train_and_test_are_disjoint_and_not_all_one_example(name, tmp_path):
    made = DATA[name].load(200, 100, 0, tmp_path)
    train, test = ({inputs.numpy().tobytes() for inputs in part} for part in (made.train_inputs, made.test_inputs))
    assert len(train) == 200
    assert not train & test


def test_digits_split_holds_every_example_once(tmp_path):
    from sklearn.datasets import load_digits

    made = digits.load(1437, 360, 5, tmp_path)
    everything = torch.cat([made.train_inputs, made.test_inputs]).flatten(1)
    images = torch.from_numpy(load_digits().data)
    expected = ((images - images.mean()) / images.std()).float()
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, expected.tolist()))
    counts = torch.cat([made.train_labels, made.test_labels]).bincount()
    assert counts.tolist() == np.bincount(load_digits().target).tolist()


def test_mnist1d_is_standardised(tmp_path):
    made = mnist1d.load(1000, 200, 42, tmp_path)
    everything = torch.cat([made.train_inputs, made.test_inputs])
    assert float(everything.mean()) == pytest.approx(0, abs=0.05)
    assert float(everything.std()) == pytest.approx(1, abs=0.05)
    assert torch.cat([made.train_labels, made.test_labels]).bincount().tolist() == [120] * 10


def test_mnist1d_is_generated_once(tmp_path, monkeypatch):
    cache = tmp_path / "not" / "there"
    first = mnist1d.load(60, 20, 0, cache)
    (path,) = cache.iterdir()
    assert path.suffix == ".npz"
    monkeypatch.setattr(mnist1d, "_generate", lambda *_: pytest.fail("generated again"))
    assert is_same(first, mnist1d.load(60, 20, 0, cache))
    assert list(cache.iterdir()) == [path]
    for other in ((61, 20, 0), (60, 21, 0), (60, 20, 1)):
        with pytest.raises(pytest.fail.Exception, match="generated again"):
            mnist1d.load(*other, cache)


def test_mnist1d_leaves_global_seeds_alone():
    """Judged around the generator itself: the tests' shape checker draws from Python's global stream."""
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    with mnist1d._global_seeds_kept():
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before


def load_at_once(barrier, answers, cache):
    barrier.wait(timeout=30)
    made = mnist1d.load(57, 16, 9, cache)
    answers.put((len(made.train_labels), len(made.test_labels), float(made.train_inputs.sum())))


def test_two_processes_at_once_both_get_the_data(tmp_path):
    context = multiprocessing.get_context("fork")  # nothing to import anew: both really go at once
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=load_at_once, args=(barrier, answers, tmp_path / "cache")) for _ in range(2)]
    for worker in workers:
        worker.start()
    one, other = answers.get(timeout=60), answers.get(timeout=60)
    for worker in workers:
        worker.join(timeout=30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert one == other
    assert one[:2] == (57, 16)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # and no half file stays


def test_a_file_is_never_seen_half_written(tmp_path, monkeypatch):
    def crash(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="disk full"):
        mnist1d.load(10, 10, 0, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 3))
def test_stratified_samples_are_balanced(labels, size, seed):
    labels = torch.tensor(labels)
    sample = stratified(labels, size, seed=seed, purpose="test")
    taken = min(size, len(labels))
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert len(sample) == taken
    assert set(sample.tolist()) <= set(range(len(labels)))
    shares = labels.bincount(minlength=5).double() * taken / len(labels)
    counts = labels[sample].bincount(minlength=5)
    assert bool(((counts - shares).abs() <= 1 + 1e-9).all())


def test_stratified_samples_of_equal_classes_are_equal_and_random():
    labels = torch.arange(1000) % 10
    one, other = (stratified(labels, 200, seed=seed, purpose="test") for seed in (0, 1))
    assert labels[one].bincount().tolist() == [20] * 10
    assert one.tolist() == stratified(labels, 200, seed=0, purpose="test").tolist()
    assert one.tolist() != other.tolist()
    assert one.tolist() != stratified(labels, 200, seed=0, purpose="another").tolist()
