"""kde: real rows smoothed, the variance kept."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.sampling.kde import KdeSampler, KdeSettings, effective_dimensions, normal_bandwidth
from support.tail_rows import DRAWS, assert_law, borrowed, fitted, low_rank, made_rows, of_class


@pytest.mark.parametrize("c", range(4))
@pytest.mark.parametrize("h", [0.0, 0.4, 3.0])
def test_mean_and_covariance(c, h):
    rows = made_rows()
    sampler, moments, donors = fitted(KdeSampler(KdeSettings(bandwidth=h, nu=8.0, donor_share=0.6)), rows)
    own = of_class(rows, c)
    n, a = len(own), 1 / np.sqrt(1 + h * h)
    biased = (own - own.mean(axis=0)).T @ (own - own.mean(axis=0)) / n
    covariance = a**2 * biased + (1 - a**2 * (n - 1) / n) * borrowed(rows, moments, donors, c, 8.0, 0.6)
    assert_law(sampler.sample(c, 0, DRAWS, seed=1).X, own.mean(axis=0), covariance)


def test_the_bandwidth_is_the_normal_reference_rule():
    """In one dimension 1.06 n^(-1/5), Silverman's equation 3.28; it falls with n and never reaches 0."""
    np.testing.assert_allclose(
        normal_bandwidth(np.array([1, 100]), 1.0), [1.0592, 1.0592 * 100**-0.2], rtol=1e-4
    )
    np.testing.assert_allclose(normal_bandwidth(np.array([50]), 6.0), [(4 / (8 * 50)) ** 0.1])
    assert normal_bandwidth(np.array([0]), 2.0) == normal_bandwidth(np.array([1]), 2.0)
    assert effective_dimensions(np.eye(7) * 3) == pytest.approx(7)
    assert effective_dimensions(np.diag([2.0, 0, 0])) == pytest.approx(1)
    assert effective_dimensions(np.zeros((3, 3))) == 1
    rows = made_rows()
    sampler, moments, _ = fitted(KdeSampler(), rows)
    values = np.linalg.eigvalsh(moments.pooled)
    h = normal_bandwidth(moments.counts, values.sum() ** 2 / np.square(values).sum())
    np.testing.assert_allclose(sampler._anchor, 1 / np.sqrt(1 + h * h))


def test_a_large_class_keeps_its_covariance_whatever_the_bandwidth():
    rows = made_rows((20_000, 8000, 1))
    for h in (0.1, 1.0):
        sampler, moments, _ = fitted(KdeSampler(KdeSettings(bandwidth=h)), rows)
        X = sampler.sample(1, 0, DRAWS, seed=0).X.astype(np.float64)
        own, a = np.cov(of_class(rows, 1).T), 1 / np.sqrt(1 + h * h)
        expected = a**2 * own + (1 - a**2) * low_rank(moments, own)
        np.testing.assert_allclose(np.cov(X.T), expected, atol=0.05 * np.trace(own) / 6)
        assert np.trace(np.cov(X.T)) == pytest.approx(np.trace(own), rel=0.03)
