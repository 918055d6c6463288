"""distribution-calibration: the published law, with its traps taken out."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.sampling import distribution_calibration as module
from ltstore.sampling.distribution_calibration import (
    DistributionCalibrationSampler,
    DistributionCalibrationSettings,
)
from ltstore.stats import class_moments
from support.tail_rows import DRAWS, D, assert_law, fitted, low_rank, made_rows, of_class

COUNTS = (90, 80, 70, 60, 5, 1)


def sampler_of(rows, **settings):
    return fitted(DistributionCalibrationSampler(DistributionCalibrationSettings(**settings)), rows)


def components(rows, moments, c, k, alpha):
    """Mean and covariance for each row of the class, by the formulas."""
    bases = [h for h in range(4) if h != c]
    means = {h: of_class(rows, h).mean(axis=0) for h in bases}
    for x in of_class(rows, c):
        near = sorted(bases, key=lambda h: np.linalg.norm(x - means[h]))[:k]
        covariance = sum(low_rank(moments, np.cov(of_class(rows, h).T)) for h in near) / len(near)
        mean = (x + sum(means[h] for h in near)) / (len(near) + 1)
        yield near, mean, covariance + alpha * np.trace(covariance) / D * np.eye(D)


@pytest.mark.parametrize("c", [4, 5])
@pytest.mark.parametrize("k, alpha", [(2, 0.21), (1, 0.0), (3, 1.5), (9, 0.3)])
def test_mean_and_covariance(c, k, alpha):
    rows = made_rows(COUNTS)
    sampler, moments, _ = sampler_of(rows, k=k, alpha=alpha)
    parts = list(components(rows, moments, c, k, alpha))
    means = np.array([mean for _, mean, _ in parts])
    covariance = np.mean([s for _, _, s in parts], axis=0) + np.cov(means.T, bias=True)
    assert_law(sampler.sample(c, 0, DRAWS, seed=1).X, means.mean(axis=0), covariance)


def test_each_row_has_its_own_base_classes_and_they_are_recorded():
    rows = made_rows(COUNTS)
    sampler, moments, donors = sampler_of(rows, k=2)
    assert donors.head[:4].all()
    made = sampler.sample(4, 0, 500, seed=0)
    expected = [near for near, _, _ in components(rows, moments, 4, 2, 0.0)]
    first = int(np.flatnonzero(rows.labels == 4)[0])
    for parent, bases in zip(made.parent_ids[:, 0], made.donor_ids, strict=True):
        assert list(bases) == expected[parent - first]


def test_alpha_is_a_share_of_the_variance_on_the_diagonal_alone():
    """The published code adds it to every entry: a matrix of rank one along (1, ..., 1)."""
    rows = made_rows(COUNTS, normalize=False)
    plain, wide = (
        np.cov(sampler_of(rows, alpha=a)[0].sample(5, 0, DRAWS, seed=0).X.T.astype(np.float64))
        for a in (0.0, 2.0)
    )
    added = wide - plain
    expected = 2.0 * np.trace(plain) / D
    np.testing.assert_allclose(np.diag(added), expected, rtol=0.15)
    assert np.abs(added - np.diag(np.diag(added))).max() < 0.2 * expected
    # In units of the variance: rows a hundred times as long get it a hundred times as wide.
    long = ArrayRows(100 * rows.read(0, rows.n_samples), rows.labels, class_names="abcdef")
    again = sampler_of(long, alpha=2.0)[0].sample(5, 0, 200, seed=0).X
    np.testing.assert_allclose(
        again, 100 * sampler_of(rows, alpha=2.0)[0].sample(5, 0, 200, seed=0).X, rtol=1e-3, atol=1e-2
    )


def test_a_class_without_base_classes_has_its_own_row_and_the_pooled_covariance():
    rows = made_rows((30, 30, 30))
    sampler, moments, _ = sampler_of(rows, alpha=0.0)
    made = sampler.sample(1, 0, DRAWS, seed=0)
    assert (made.donor_ids == -1).all()
    own = of_class(rows, 1)
    assert_law(made.X, own.mean(axis=0), low_rank(moments, moments.pooled) + np.cov(own.T, bias=True))


def test_tukey_is_refused_on_signed_features():
    with pytest.raises(DataError, match=r"tukey needs features that are not negative, found -.* of row \d+"):
        sampler_of(made_rows(COUNTS), tukey=0.5)
    for bad in (0.0, 1.5, -1.0, "half"):
        with pytest.raises(ConfigError, match="tukey must be"):
            DistributionCalibrationSettings(tukey=bad)


def test_tukey_transforms_statistics_and_rows_alike_and_goes_back():
    """The roots of drawn rows have the law of rows drawn from the roots (basis of full rank: no part is left out)."""
    signed = made_rows(COUNTS)
    rows = ArrayRows(signed.read(0, signed.n_samples) + 40, signed.labels, class_names="abcdef")
    roots = ArrayRows(np.sqrt(rows.read(0, rows.n_samples)), rows.labels, class_names="abcdef")
    settings = DistributionCalibrationSettings(tukey=0.5, alpha=0.1)
    sampler, _, _ = fitted(DistributionCalibrationSampler(settings), rows, rank=D)
    parts = list(components(roots, class_moments(roots, rank=D), 4, 2, 0.1))
    means = np.array([mean for _, mean, _ in parts])
    covariance = np.mean([s for _, _, s in parts], axis=0) + np.cov(means.T, bias=True)
    X = sampler.sample(4, 0, DRAWS, seed=1).X
    assert (X > 0).all()
    assert_law(np.sqrt(X), means.mean(axis=0), covariance)


def test_tukey_one_is_none():
    rows = made_rows(COUNTS)
    a, b = (sampler_of(rows, tukey=t)[0].sample(4, 0, 50, seed=0).X for t in (None, 1))
    np.testing.assert_array_equal(a, b)


def test_blocks_of_queries_change_nothing(monkeypatch):
    rows = made_rows((300, 250, 100))
    whole = sampler_of(rows, k=1)[0].sample(2, 0, 300, seed=0)
    monkeypatch.setattr(module, "_BLOCK_QUERIES", 7)
    cut = sampler_of(rows, k=1)[0].sample(2, 0, 300, seed=0)
    np.testing.assert_array_equal(whole.donor_ids, cut.donor_ids)
