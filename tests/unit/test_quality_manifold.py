"""Precision, recall, density and coverage: their definitions, and what they must say of known laws."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.quality import coverage, density, precision, recall

ALL = (precision, recall, density, coverage)


def naive(real, made, k):
    """The four from their sentences, row by row."""

    def radius(rows, i):
        return sorted(np.linalg.norm(rows[i] - rows[j]) for j in range(len(rows)) if j != i)[k - 1]

    real_balls = [radius(real, i) for i in range(len(real))]
    made_balls = [radius(made, j) for j in range(len(made))]
    inside = np.array(
        [[np.linalg.norm(x - s) <= r for s in made] for x, r in zip(real, real_balls, strict=True)]
    )
    among = np.array(
        [[np.linalg.norm(x - s) <= r for x in real] for s, r in zip(made, made_balls, strict=True)]
    )
    return (
        inside.any(axis=0).mean(),
        among.any(axis=0).mean(),
        inside.sum() / (k * len(made)),
        inside.any(axis=1).mean(),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_what_their_sentences_say(k):
    rng = np.random.default_rng(k)
    real, made = rng.normal(size=(9, 4)), 0.8 * rng.normal(size=(12, 4)) + 0.5
    assert [measure(real, made, k) for measure in ALL] == pytest.approx(naive(real, made, k))


def test_the_real_rows_themselves_are_perfect():
    X = np.random.default_rng(0).normal(size=(30, 5))
    assert precision(X, X, 3) == recall(X, X, 3) == coverage(X, X, 3) == 1
    assert density(X, X, 3) == pytest.approx(4 / 3)  # the k + 1 rows that a ball of k others holds


def test_far_away_is_nothing():
    X = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    assert [measure(X, X + 100, 5) for measure in ALL] == [0, 0, 0, 0]


def test_one_point_again_and_again_is_precise_and_covers_nothing():
    X = np.random.default_rng(0).normal(size=(40, 5))
    made = np.repeat(X[:1], 40, axis=0)
    assert precision(X, made, 5) == 1
    assert recall(X, made, 5) == 1 / 40
    assert coverage(X, made, 5) <= 0.6


def test_rows_of_one_law_give_what_the_paper_expects():
    """Density about 1, coverage about 1 - (1 - m / (n + m))^k, whatever the law."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        real, made = rng.normal(size=(60, 6)), rng.normal(size=(60, 6))
        found.append((density(real, made, 5), coverage(real, made, 5), precision(real, made, 5)))
    means = np.mean(found, axis=0)
    assert means[0] == pytest.approx(1, abs=0.05)
    assert means[1] == pytest.approx(1 - 0.5**5, abs=0.03)
    assert means[2] > 0.8


def test_a_small_set_and_a_bad_k_are_refused():
    X = np.zeros((5, 2))
    with pytest.raises(DataError, match="more than 5 rows, found 5"):
        precision(X, np.ones((9, 2)), 5)
    with pytest.raises(ConfigError, match="k must be at least 1"):
        density(X, X, 0)
