"""residual-transfer: donors' offsets around the tail class's mean."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.rows import ArrayRows
from ltstore.sampling.residual_transfer import ResidualTransferSampler, ResidualTransferSettings
from support.tail_rows import DRAWS, assert_law, fitted, made_rows, of_class, pulled


def lent(rows, donors, c):
    """sum_h weight_h S_h / n_h."""
    return sum(
        w * np.cov(of_class(rows, h).T, bias=True)
        for h, w in zip(donors.class_ids[c], donors.weights[c], strict=True)
        if h >= 0
    )


@pytest.mark.parametrize("c", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_mean_and_covariance(c, scale):
    rows = made_rows()
    settings = ResidualTransferSettings(scale=scale, pull=0.6, pull_rows=4.0)
    sampler, _, donors = fitted(ResidualTransferSampler(settings), rows)
    assert_law(
        sampler.sample(c, 0, DRAWS, seed=1).X,
        pulled(rows, donors, c, 0.6, 4.0),
        scale**2 * lent(rows, donors, c),
    )


def test_donors_come_by_weight_and_the_parent_is_the_row_whose_offset_it_is():
    rows = made_rows()
    sampler, _, donors = fitted(ResidualTransferSampler(ResidualTransferSettings(pull=0.0)), rows)
    made = sampler.sample(2, 0, 20_000, seed=0)
    donor, parent = made.donor_ids[:, 0], made.parent_ids[:, 0]
    np.testing.assert_array_equal(rows.labels[parent], donor)
    for h, w in zip(donors.class_ids[2], donors.weights[2], strict=True):
        assert (donor == h).mean() == pytest.approx(w, abs=0.02)
    means = np.array([of_class(rows, c).mean(axis=0) for c in range(4)])
    np.testing.assert_allclose(made.X, means[2] + rows.take(parent) - means[donor], atol=1e-4)


def test_a_class_without_donors_lends_to_itself():
    rows = made_rows()
    sampler, _, _ = fitted(ResidualTransferSampler(ResidualTransferSettings(scale=0.5)), rows)
    made = sampler.sample(0, 0, DRAWS, seed=0)
    assert (made.donor_ids == -1).all()
    assert (rows.labels[made.parent_ids[:, 0]] == 0).all()
    own = of_class(rows, 0)
    assert_law(made.X, own.mean(axis=0), 0.25 * np.cov(own.T, bias=True))


def test_matched_variance_is_the_shrunk_ratio_of_standard_deviations():
    rows = made_rows((4000, 3000, 900, 1))
    sampler, _, donors = fitted(
        ResidualTransferSampler(ResidualTransferSettings(match_variance=True, nu=10.0)), rows
    )

    def variance(c):
        return np.trace(np.cov(of_class(rows, c).T))

    for c in (2, 3):
        target = donors.weights[c] @ [variance(h) for h in donors.class_ids[c]]
        n = len(of_class(rows, c))
        own = (n - 1) * variance(c) if n > 1 else 0.0
        shrunk = (own + 10 * target) / (n - 1 + 10)
        for slot, h in enumerate(donors.class_ids[c]):
            assert sampler._scale[c, slot] == pytest.approx(np.sqrt(shrunk / variance(h)), rel=1e-4)
    # So a class with many rows keeps its own total variance, however wide its donors are.
    X = sampler.sample(2, 0, DRAWS, seed=0).X.astype(np.float64)
    assert X.var(axis=0).sum() == pytest.approx(variance(2), rel=0.03)


def test_higher_moments_are_the_donors():
    """No Gaussian is assumed: the skewness of the donors' rows carries over."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.exponential(size=(3000, 2)), rng.normal(size=(3, 2))])
    rows = ArrayRows(X, np.repeat([0, 1], [3000, 3]))
    sampler, _, _ = fitted(ResidualTransferSampler(), rows, rank=1)
    made = sampler.sample(1, 0, 20_000, seed=0).X.astype(np.float64)
    z = (made - made.mean(axis=0)) / made.std(axis=0)
    assert (np.abs((z**3).mean(axis=0) - 2) < 0.6).all()
