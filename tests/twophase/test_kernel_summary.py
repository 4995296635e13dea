"""The distance between kernels against its formula, and what is said of one kernel."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twophase import kernel_distance
from twophase.errors import BadInput
from twophase.kernel import summarise
from twophase.kernels import spectrum
from twophase.kernels.spectrum import top_eigenvalues

matrices = st.integers(0, 10_000).map(
    lambda seed: torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
)


@given(matrices, matrices, st.sampled_from([1e-3, 7.0, 1e160, 1e-160]))
def test_the_distance_is_one_minus_the_cosine_and_blind_to_scale(first, second, scale):
    expected = 1 - float((first * second).sum() / (first.norm() * second.norm()))
    assert kernel_distance(first, second) == pytest.approx(expected, abs=1e-14)
    assert kernel_distance(first, scale * second) == pytest.approx(expected, abs=1e-14)
    assert kernel_distance(second, first) == kernel_distance(first, second)
    assert kernel_distance(first, first) == 0


def test_the_distance_of_almost_equal_kernels_keeps_its_digits():
    first = torch.eye(4, dtype=torch.float64)
    second = first.clone()
    second[0, 1] = 1e-9
    # tan φ = 1e-9/2, and 1 − cos φ = φ²/2; as a difference from 1 it would be 0.
    assert kernel_distance(first, second) == pytest.approx(1.25e-19, rel=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.full((3, 3), math.nan), torch.full((3, 3), math.inf)])
def test_the_distance_to_what_is_no_kernel_is_unknown(bad):
    assert math.isnan(kernel_distance(torch.eye(3), bad))


def test_the_distance_of_what_is_not_two_kernels_of_one_size():
    with pytest.raises(BadInput, match=r"one shape, got \(3, 3\) and \(2, 2\)"):
        kernel_distance(torch.eye(3), torch.eye(2))
    with pytest.raises(BadInput, match=r"non-empty tensors, got shape \(0, 0\)"):
        kernel_distance(torch.eye(0), torch.eye(0))
    with pytest.raises(BadInput, match="tensors, got ndarray"):
        inspect.unwrap(kernel_distance)(torch.eye(3).numpy(), torch.eye(3))


def test_a_summary_against_its_formulas():
    labels = torch.tensor([0, 1, 2, 0])
    root = torch.randn(12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = root @ root.T
    target = torch.zeros(4, 3, dtype=torch.float64)
    target[torch.arange(4), labels] = 1
    y = (target - target.mean(0)).reshape(12)
    found = summarise(kernel, labels, 3)
    assert found.norm == pytest.approx(float(kernel.norm()), rel=1e-12)
    assert found.trace == pytest.approx(float(kernel.trace()), rel=1e-12)
    assert found.effective_rank == pytest.approx(float(kernel.trace() ** 2 / kernel.norm() ** 2), rel=1e-12)
    assert found.alignment == pytest.approx(float(y @ kernel @ y / (kernel.norm() * (y @ y))), rel=1e-12)
    huge = summarise(1e200 * kernel, labels, 3)
    assert (huge.effective_rank, huge.alignment) == pytest.approx((found.effective_rank, found.alignment), rel=1e-12)
    assert huge.norm == pytest.approx(1e200 * found.norm, rel=1e-12)
    assert math.isnan(summarise(0 * kernel, labels, 3).effective_rank)
    values = torch.linalg.svdvals(kernel)[:5].tolist()  # of a positive semidefinite matrix the same
    assert found.eigenvalues == pytest.approx(values, rel=1e-12)
    assert huge.eigenvalues == pytest.approx([1e200 * value for value in values], rel=1e-12)
    assert found.row["eigenvalue_2"] == found.eigenvalues[1]


def test_eigenvalues_of_a_large_kernel_are_those_of_a_small_one_s(monkeypatch):
    """Each tenfold, as at the start of training, which one vector's Krylov space has once."""
    root = torch.randn(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    root = root * 0.5 ** torch.arange(20)
    kernel = torch.kron(root @ root.T, torch.eye(10, dtype=torch.float64)) + 0.1 * torch.eye(300, dtype=torch.float64)
    expected = torch.linalg.svdvals(kernel)[:5].tolist()
    assert top_eigenvalues(kernel) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(spectrum, "DENSE_ROWS", 100)
    assert top_eigenvalues(kernel) == pytest.approx(expected, rel=1e-9)
    assert spectrum._krylov(kernel, 5) is not None
    assert top_eigenvalues(kernel) == top_eigenvalues(kernel)
    slow = torch.diag(1 - 1e-3 * torch.arange(300.0))  # left to LAPACK after all
    assert top_eigenvalues(slow) == pytest.approx((1, 0.999, 0.998, 0.997, 0.996))


def test_eigenvalues_that_are_not_there_are_unknown():
    assert str(top_eigenvalues(torch.diag(torch.tensor([1.0, 3.0])))) == "(3.0, 1.0, nan, nan, nan)"
    assert str(top_eigenvalues(torch.full((9, 9), math.nan))) == str((math.nan,) * 5)
    assert top_eigenvalues(torch.zeros(6, 6)) == (0.0,) * 5


def test_a_kernel_that_is_the_labels_is_aligned_and_has_their_rank():
    labels = torch.arange(9) % 3
    centred = torch.eye(3, dtype=torch.float64)[labels] - 1 / 3
    found = summarise(centred @ centred.T, labels, 3)
    # On the two directions in which centred one-hot labels of three equal classes lie, all eigenvalues are equal.
    assert found.effective_rank == pytest.approx(2, rel=1e-12)
    assert found.alignment == pytest.approx(1 / math.sqrt(2), rel=1e-12)
