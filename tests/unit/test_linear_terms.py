"""Smoothing, margins, weights of rows and classes, the cosine head: value and gradient by their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.linear import TrainSettings, train_linear
from ltstore.linear import objective as objective_module
from ltstore.linear.heads import CosineForm
from ltstore.linear.metric import within_class_metric
from ltstore.linear.objective import ImplicitTerm, Objective, evaluate_together
from ltstore.linear.reweighting import class_margins, class_weights
from ltstore.rows import ArrayRows
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.made_sampler import MadeSampler
from support.slopes import assert_slopes

N, D, C = 90, 6, 5
COUNTS = (40, 25, 15, 10, 0)
MARGINS = np.array([0.2, 0.4, 0.8, 1.0, 0.0])
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0, 3.0, 0.0])


def made(seed=0, normalize=False):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), COUNTS))
    X = (rng.normal(size=(C, D))[labels] + 0.5 * rng.normal(size=(N, D)) + 1).astype(np.float32)
    return ArrayRows(X, labels, class_names=list("abcde"), normalize=normalize)


def weights_of_rows():
    return np.random.default_rng(7).uniform(0, 3, N).astype(np.float32)


def covariance_of(rows):
    covariance = borrowed_covariance(class_moments(rows, rank=2), Lending.none(C), nu=4.0, donor_share=0.0)
    full = np.einsum("dr,crs,es->cde", covariance.basis, covariance.inside, covariance.basis)
    return covariance, full + np.einsum("cd,de->cde", covariance.outside, np.eye(D))


class Naive:
    """The objective written out row by row; what is not asked for is left out."""

    def __init__(self, rows, center, scale, *, tau, l2, terms):
        self.X, self.labels = rows.read(0, N).astype(np.float64), rows.labels
        self.center, self.scale, self.tau, self.l2, self.terms = center, scale, tau, l2, terms
        row_weights = weights_of_rows().astype(np.float64) if "rows" in terms else np.ones(N)
        if "classes" in terms:
            row_weights = row_weights * CLASS_WEIGHTS[self.labels]
        self.row_weights = row_weights
        mass = np.bincount(self.labels, row_weights, minlength=C)
        self.shares = mass / mass.sum()
        self.full = covariance_of(rows)[1]

    def __call__(self, parameters, b):
        w, center = parameters, self.center
        if "cosine" in self.terms:
            w, b, center = 7 * w / np.linalg.norm(w, axis=1, keepdims=True), np.zeros(C), np.zeros(D)
        seen = np.flatnonzero(self.shares > 0)
        smoothing = 0.2 if "smoothing" in self.terms else 0.0
        total = 0.0
        for x, y, weight in zip(self.X, self.labels, self.row_weights, strict=True):
            z = w @ (x - center) + b
            z[seen] += self.tau * np.log(self.shares[seen])
            if "margins" in self.terms:
                z[y] -= MARGINS[y]
            inside = z.copy()
            if "implicit" in self.terms:
                gaps = w - w[y]
                inside += 0.35 * np.einsum("jd,de,je->j", gaps, self.full[y], gaps)
            aim = (1 - smoothing) * z[y] + smoothing * z[seen].mean()
            total += weight * (np.log(np.exp(inside[seen]).sum()) - aim)
        return total / self.row_weights.sum() + 0.5 * self.l2 * self.scale * np.square(parameters).sum()


TERMS = [
    ("smoothing",),
    ("margins",),
    ("rows",),
    ("classes",),
    ("cosine",),
    ("implicit", "smoothing"),
    ("smoothing", "margins", "rows", "classes"),
    ("smoothing", "margins", "rows", "classes", "implicit"),
    ("cosine", "smoothing", "margins", "rows", "classes", "implicit"),
]


def objective_of(rows, terms, tau, backend="numba"):
    moments = class_moments(rows, rank=2)
    metric = within_class_metric(moments)
    stream = TrainingStream(rows, weights=weights_of_rows() if "rows" in terms else None, block_rows=37)
    center = stream.class_shares @ moments.means
    l2 = 0.0 if "cosine" in terms else 0.1
    found = Objective(
        stream,
        metric,
        center,
        tau=tau,
        l2=l2,
        penalty="plain",
        backend=backend,
        implicit=ImplicitTerm(covariance_of(rows)[0], 0.7) if "implicit" in terms else None,
        smoothing=0.2 if "smoothing" in terms else 0.0,
        margins=MARGINS if "margins" in terms else None,
        class_weights=CLASS_WEIGHTS if "classes" in terms else None,
        form=CosineForm(7.0) if "cosine" in terms else None,
    )
    return found, Naive(rows, center, metric.scale, tau=tau, l2=l2, terms=terms)


@pytest.mark.parametrize("terms", TERMS, ids="-".join)
@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_value_and_gradient_are_those_of_the_formula(terms, tau, backend, monkeypatch):
    monkeypatch.setattr(objective_module, "_IMPLICIT_ROWS", 11)
    rows = made(normalize="cosine" in terms)
    found, value = objective_of(rows, terms, tau, backend)
    rng = np.random.default_rng(1)
    weight, bias = 0.4 * rng.normal(size=(C, D)), rng.normal(size=C)
    evaluation = found.evaluate(weight, bias)
    assert evaluation.value == pytest.approx(value(weight, bias), rel=1e-5)
    assert_slopes(evaluation, value, weight, bias, rng, tolerance=2e-5)


def test_several_objectives_in_one_pass_are_each_alone(monkeypatch):
    monkeypatch.setattr(objective_module, "_LOGITS_BYTES", 0)  # blocks in parts of 256 rows
    rows = made()
    objectives = [objective_of(rows, terms, 1.0)[0] for terms in TERMS if "cosine" not in terms]
    for one in objectives[1:]:
        one.stream = objectives[0].stream
    plain = [one for one, terms in zip(objectives, TERMS, strict=False) if "rows" not in terms]
    rng = np.random.default_rng(2)
    points = [(rng.normal(size=(C, D)), rng.normal(size=C)) for _ in plain]
    for one, point, found in zip(plain, points, evaluate_together(plain, points), strict=True):
        alone = one.evaluate(*point)
        assert found.value == pytest.approx(alone.value, rel=1e-6)
        assert np.allclose(found.grad_weight, alone.grad_weight, rtol=1e-5, atol=1e-6)
        assert np.allclose(found.grad_bias, alone.grad_bias, rtol=1e-5, atol=1e-6)


def test_a_block_in_parts_changes_rounding_only(monkeypatch):
    rng = np.random.default_rng(0)
    rows = ArrayRows(rng.normal(size=(900, D)), rng.integers(0, C, 900))
    moments = class_moments(rows)
    options = {
        "tau": 1.0,
        "l2": 0.1,
        "penalty": "plain",
        "backend": "numba",
        "class_weights": CLASS_WEIGHTS + 1,
    }
    found = Objective(TrainingStream(rows), within_class_metric(moments), np.zeros(D), **options)
    point = rng.normal(size=(C, D)), rng.normal(size=C)
    whole = found.evaluate(*point)
    monkeypatch.setattr(objective_module, "_LOGITS_BYTES", 0)
    parts = found.evaluate(*point)
    assert parts.value == pytest.approx(whole.value, rel=1e-6)
    assert np.allclose(parts.grad_weight, whole.grad_weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "la"])
def test_a_row_of_weight_two_is_the_row_twice(loss):
    rows = made()
    X, labels = rows.read(0, N), rows.labels
    twice = ArrayRows(
        np.concatenate([X, X[::3]]), np.concatenate([labels, labels[::3]]), class_names=list("abcde")
    )
    weights = np.ones(N, np.float32)
    weights[::3] = 2
    moments = class_moments(twice)
    settings = TrainSettings(loss=loss, tolerance=1e-7, l2=0.02)
    streams = TrainingStream(rows, weights=weights), TrainingStream(twice)
    assert np.allclose(streams[0].class_shares, streams[1].class_shares)
    a, b = (train_linear(s, settings, moments).model for s in streams)
    assert np.abs(a.predict_proba(X) - b.predict_proba(X)).max() < 2e-3


def test_balanced_classes_leave_nothing_to_adjust():
    rows = made()
    moments = class_moments(rows)

    def probabilities(**settings):
        model = train_linear(
            TrainingStream(rows),
            TrainSettings(l2=0.02, tolerance=1e-7, **settings),
            moments,
        ).model
        return model.predict_proba(rows.read(0, N))

    ce = probabilities(loss="ce", class_weights="balanced")
    assert np.abs(ce - probabilities(loss="la", class_weights="balanced")).max() < 1e-3
    assert np.abs(ce - probabilities(loss="ce")).max() > 0.02


def test_class_weights_are_those_of_the_papers():
    counts = np.array([1000, 100, 10, 1, 0])
    assert class_weights("none", counts) is None
    balanced = class_weights("balanced", counts)
    assert np.allclose(balanced[:4] * counts[:4], balanced[0] * 1000)
    effective = class_weights("effective-number", counts, 0.99)
    assert np.allclose(effective[:4] / effective[3], (1 - 0.99) / (1 - 0.99 ** counts[:4]))
    assert np.allclose(class_weights("effective-number", counts, 0.0)[:4], 1.0)
    for found in (balanced, effective):
        assert found[4] == 0
        assert found @ counts == pytest.approx(counts.sum())


def test_margins_are_those_of_ldam():
    assert class_margins(0.0, np.array([5, 1])) is None
    assert np.allclose(class_margins(0.5, np.array([256, 16, 1, 0])), [0.125, 0.25, 0.5, 0.0])


def test_margins_count_synthetic_rows():
    """A stream that its sampler balances has one margin for all, which widens the gap of all classes alike."""
    rows = made()
    counts = np.array(COUNTS)
    targets = np.where(counts, counts.max() - counts, 0)
    stream = TrainingStream(rows, sampler=MadeSampler(np.eye(C, D)), targets=targets)
    assert np.array_equal(stream.class_counts, [40, 40, 40, 40, 0])
    assert np.allclose(class_margins(0.5, stream.class_counts), [0.5, 0.5, 0.5, 0.5, 0])


@pytest.mark.parametrize("bad", [np.ones(3), -np.ones(N), np.full(N, np.nan), np.zeros(N)])
def test_row_weights_that_are_none_are_refused(bad):
    with pytest.raises(DataError, match="row weights"):
        TrainingStream(made(), weights=bad)


def test_unlabelled_rows_have_no_weight():
    rows = made()
    labels = rows.labels.copy()
    labels[:10] = -1
    some = ArrayRows(rows.read(0, N), labels, class_names=list("abcde"))
    weights = weights_of_rows()
    stream = TrainingStream(some, weights=weights, block_rows=7)
    assert np.allclose(np.concatenate([w for _, _, w in stream]), weights[10:])
    mass = np.bincount(labels[10:], weights[10:], minlength=C)
    assert np.allclose(stream.class_shares, mass / mass.sum())
    assert stream.mean_weight == pytest.approx(weights[10:].mean(), rel=1e-6)


def test_the_cosine_head_is_a_minimum_that_scipy_does_not_improve():
    from scipy.optimize import minimize

    rows = made(normalize=True)
    moments = class_moments(rows)
    settings = TrainSettings(head="cosine", scale=6.0, loss="ce", tolerance=1e-8, max_passes=500)
    result = train_linear(TrainingStream(rows), settings, moments)
    model = result.model
    assert np.allclose(np.linalg.norm(model.weight[:4], axis=1), 6.0, atol=1e-4)
    assert (model.bias[:4] == 0).all()
    assert (model.weight[4] == 0).all()
    X, y = rows.read(0, N).astype(np.float64), rows.labels

    def value(flat):
        w = flat.reshape(4, D)
        z = 6.0 * X @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(N), y]).mean())

    found = value(model.weight[:4].astype(np.float64).ravel())
    least = minimize(value, model.weight[:4].astype(np.float64).ravel(), method="L-BFGS-B").fun
    assert found == pytest.approx(least, rel=1e-4)
    assert found == pytest.approx(result.history[-1].loss, rel=1e-4)


def test_the_cosine_head_needs_unit_rows():
    rows = made()
    with pytest.raises(ConfigError, match="normalize=True"):
        train_linear(TrainingStream(rows), TrainSettings(head="cosine"), class_moments(rows))


@pytest.mark.parametrize("counts", [(30, 0, 5), (9,), (1, 1, 1), (0, 4)])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_all_terms_together_are_harmless_in_degenerate_cases(counts, head):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(len(counts)), counts)
    X = rng.normal(size=(len(counts), 4))[labels] + 0.3 * rng.normal(size=(len(labels), 4))
    rows = ArrayRows(X, labels, class_names=[str(i) for i in range(len(counts))], normalize=True)
    settings = TrainSettings(
        head=head, smoothing=0.1, margin=0.1, class_weights="effective-number", implicit=0.5, max_passes=60
    )
    model = train_linear(TrainingStream(rows), settings, class_moments(rows, rank=2)).model
    assert np.isfinite(model.weight).all()
    empty = np.flatnonzero(np.array(counts) == 0)
    assert not np.isin(model.predict(rows.read(0, len(labels))), empty).any()
