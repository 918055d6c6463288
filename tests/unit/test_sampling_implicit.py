"""implicit: the closed form against its definition, against drawn rows, and its gradient against differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from ltstore.errors import ConfigError, DataError
from ltstore.sampling import make_sampler
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.implicit import implicit_bias, implicit_gradient
from ltstore.sampling.lending import Lending
from support.tail_rows import fitted, made_rows

C, D = 4, 6


def made(seed=0):
    rows = made_rows()
    _, moments, donors = fitted(make_sampler("duplicate"), rows)
    covariance = borrowed_covariance(moments, Lending.of(donors), nu=5.0, donor_share=0.5)
    full = np.einsum("dr,crs,es->cde", covariance.basis, covariance.inside, covariance.basis)
    full += np.array([np.diag(d) for d in covariance.outside])
    return np.random.default_rng(seed).normal(size=(C, D)) / 4, covariance, full


def test_it_is_the_definition():
    weight, covariance, full = made()
    bias = implicit_bias(weight, covariance, 0.7)
    for y in range(C):
        for j in range(C):
            gap = weight[j] - weight[y]
            assert bias[y, j] == pytest.approx(0.35 * gap @ full[y] @ gap, abs=1e-12)
    assert (np.diag(bias) == 0).all()
    assert (implicit_bias(weight, covariance, 0.0) == 0).all()
    np.testing.assert_allclose(implicit_bias(weight + 3.0, covariance, 0.7), bias, atol=1e-9)


def test_exp_of_it_is_the_mean_of_exp_of_the_logit_gap_over_drawn_rows():
    weight, covariance, full = made()
    bias = implicit_bias(weight, covariance, 0.5)
    rng = np.random.default_rng(1)
    for y in range(C):
        e = rng.multivariate_normal(np.zeros(D), 0.5 * full[y], 150_000)
        drawn = np.exp(e @ (weight - weight[y]).T)
        error = drawn.std(axis=0) / np.sqrt(len(e))
        np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - np.exp(bias[y])), 5 * error + 1e-12)
        # and so the loss with the bias is an upper bound of the mean loss over them
        logits = rng.normal(size=C)
        moved = logits + e @ weight.T
        mean_loss = (logsumexp(moved, axis=1) - moved[:, y]).mean()
        bound = logsumexp(logits + bias[y]) - logits[y]
        assert mean_loss < bound + 1e-3
        assert bound < mean_loss + bias[y].max()


def test_the_gradient_is_that_of_finite_differences():
    weight, covariance, _ = made()
    rng = np.random.default_rng(2)
    upstream = rng.normal(size=(C, C))
    found = implicit_gradient(weight, covariance, 0.9, upstream)
    for _ in range(6):
        step = rng.normal(size=weight.shape)
        up, down = (
            np.vdot(upstream, implicit_bias(weight + s * 1e-5 * step, covariance, 0.9)) for s in (1.0, -1.0)
        )
        assert np.vdot(found, step) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-8)


def test_refusals():
    weight, covariance, _ = made()
    for strength in (-0.1, np.nan, np.inf):
        with pytest.raises(ConfigError, match="strength must be"):
            implicit_bias(weight, covariance, strength)
    with pytest.raises(DataError, match="weight is of"):
        implicit_bias(weight[:, :5], covariance, 1.0)
