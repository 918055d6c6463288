"""smote: between a row and its neighbours, by the law written out over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError
from ltstore.rows import ArrayRows
from ltstore.sampling import smote
from ltstore.sampling.smote import SmoteSampler, SmoteSettings
from support.tail_rows import DRAWS, assert_law, fitted, made_rows, of_class


def neighbours(X, k, metric="l2"):
    """(n, k) by the definition: itself left out by its place, ties in order."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    score = -((X[:, None] - X) ** 2).sum(axis=2) if metric == "l2" else unit @ unit.T
    np.fill_diagonal(score, -np.inf)
    return np.argsort(-score, axis=1, kind="stable")[:, : min(k, len(X) - 1)]


@pytest.mark.parametrize("c, k", [(0, 5), (1, 1), (2, 3), (2, 50)])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_mean_and_covariance(c, k, metric):
    """x = a + u (b - a): E[x] = (a + b) / 2 and E[xx'] = (aa' + bb') / 3 + (ab' + ba') / 6, over all pairs."""
    rows = made_rows()
    sampler, _, _ = fitted(SmoteSampler(SmoteSettings(k=k, metric=metric)), rows)
    X = of_class(rows, c)
    near = neighbours(X, k, metric)
    a, b = np.repeat(X, near.shape[1], axis=0), X[near.ravel()]
    mean = (a + b).mean(axis=0) / 2
    second = ((a.T @ a + b.T @ b) / 3 + (a.T @ b + b.T @ a) / 6) / len(a)
    assert_law(sampler.sample(c, 0, DRAWS, seed=1).X, mean, second - np.outer(mean, mean))


def test_a_row_lies_between_its_parents_who_are_neighbours():
    rows = made_rows()
    sampler, _, _ = fitted(SmoteSampler(SmoteSettings(k=2, metric="l2")), rows)
    made = sampler.sample(1, 0, 500, seed=0)
    a, b = (rows.take(made.parent_ids[:, i]).astype(np.float64) for i in (0, 1))
    whole = np.linalg.norm(b - a, axis=1)
    parts = np.linalg.norm(made.X - a, axis=1) + np.linalg.norm(b - made.X, axis=1)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    near = neighbours(of_class(rows, 1), 2) + 80
    assert all(second in near[first - 80] for first, second in made.parent_ids)
    assert (made.parent_ids[:, 0] != made.parent_ids[:, 1]).all()


def test_two_rows_and_one_row():
    X = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 3.0]])
    sampler, _, _ = fitted(SmoteSampler(), ArrayRows(X, [0, 0, 1]), rank=1)
    made = sampler.sample(0, 0, 200, seed=0)
    np.testing.assert_allclose(made.X.sum(axis=1), 1, atol=1e-6)
    assert 0.45 < made.X[:, 0].mean() < 0.55
    alone = sampler.sample(1, 0, 3, seed=0)
    np.testing.assert_array_equal(alone.X, [[3, 3]] * 3)
    np.testing.assert_array_equal(alone.parent_ids, [[2, -1]] * 3)


def test_duplicates_are_neighbours_of_each_other():
    """Itself is removed by id: a second copy of the row is a neighbour, and the nearest."""
    X = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 0.0]])
    sampler, _, _ = fitted(SmoteSampler(SmoteSettings(k=1, metric="l2")), ArrayRows(X, [0, 0, 0]), rank=1)
    made = sampler.sample(0, 0, 200, seed=0)
    pairs = {tuple(pair) for pair in made.parent_ids.tolist()}
    assert pairs == {(0, 1), (1, 0), (2, 0)}


def test_spherical_goes_along_the_great_circle_at_even_speed():
    X = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    sampler, _, _ = fitted(SmoteSampler(SmoteSettings(spherical=True)), ArrayRows(X, [0, 0], normalize=True))
    made = sampler.sample(0, 0, 20_000, seed=0).X
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    angle = np.arctan2(made[:, 1], made[:, 0]) / (np.pi / 2)
    assert angle.mean() == pytest.approx(0.5, abs=0.01)
    assert angle.var() == pytest.approx(1 / 12, abs=0.002)
    assert (made[:, 2] == 0).all()


def test_spherical_of_other_norms_of_equal_and_of_opposite_rows():
    start = np.array([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    end = np.array([[0.0, 4.0], [1.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    factors = smote._slerp(start, end, np.full(4, 0.5))
    half = factors[:, :1] * start + factors[:, 1:] * end
    np.testing.assert_allclose(half[0], [3 / np.sqrt(2)] * 2, atol=1e-12)
    np.testing.assert_allclose(half[1], [1.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(half[2], [0.0, 0.0], atol=1e-12)
    assert np.isfinite(half).all()
    rows = made_rows(normalize=True)
    straight, curved = (
        fitted(SmoteSampler(SmoteSettings(spherical=s)), rows)[0].sample(1, 0, 300, seed=0)
        for s in (False, True)
    )
    np.testing.assert_array_equal(straight.parent_ids, curved.parent_ids)
    # After normalisation the chord is the same arc, walked at another speed.
    assert 0 < np.abs(straight.X - curved.X).max() < 0.1


def test_blocks_of_queries_change_nothing(monkeypatch):
    rows = made_rows()
    whole = fitted(SmoteSampler(), rows)[0].sample(0, 0, 300, seed=0)
    monkeypatch.setattr(smote, "_BLOCK_QUERIES", 7)
    cut = fitted(SmoteSampler(), rows)[0].sample(0, 0, 300, seed=0)
    np.testing.assert_array_equal(whole.parent_ids, cut.parent_ids)


def test_only_classes_that_are_sampled_are_searched():
    sampler, _, _ = fitted(SmoteSampler(), made_rows())
    sampler.sample(2, 0, 5, seed=0)
    assert set(sampler._neighbors) == {2}


@pytest.mark.parametrize("setting, value", [("k", 0), ("k", 2.0), ("metric", "inner"), ("spherical", 1)])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=f"smote: {setting} must be"):
        SmoteSettings(**{setting: value})
