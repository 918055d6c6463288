"""The objective against its formula written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.linear import objective as objective_module
from ltstore.linear.metric import shrunk_covariance, within_class_metric
from ltstore.linear.objective import ImplicitTerm, Objective
from ltstore.rows import ArrayRows
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from ltstore.types import SyntheticRows
from support.made_moments import made_moments
from support.made_sampler import MadeSampler
from support.slopes import assert_slopes

N, D, C = 90, 6, 5


def made(seed=0, counts=(40, 25, 15, 10, 0)):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), counts))
    X = (rng.normal(size=(C, D))[labels] + 0.5 * rng.normal(size=(N, D)) + 3).astype(np.float32)
    return ArrayRows(X, labels, class_names=list("abcde"))


def objective(stream, rows, tau=1.0, l2=0.1, penalty="plain", center=None, backend="numba"):
    moments = made_moments(rows.read(0, N), rows.labels, C)
    metric = within_class_metric(moments)
    center = stream.class_shares @ moments.means if center is None else center
    return Objective(stream, metric, center, tau=tau, l2=l2, penalty=penalty, backend=backend), metric, center


def naive(X, labels, weight, bias, center, shares, tau, l2, matrix):
    seen = shares > 0
    z = ((X - center) @ weight.T + bias)[:, seen] + tau * np.log(shares[seen])
    own = z[np.arange(len(X)), (np.cumsum(seen) - 1)[labels]]
    losses = np.log(np.exp(z).sum(axis=1)) - own
    return losses.mean() + 0.5 * l2 * np.trace(weight @ matrix @ weight.T)


@pytest.mark.parametrize("tau", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("penalty", ["plain", "whitened"])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_value_and_gradient_are_those_of_the_formula(tau, penalty, backend):
    rows = made()
    stream = TrainingStream(rows, sampler=MadeSampler(np.eye(C, D)), targets=np.array([0, 0, 5, 9, 0]))
    found, metric, center = objective(stream, rows, tau, 0.1, penalty, backend=backend)
    X = np.concatenate([X for X, _, _ in stream]).astype(np.float64)
    labels = np.concatenate([labels for _, labels, _ in stream])
    shares = np.bincount(labels, minlength=C) / len(labels)
    matrix = metric.matrix if penalty == "whitened" else metric.scale * np.eye(D)
    rng = np.random.default_rng(1)
    weight, bias = 0.3 * rng.normal(size=(C, D)), rng.normal(size=C)

    def value(w, b):
        return naive(X, labels, w, b, center, shares, tau, 0.1, matrix)

    evaluation = found.evaluate(weight, bias)
    assert evaluation.value == pytest.approx(value(weight, bias), rel=1e-5)
    assert_slopes(evaluation, value, weight, bias, rng, tolerance=1e-5)


@pytest.mark.parametrize("strength", [0.3, 2.0])
@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_implicit_term_and_its_gradient(strength, tau, backend, monkeypatch):
    """Value by the formula, with S_y as full matrices; slopes by differences of that, b and W together."""
    rows = made()
    moments = class_moments(rows, rank=2)
    covariance = borrowed_covariance(moments, Lending.none(C), nu=4.0, donor_share=0.0)
    full = np.einsum("dr,crs,es->cde", covariance.basis, covariance.inside, covariance.basis)
    full += np.einsum("cd,de->cde", covariance.outside, np.eye(D))
    metric = within_class_metric(moments)
    stream = TrainingStream(rows, block_rows=37)
    center = stream.class_shares @ moments.means
    found = Objective(
        stream,
        metric,
        center,
        tau=tau,
        l2=0.1,
        penalty="plain",
        backend=backend,
        implicit=ImplicitTerm(covariance, strength),
    )
    X, labels = rows.read(0, N).astype(np.float64), rows.labels
    shares = stream.class_shares
    seen = shares > 0

    def value(w, b):
        gaps = w[None] - w[:, None]
        between = strength / 2 * np.einsum("yjd,yde,yje->yj", gaps, full, gaps)
        z = (X - center) @ w.T + b + between[labels]
        z[:, seen] += tau * np.log(shares[seen])
        losses = np.log(np.exp(z[:, seen]).sum(axis=1)) - z[np.arange(N), labels]
        return losses.mean() + 0.05 * metric.scale * np.square(w).sum()

    rng = np.random.default_rng(1)
    weight, bias = 0.3 * rng.normal(size=(C, D)), rng.normal(size=C)
    monkeypatch.setattr(objective_module, "_IMPLICIT_ROWS", 11)
    evaluation = found.evaluate(weight, bias)
    assert evaluation.value == pytest.approx(value(weight, bias), rel=1e-5)
    assert_slopes(evaluation, value, weight, bias, rng, tolerance=1e-5)


def test_block_size_and_cache_change_rounding_only():
    rows = made()
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(C, D)), rng.normal(size=C)
    whole = objective(TrainingStream(rows), rows)[0].evaluate(weight, bias)
    for block_rows, cache_bytes in [(1, 0), (7, 1 << 20), (64, 0)]:
        stream = TrainingStream(rows, block_rows=block_rows, cache_bytes=cache_bytes)
        cut = objective(stream, rows)[0].evaluate(weight, bias)
        assert cut.value == pytest.approx(whole.value, rel=1e-6)
        assert np.allclose(cut.grad_weight, whole.grad_weight, rtol=1e-5, atol=1e-6)
        assert np.allclose(cut.grad_bias, whole.grad_bias, rtol=1e-5, atol=1e-6)


def test_the_center_moves_the_bias_and_nothing_else():
    rows = made()
    rng = np.random.default_rng(1)
    weight, bias, shift = rng.normal(size=(C, D)), rng.normal(size=C), rng.normal(size=D)
    stream = TrainingStream(rows)
    at = objective(stream, rows, center=np.zeros(D))[0].evaluate(weight, bias)
    moved = objective(stream, rows, center=shift)[0].evaluate(weight, bias + weight @ shift)
    assert moved.value == pytest.approx(at.value, rel=1e-5)


def test_a_class_without_rows_has_no_gradient_and_no_nan():
    rows = made()
    evaluation = objective(TrainingStream(rows), rows)[0].evaluate(np.zeros((C, D)), np.zeros(C))
    assert np.isfinite(evaluation.value)
    assert np.abs(evaluation.grad_weight[4]).max() < 1e-20
    assert abs(evaluation.grad_bias[4]) < 1e-20


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_prior_bias_makes_the_softmax_the_prior(tau):
    rows = made()
    found = objective(TrainingStream(rows), rows, tau)[0]
    evaluation = found.evaluate(np.zeros((C, D)), found.prior_bias)
    assert np.abs(evaluation.grad_bias).max() < 1e-6


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_even_bias_makes_all_classes_with_rows_alike(tau):
    rows = made()
    found = objective(TrainingStream(rows), rows, tau)[0]
    full = ~found.empty
    evaluation = found.evaluate(np.zeros((C, D)), found.even_bias)
    np.testing.assert_allclose(evaluation.grad_bias[full], 1 / full.sum() - found.shares[full], atol=1e-6)
    assert evaluation.loss == pytest.approx(np.log(full.sum()), abs=1e-5)


class NanSampler(MadeSampler):
    def sample(self, class_id, start, stop, *, seed, epoch=0):
        made = super().sample(class_id, start, stop, seed=seed, epoch=epoch)
        X = made.X.copy()
        X[0, 0] = np.nan
        return SyntheticRows(X=X, labels=made.labels, parent_ids=made.parent_ids, donor_ids=made.donor_ids)


def test_a_bad_row_names_what_to_look_for():
    rows = made()
    stream = TrainingStream(rows, sampler=NanSampler(np.eye(C, D)), targets=np.array([0, 0, 0, 9, 0]))
    with pytest.raises(DataError, match="NaN or Inf"):
        objective(stream, rows)[0].evaluate(np.zeros((C, D)), np.zeros(C))


def test_weights_that_overflow_are_an_error():
    rows = made()
    with pytest.raises(DataError, match="not finite though the rows are"), np.errstate(all="ignore"):
        objective(TrainingStream(rows), rows)[0].evaluate(np.full((C, D), 1e38), np.zeros(C))


def test_shrinking_keeps_the_mean_eigenvalue():
    pooled = np.diag([1.0, 2.0, 9.0])
    assert np.allclose(shrunk_covariance(pooled, 0.5), np.diag([2.5, 3.0, 6.5]))
    assert np.array_equal(shrunk_covariance(np.zeros((3, 3)), 0.1), np.eye(3))
    with pytest.raises(DataError, match="NaN or Inf"):
        shrunk_covariance(np.full((2, 2), np.nan), 0.1)
