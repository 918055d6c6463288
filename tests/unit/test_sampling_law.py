"""The rows that neighbor-gauss draws follow the law that it documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import NeighborGaussSampler, NeighborGaussSettings, make_sampler
from ltstore.stats import ClassMoments, class_moments
from ltstore.types import Donors, DoubleArray

COUNTS = (80, 60, 6, 1)
D, RANK = 6, 3
DRAWS = 40_000


def made_rows(normalize: bool = False, counts: tuple[int, ...] = COUNTS) -> ArrayRows:
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 3 * rng.normal(size=(len(counts), D))
    shapes = rng.normal(size=(len(counts), D, D)) * np.linspace(1.5, 0.2, D)
    X = centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(len(labels), D)))
    return ArrayRows(X, labels, class_names="abcdefgh"[: len(counts)], normalize=normalize)


def fitted(rows: ArrayRows, **settings: Any) -> tuple[NeighborGaussSampler, ClassMoments, Donors]:
    moments = class_moments(rows, rank=RANK)
    donors = class_donors(moments.means, moments.counts, k=2)
    sampler = NeighborGaussSampler(NeighborGaussSettings(**settings))
    return sampler.fit(rows, moments, donors), moments, donors


def low_rank(moments: ClassMoments, full: DoubleArray) -> DoubleArray:
    """What of a D x D matrix the low-rank + diagonal form keeps."""
    U = moments.basis
    outside = np.eye(D) - U @ U.T
    return U @ (U.T @ full @ U) @ U.T + np.diag(np.diag(outside @ full @ outside))


def law(
    rows: ArrayRows, moments: ClassMoments, donors: Donors, c: int, s: NeighborGaussSettings
) -> tuple[DoubleArray, DoubleArray]:
    """Mean and covariance of a synthetic row of class c, straight from the formulas."""
    X = rows.read(0, rows.n_samples).astype(np.float64)
    own = X[rows.labels == c]
    n, mu = len(own), own.mean(axis=0)
    scatter = (own - mu).T @ (own - mu)
    target = moments.pooled
    pairs = [(h, w) for h, w in zip(donors.class_ids[c], donors.weights[c], strict=True) if h >= 0]
    if pairs:
        lent = sum(w * np.cov(X[rows.labels == h].T) for h, w in pairs)
        target = s.donor_share * lent + (1 - s.donor_share) * target
        toward = sum(w * X[rows.labels == h].mean(axis=0) for h, w in pairs)
        mean = mu + s.pull * s.pull_rows / (s.pull_rows + n) * (toward - mu)
    else:
        mean = mu
    shrunk = (scatter + s.nu * target) / (n - 1 + s.nu)
    if s.noise == "gauss":
        shrunk = low_rank(moments, shrunk)
    noise = s.spread**2 * (1 - s.anchor**2 * (n - 1) / n)
    return mean, s.anchor**2 * scatter / n + noise * shrunk


@pytest.mark.parametrize("c", range(4))
@pytest.mark.parametrize("anchor", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    "noise", [{"noise": "gauss"}, {"noise": "residuals", "terms": 1}, {"noise": "residuals"}]
)
def test_mean_and_covariance(c: int, anchor: float, noise: dict[str, Any]) -> None:
    rows = made_rows()
    settings = noise | {
        "anchor": anchor,
        "nu": 8.0,
        "donor_share": 0.6,
        "pull": 0.4,
        "pull_rows": 10.0,
        "spread": 1.2,
    }
    sampler, moments, donors = fitted(rows, **settings)
    X = sampler.sample(c, 0, DRAWS, seed=1).X.astype(np.float64)
    mean, covariance = law(rows, moments, donors, c, NeighborGaussSettings(**settings))
    error = np.sqrt(np.diag(covariance) / DRAWS)
    assert (np.abs(X.mean(axis=0) - mean) < 4.5 * error + 1e-6).all()
    # A sample covariance entry has a standard error of at most sqrt(2 S_ii S_jj / draws).
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_array_less(np.abs(np.cov(X.T) - covariance), 5 * scale * np.sqrt(2 / DRAWS) + 1e-6)


@pytest.mark.parametrize("true_rows", [2.0, 8.0])
def test_pull_rows_are_estimated(true_rows: float) -> None:
    """Class means scatter around one donor with delta^2 = sigma^2 / kappa: the estimate finds twice kappa."""
    rng = np.random.default_rng(8)
    n_classes, d = 60, 40
    counts = np.array([400] + [12] * (n_classes - 1))
    centres = rng.normal(size=(n_classes, d)) / np.sqrt(true_rows)
    centres[0] = 0
    labels = np.repeat(np.arange(n_classes), counts)
    rows = ArrayRows(10 + centres[labels] + rng.normal(size=(len(labels), d)), labels)
    sampler, _, _ = fitted(rows)
    assert NeighborGaussSampler().settings["pull_rows"] is None
    assert sampler.settings["pull_rows"] == pytest.approx(2 * true_rows, rel=0.1)
    assert fitted(rows, pull_rows=3.5)[0].settings["pull_rows"] == 3.5
    # Where donors and borrowers have one and the same mean, the largest class bounds it.
    same = ArrayRows(10 + rng.normal(size=(len(labels), d)), labels)
    assert 100 < fitted(same)[0].settings["pull_rows"] <= 400


def test_one_row_class_draws_the_borrowed_gaussian() -> None:
    rows = made_rows()
    sampler, moments, donors = fitted(rows, anchor=0.9, donor_share=1.0, pull=0.0)
    X = sampler.sample(3, 0, DRAWS, seed=0).X.astype(np.float64)
    lent = sum(
        w * low_rank(moments, np.cov(rows.read(0, rows.n_samples)[rows.labels == h].T))
        for h, w in zip(donors.class_ids[3], donors.weights[3], strict=True)
    )
    np.testing.assert_allclose(np.cov(X.T), lent, atol=0.03 * np.abs(lent).max())
    np.testing.assert_allclose(X.mean(axis=0), rows.read(0, 200)[rows.labels == 3][0], atol=0.1)


def test_large_class_draws_its_own_gaussian() -> None:
    rows = made_rows(counts=(20_000, 10_000, 4000, 1))
    sampler, moments, _ = fitted(rows)
    own = rows.read(0, rows.n_samples)[rows.labels == 2].astype(np.float64)
    X = sampler.sample(2, 0, DRAWS, seed=0).X.astype(np.float64)
    # Low rank + diagonal keeps the trace and the scatter inside the basis, not every entry.
    a, n = sampler.settings["anchor"], 4000
    own_covariance = np.cov(own.T)
    expected = a**2 * own_covariance + (1 - a**2) * low_rank(moments, own_covariance)
    np.testing.assert_allclose(np.cov(X.T), expected, atol=0.04 * np.trace(own_covariance) / D)
    np.testing.assert_allclose(X.mean(axis=0), own.mean(axis=0), atol=0.1)
    assert n == len(own)


def test_two_classes_and_two_seeds_are_independent() -> None:
    rows = made_rows()
    sampler, _, _ = fitted(rows, anchor=0.0)
    draws = [sampler.sample(c, 0, 4000, seed=seed).X.ravel() for c, seed in ((0, 0), (1, 0), (0, 1))]
    draws.append(sampler.sample(0, 0, 4000, seed=0, epoch=1).X.ravel())
    centred = [(d.reshape(4000, D) - d.reshape(4000, D).mean(axis=0)).ravel() for d in draws]
    correlation = np.corrcoef(centred) - np.eye(4)
    assert np.abs(correlation).max() < 0.05


def test_two_classes_of_one_size_pick_other_parents() -> None:
    rows = made_rows(counts=(30, 30, 30, 1))
    sampler, _, _ = fitted(rows)
    first, second = (sampler.sample(c, 0, 400, seed=0).parent_ids[:, 0] % 30 for c in (0, 1))
    assert (first == second).mean() < 0.15  # 1 in 30 by chance


def test_unit_rows_give_unit_rows() -> None:
    sampler, _, _ = fitted(made_rows(normalize=True))
    for c in range(4):
        np.testing.assert_allclose(np.linalg.norm(sampler.sample(c, 0, 50, seed=0).X, axis=1), 1, atol=1e-6)


def test_parents_are_rows_of_the_class_and_all_are_used() -> None:
    rows = made_rows()
    sampler, _, donors = fitted(rows)
    made = sampler.sample(2, 0, 300, seed=0)
    np.testing.assert_array_equal(np.unique(made.parent_ids), rows.row_ids[rows.labels == 2])
    np.testing.assert_array_equal(made.donor_ids, np.repeat(donors.class_ids[2][None], 300, axis=0))
    assert (sampler.sample(0, 0, 3, seed=0).donor_ids == -1).all()


def test_anchor_one_of_a_tight_class_stays_at_its_parent() -> None:
    rows = made_rows(counts=(2000, 1000, 500, 1))
    sampler, _, _ = fitted(rows, anchor=1.0, pull=0.0)
    made = sampler.sample(2, 0, 50, seed=0)
    distance = np.linalg.norm(made.X - rows.take(made.parent_ids[:, 0]), axis=1)
    spread = np.sqrt(np.trace(np.cov(rows.read(0, rows.n_samples)[rows.labels == 2].T)))
    assert np.median(distance) < 0.1 * spread


def test_duplicate_gives_real_rows_equally_often() -> None:
    rows = made_rows()
    moments = class_moments(rows)
    sampler = make_sampler("duplicate").fit(rows, moments, class_donors(moments.means, moments.counts))
    made = sampler.sample(2, 0, 6000, seed=0)
    np.testing.assert_array_equal(made.X, rows.take(made.parent_ids[:, 0]))
    share = np.unique(made.parent_ids, return_counts=True)[1] / 6000
    np.testing.assert_allclose(share, 1 / 6, atol=0.03)
