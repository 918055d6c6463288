"""Variance, spectrum and subspace: laws that hold whatever the rows."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.quality import spectrum_overlap, subspace_capture, variance_ratio

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(60, 8)) * np.linspace(3, 0.2, 8)).astype(np.float32)
ROTATION = np.linalg.qr(RNG.normal(size=(8, 8)))[0]


def test_equal_rows_agree_in_everything():
    assert variance_ratio(X, X) == pytest.approx(1)
    assert spectrum_overlap(X, X) == pytest.approx(1)
    assert subspace_capture(X, X) == pytest.approx(1)


def test_the_mean_says_nothing_of_variance():
    assert variance_ratio(X, X + 7) == pytest.approx(1, rel=1e-4)
    assert spectrum_overlap(X, X + 7) == pytest.approx(1, abs=1e-4)
    assert subspace_capture(X, X + 7) == pytest.approx(1, abs=1e-4)


def test_scale_is_the_ratio_and_nothing_else():
    assert variance_ratio(X, 2 * X) == pytest.approx(4)
    assert spectrum_overlap(X, 2 * X) == pytest.approx(1)
    assert subspace_capture(X, 2 * X) == pytest.approx(1)


def test_a_rotation_keeps_the_spectrum_and_loses_the_subspace():
    turned = X @ ROTATION
    assert variance_ratio(X, turned) == pytest.approx(1, rel=1e-5)
    assert spectrum_overlap(X, turned) == pytest.approx(1, abs=1e-5)
    assert subspace_capture(X, turned, rank=2) < 0.7


@pytest.mark.parametrize("n, m", [(60, 50), (7, 6), (6, 40)])
def test_they_are_their_formulas(n, m):
    """With more rows than features, and fewer."""
    made = (RNG.normal(size=(m, 8)) * np.linspace(1, 2, 8)).astype(np.float32)
    X = (RNG.normal(size=(n, 8)) * np.linspace(3, 0.2, 8)).astype(np.float32)
    S, T = np.cov(X.T.astype(float)), np.cov(made.T.astype(float))
    p, q = (np.sort(np.linalg.eigvalsh(each))[::-1] for each in (S, T))
    U = np.linalg.eigh(T)[1][:, ::-1][:, :3]
    assert variance_ratio(X, made) == pytest.approx(np.trace(T) / np.trace(S), rel=1e-9)
    assert spectrum_overlap(X, made) == pytest.approx(np.minimum(p / p.sum(), q / q.sum()).sum())
    assert spectrum_overlap(X, made) == pytest.approx(1 - np.abs(p / p.sum() - q / q.sum()).sum() / 2)
    assert subspace_capture(X, made, 3) == pytest.approx(np.trace(U.T @ S @ U) / p[:3].sum())


@pytest.mark.parametrize("made", [X[:1], np.repeat(X[:1], 20, axis=0)])
def test_rows_that_do_not_vary_have_none_of_it(made):
    assert variance_ratio(X, made) == 0
    assert spectrum_overlap(X, made) == 0
    assert subspace_capture(X, made) == 0


@pytest.mark.parametrize("real", [X[:1], np.repeat(X[:1], 20, axis=0)])
def test_against_real_rows_that_do_not_vary_nothing_is_measured(real):
    for measure in (variance_ratio, spectrum_overlap, subspace_capture):
        assert np.isnan(measure(real, X))


def test_few_directions_overlap_little():
    """Rows on a line, as two rows copied are, against rows that fill eight dimensions."""
    line = np.outer(RNG.normal(size=40), X[0])
    round_rows = RNG.normal(size=(400, 8))
    assert spectrum_overlap(round_rows, line) == pytest.approx(1 / 8, abs=0.05)
    assert subspace_capture(round_rows, line, 4) == pytest.approx(1 / 4, abs=0.05)
