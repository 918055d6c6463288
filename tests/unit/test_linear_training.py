"""Training ends at the minimum, and in a usable model in every degenerate case."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ltstore.errors import BackendUnavailableError, ConfigError, DataError, EncoderMismatchError
from ltstore.linear import (
    Origin,
    TrainSettings,
    gda,
    nearest_class_mean,
    predict_rows,
    predict_top,
    ridge,
    train_closed_form,
    train_grid,
    train_linear,
)
from ltstore.linear.closed_form import estimate_mean_shrinkage
from ltstore.rows import ArrayRows
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.made_moments import made_moments
from support.made_sampler import MadeSampler


def made(counts, d, seed=0, spread=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = rng.normal(size=(len(counts), d))[labels] + spread * rng.normal(size=(len(labels), d))
    return ArrayRows(X, labels, class_names=[f"c{i}" for i in range(len(counts))])


def moments_of(rows):
    return made_moments(rows.read(0, rows.n_samples), rows.labels, len(rows.class_names))


def train(rows, sampler=None, targets=None, block_rows=8192, **settings):
    stream = TrainingStream(rows, sampler=sampler, targets=targets, block_rows=block_rows)
    return train_linear(stream, TrainSettings(**settings), moments_of(rows))


ROWS = made((80, 40, 20, 8, 3), 6)


@pytest.mark.parametrize("penalty", ["plain", "whitened"])
def test_the_minimum_is_the_one_scipy_finds(penalty):
    from scipy.optimize import minimize

    rows, l2 = ROWS, 0.05
    X, labels = rows.read(0, rows.n_samples).astype(np.float64), rows.labels
    c, d, n = 5, 6, len(X)
    pooled = moments_of(rows).pooled
    scale = np.trace(pooled) / d
    matrix = 0.98 * pooled + 0.02 * scale * np.eye(d) if penalty == "whitened" else scale * np.eye(d)
    log_shares = np.log(np.bincount(labels) / n)

    def value(flat):
        w, b = flat[: c * d].reshape(c, d), flat[c * d :]
        z = X @ w.T + b + log_shares
        top = z.max(axis=1, keepdims=True)
        losses = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(n), labels]
        return losses.mean() + 0.5 * l2 * np.trace(w @ matrix @ w.T)

    least = minimize(value, np.zeros(c * d + c), method="L-BFGS-B", options={"maxfun": 10**6}).fun
    result = train(rows, l2=l2, penalty=penalty, tolerance=1e-6, max_passes=200)
    model = result.model
    found = value(np.concatenate([model.weight.ravel(), model.bias]).astype(np.float64))
    assert result.converged
    assert found == pytest.approx(least, rel=2e-5)
    assert result.history[-1].value == pytest.approx(found, rel=1e-4)


def test_the_minimum_with_an_implicit_term_is_the_one_scipy_finds():
    """And it lies above the mean loss over drawn rows, which it bounds, and below that of what is trained without."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    counts, d, strength, l2 = (60, 40, 30), 3, 0.5, 0.02
    rows = made(counts, d, spread=0.8)
    moments = class_moments(rows, rank=2)
    covariance = borrowed_covariance(moments, Lending.none(3), nu=20.0, donor_share=0.0)
    full = np.einsum("dr,crs,es->cde", covariance.basis, covariance.inside, covariance.basis)
    full += np.einsum("cd,de->cde", covariance.outside, np.eye(d))
    X, labels = rows.read(0, 130).astype(np.float64), rows.labels
    scale = np.trace(0.98 * moments.pooled + 0.02 * np.trace(moments.pooled) / d * np.eye(d)) / d

    def value(flat):
        w, b = flat[: 3 * d].reshape(3, d), flat[3 * d :]
        gaps = w[None] - w[:, None]
        z = X @ w.T + b + strength / 2 * np.einsum("yjd,yde,yje->yj", gaps, full, gaps)[labels]
        losses = logsumexp(z, axis=1) - z[np.arange(130), labels]
        return losses.mean() + 0.5 * l2 * scale * np.square(w).sum()

    def fit(implicit):
        settings = TrainSettings(loss="ce", l2=l2, tolerance=1e-7, implicit=implicit)
        result = train_linear(TrainingStream(rows), settings, moments)
        model = result.model
        assert model.record["settings"]["implicit"] == implicit
        return np.concatenate([model.weight.ravel(), model.bias]).astype(np.float64)

    least = minimize(value, np.zeros(3 * d + 3), method="L-BFGS-B", options={"maxfun": 10**6}).fun
    found = fit(strength)
    assert value(found) == pytest.approx(least, rel=1e-5)
    assert value(fit(0.0)) > 1.01 * least
    noise = np.random.default_rng(0).normal(size=(200, 130, d))
    roots = np.linalg.cholesky(strength * full)[labels]
    around = X + np.einsum("nij,snj->sni", roots, noise)
    z = around @ found[: 3 * d].reshape(3, d).T + found[3 * d :]
    losses = logsumexp(z, axis=2) - z[:, np.arange(130), labels]
    assert losses.mean() + 0.5 * l2 * scale * np.square(found[: 3 * d]).sum() < least


@pytest.mark.parametrize(
    "counts, d", [((30, 1), 4), ((30, 0, 5), 4), ((0, 12, 0), 4), ((9,), 3), ((1, 1), 5), ((1,), 1)]
)
def test_an_implicit_term_is_harmless_in_degenerate_cases(counts, d):
    rows = made(counts, d)
    settings = TrainSettings(implicit=1.0)
    moments = class_moments(rows, rank=2)
    model = train_linear(TrainingStream(rows), settings, moments).model
    assert np.isfinite(model.weight).all()
    assert not np.isin(model.predict(rows.read(0, rows.n_samples)), np.flatnonzero(np.array(counts) == 0)).any()


def test_the_default_stopping_rule_is_near_the_minimum():
    exact = train(ROWS, tolerance=1e-7, max_passes=300).history[-1].value
    assert train(ROWS).history[-1].value <= 1.02 * exact


def test_history_counts_every_pass():
    calls = []
    stream = TrainingStream(ROWS)
    result = train_linear(
        stream,
        TrainSettings(),
        moments_of(ROWS),
        progress=lambda rows, seconds: calls.append((rows, *seconds)),
    )
    assert result.n_passes == len(result.history) == len(calls)
    assert set(calls) == {(1, "train", "wait for rows")}
    spent = sum(done.seconds for done in result.history)
    assert result.rows_per_second == pytest.approx(ROWS.n_samples * (result.n_passes - 1) / spent)
    kept = [done.value for done in result.history if np.isfinite(done.gap)]
    assert all(later < earlier for earlier, later in pairwise(kept))


def test_passes_are_never_more_than_allowed(caplog):
    result = train(ROWS, max_passes=4, tolerance=0.0)
    assert result.n_passes == 4
    assert not result.converged
    assert result.model.record["settings"]["stopped"] == "max_passes"
    assert "before tolerance" in caplog.text


def test_the_same_call_gives_the_same_model():
    a, b = train(ROWS), train(ROWS)
    assert np.array_equal(a.model.weight, b.model.weight)
    assert np.array_equal(a.model.bias, b.model.bias)


def test_block_size_changes_rounding_only():
    a, b = train(ROWS, tolerance=1e-6), train(ROWS, tolerance=1e-6, block_rows=7)
    X = ROWS.read(0, ROWS.n_samples)
    assert np.abs(a.model.predict_proba(X) - b.model.predict_proba(X)).max() < 5e-3


def test_l2_does_not_depend_on_the_scale_of_rows():
    X = ROWS.read(0, ROWS.n_samples)
    scaled = ArrayRows(100 * X, ROWS.labels)
    for penalty in ("plain", "whitened"):
        a = train(ROWS, penalty=penalty, tolerance=1e-6, max_passes=200).model
        b = train(scaled, penalty=penalty, tolerance=1e-6, max_passes=200).model
        assert np.abs(a.predict_proba(X) - b.predict_proba(100 * X)).max() < 5e-3


def test_logit_adjustment_moves_only_the_bias_of_an_unpenalised_bias():
    ce, la = (train(ROWS, loss=loss, tolerance=1e-7, max_passes=300).model for loss in ("ce", "la"))
    shares = ROWS.labels.size / np.bincount(ROWS.labels)
    moved = la.bias - ce.bias - np.log(shares)
    assert np.abs(la.weight - ce.weight).max() < 0.02
    assert np.ptp(moved) < 0.05


def test_synthetic_rows_that_balance_the_stream_switch_the_adjustment_off():
    counts = np.bincount(ROWS.labels)
    options = {"sampler": MadeSampler(moments_of(ROWS).means, 0.6), "targets": counts.max() - counts}
    ce, la = (train(ROWS, loss=loss, tolerance=1e-6, max_passes=200, **options).model for loss in ("ce", "la"))
    X = ROWS.read(0, ROWS.n_samples)
    assert np.abs(ce.predict_proba(X) - la.predict_proba(X)).max() < 1e-3
    assert la.record["settings"]["n_synthetic"] == int((counts.max() - counts).sum())
    assert np.array_equal(la.class_counts, counts)


@pytest.mark.parametrize("loss", ["ce", "la"])
@pytest.mark.parametrize("penalty", ["plain", "whitened"])
@pytest.mark.parametrize(
    "counts, d",
    [
        ((30, 1), 4),  # one row of a class
        ((30, 0, 5), 4),  # a class without rows
        ((0, 12, 0), 4),  # one class with rows
        ((9,), 3),  # one class at all
        ((4, 3, 2), 40),  # fewer rows than features
        ((1, 1, 1), 5),  # no within-class scatter
        ((1,), 1),
        ((20, 10), 1),
    ],
)
def test_degenerate_cases_give_a_usable_model(counts, d, loss, penalty):
    rows = made(counts, d)
    result = train(rows, loss=loss, penalty=penalty)
    X = rows.read(0, rows.n_samples)
    assert np.isfinite(result.model.weight).all()
    assert np.isfinite(result.model.bias).all()
    probabilities = result.model.predict_proba(X)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    empty = np.flatnonzero(np.array(counts) == 0)
    assert not np.isin(result.model.predict(X), empty).any()
    assert (probabilities[:, empty] == 0).all()
    for form in ("ncm", "gda", "ridge"):
        closed = train_closed_form(form, moments_of(rows), class_names=rows.class_names, origin=Origin.of(rows))
        assert not np.isin(closed.model.predict(X), empty).any()


@pytest.mark.parametrize("penalty", ["plain", "whitened"])
def test_equal_rows_give_the_prior(penalty):
    rows = ArrayRows(np.ones((10, 3)), np.array([0] * 7 + [1] * 3))
    model = train(rows, loss="ce", penalty=penalty, tolerance=1e-6).model
    assert np.allclose(model.predict_proba(np.ones((1, 3), np.float32)), [[0.7, 0.3]], atol=1e-3)


def test_all_zero_rows_train():
    model = train(ArrayRows(np.zeros((4, 2)), np.array([0, 1, 1, 1])), loss="ce").model
    assert np.allclose(model.predict_proba(np.zeros((1, 2), np.float32)), [[0.25, 0.75]], atol=5e-3)


def test_moments_or_encoder_of_other_rows_are_refused():
    stream = TrainingStream(ROWS)
    with pytest.raises(DataError, match="moments are of"):
        train_linear(stream, TrainSettings(), moments_of(made((3, 3), 6)))
    with pytest.raises(DataError, match="encoder gives 2 features"):
        train_linear(stream, TrainSettings(), moments_of(ROWS), origin=Origin.of(made((3, 3), 2)))


def test_a_backend_by_name_is_recorded_and_never_replaced(monkeypatch):
    from ltstore.kernels import dispatch

    assert train(ROWS, backend="reference").model.record["settings"]["backend"] == "reference"
    monkeypatch.setitem(dispatch._MODULES, "numba", ("ltstore.kernels.numba_cpu", "no_such_package"))
    with pytest.raises(BackendUnavailableError):
        train(ROWS, backend="numba")


def test_nearest_class_mean_is_that():
    moments = moments_of(ROWS)
    X = ROWS.read(0, ROWS.n_samples).astype(np.float64)
    head = nearest_class_mean(moments)
    distances = ((X[:, None] - moments.means) ** 2).sum(axis=2)
    assert np.array_equal((X @ head.weight.T + head.bias).argmax(axis=1), distances.argmin(axis=1))


@pytest.mark.parametrize("mean_shrinkage", [0.0, 4.0])
def test_gda_is_the_gaussian_posterior(mean_shrinkage):
    from scipy.stats import multivariate_normal

    moments = moments_of(ROWS)
    X = ROWS.read(0, 30).astype(np.float64)
    head = gda(moments, shrinkage=0.3, mean_shrinkage=mean_shrinkage)
    covariance = 0.7 * moments.pooled + 0.3 * np.trace(moments.pooled) / 6 * np.eye(6)
    n = moments.counts[:, None]
    center = ROWS.read(0, ROWS.n_samples).mean(axis=0, dtype=np.float64)
    means = center + n / (n + mean_shrinkage) * (moments.means - center)
    density = np.stack([multivariate_normal(mean, covariance).logpdf(X) for mean in means], axis=1)
    logits = X @ head.weight.T + head.bias
    difference = logits - density
    assert np.allclose(difference, difference[:, :1], atol=1e-6)


def test_estimated_mean_shrinkage_is_within_over_between_variance():
    for ratio in (0.25, 4.0):
        rows = made((60, 30, 10, 5) * 40, 12, spread=np.sqrt(ratio))
        moments = moments_of(rows)
        for inverse in (np.eye(12), np.diag(np.full(12, 7.0))):
            assert estimate_mean_shrinkage(moments, inverse) == pytest.approx(ratio, rel=0.2)


def test_estimated_mean_shrinkage_at_its_ends():
    same = made((50, 20), 4)
    moments = moments_of(same)
    moments.means[:] = moments.means.mean(axis=0)
    assert estimate_mean_shrinkage(moments, np.eye(4)) == 50
    assert estimate_mean_shrinkage(moments_of(made((1, 1), 4)), np.eye(4)) == 0


def test_ridge_is_weighted_least_squares():
    rows = made((6, 6, 6), 3)
    X, moments = rows.read(0, 18).astype(np.float64), moments_of(rows)
    head = ridge(moments, l2=0.1)
    centered = X - X.mean(axis=0)
    # With classes of equal size the weighted second moment is between + pooled, whose divisor is N - C.
    within = moments.pooled
    between = np.cov(moments.means.T, bias=True)
    second = within + between
    target = np.eye(3)[rows.labels]
    expected = np.linalg.solve(second + 0.1 * np.trace(second) / 3 * np.eye(3), centered.T @ target / 18)
    assert np.allclose(head.weight, expected.T)
    assert np.allclose(X.mean(axis=0) @ head.weight.T + head.bias, 1 / 3)


@pytest.mark.parametrize(
    "options", [{"shrinkage": 1.5}, {"shrinkage": -0.1}, {"mean_shrinkage": float("nan")}, {"l2": 1.0}]
)
def test_closed_form_options_out_of_range(options):
    with pytest.raises(ConfigError):
        train_closed_form(
            "gda", moments_of(ROWS), class_names=ROWS.class_names, origin=Origin.of(ROWS), **options
        )


def test_the_record_of_a_closed_form_holds_what_was_estimated():
    result = train_closed_form(
        "gda", moments_of(ROWS), class_names=ROWS.class_names, origin=Origin.of(ROWS), shrinkage=0.3
    )
    settings = result.model.record["settings"]
    assert settings["head"] == "gda"
    assert settings["shrinkage"] == 0.3
    assert settings["mean_shrinkage"] > 0


def test_an_unknown_closed_form():
    with pytest.raises(ConfigError, match="ncm, gda, ridge"):
        train_closed_form("lda", moments_of(ROWS), class_names=ROWS.class_names, origin=Origin.of(ROWS))


def test_prediction_over_blocks_equals_prediction_at_once():
    model = train(ROWS).model
    X = ROWS.read(0, ROWS.n_samples)
    blocks = list(predict_rows(model, ROWS, 13))
    assert [start for start, _ in blocks] == list(range(0, ROWS.n_samples, 13))
    assert np.allclose(np.concatenate([z for _, z in blocks]), model.decision_function(X), atol=1e-4)
    top = predict_top(model, ROWS, 3, 13)
    assert np.array_equal(top.labels[:, 0], model.predict(X))
    p = np.sort(model.predict_proba(X), axis=1)[:, ::-1][:, :3]
    assert np.allclose(top.probabilities, p, atol=1e-5)
    assert predict_top(model, ROWS, 99).labels.shape == (ROWS.n_samples, 5)


def test_rows_of_another_encoder_or_normalization_are_refused_at_once():
    model = train(ROWS).model
    other = made((5, 5), 7)
    with pytest.raises(EncoderMismatchError, match="n_features: 7 / 6"):
        predict_rows(model, other)
    unit = ArrayRows(ROWS.read(0, 9), encoder=ROWS.encoder)
    unit._normalized = True
    with pytest.raises(EncoderMismatchError, match="normalize=False"):
        predict_rows(model, unit)
    with pytest.raises(ConfigError, match="k must"):
        predict_top(model, ROWS, 0)
    with pytest.raises(ConfigError, match="block_rows"):
        predict_rows(model, ROWS, 0)


def test_importing_the_room_loads_nothing_heavy():
    import subprocess
    import sys

    heavy = ["torch", "numba", "scipy", "safetensors", "sklearn"]
    code = f"import sys, ltstore.linear; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("n_heads", [1, 3])
def test_the_share_of_peak_is_arithmetic_on_what_was_measured(n_heads):
    asked = []

    def peak(*shape, precision, device):
        asked.append((*shape, precision, device))
        return 2e9

    rows = made((40, 12, 5), 6)
    grid = [TrainSettings(l2=l2) for l2 in (1e-3, 1e-2, 1e-1)][:n_heads]
    moments = moments_of(rows)
    sampler = MadeSampler(moments.means, 0.2)
    stream = TrainingStream(rows, sampler=sampler, targets=np.array([0, 30, 30]))
    results = train_grid(stream, grid, moments, peak=peak)
    assert asked == [(117, 6, 3 * n_heads, "float32", "cpu")]
    served = np.bincount([number for one in results for number in range(one.n_passes)])
    for result in results:
        seconds = np.array([done.seconds for done in result.history])
        flops = 4 * 57 * 6 * 3 * served[: result.n_passes]  # of real rows alone
        shares = [done.share_of_peak for done in result.history]
        assert shares == pytest.approx(flops / seconds / 2e9)
        assert result.share_of_peak == pytest.approx(flops.sum() / seconds.sum() / 2e9)
        assert result.peak == 2e9


def test_nothing_is_measured_unless_asked_for():
    result = train(ROWS, max_passes=2)
    assert np.isnan(result.peak)
    assert np.isnan(result.share_of_peak)
    assert result.history[0].to_json()["share_of_peak"] is None


def test_a_model_says_what_its_rows_say_unless_told_otherwise():
    told = Origin(
        encoder=ROWS.encoder,
        encoder_spec="onnx:m.onnx",
        made_from={"split": "train"},
        class_counts=np.array([900, 400, 200, 80, 30]),
    )
    for rows in (ROWS, ArrayRows(ROWS.read(0, ROWS.n_samples), ROWS.labels, normalize=True)):
        moments, settings = moments_of(rows), TrainSettings(max_passes=2)
        own = train_linear(TrainingStream(rows), settings, moments).model
        assert (own.encoder, own.normalized, own.encoder_spec) == (rows.encoder, rows.normalized, "")
        assert own.class_counts.tolist() == [80, 40, 20, 8, 3]
        assert own.record["made_from"] == {}
    closed = train_closed_form("ncm", moments_of(ROWS), class_names=ROWS.class_names, origin=told)
    for result in (train_linear(TrainingStream(ROWS), settings, moments_of(ROWS), origin=told), closed):
        assert result.model.encoder_spec == "onnx:m.onnx"
        assert result.model.normalized
        assert result.model.class_counts.tolist() == told.class_counts.tolist()
        assert result.model.record["made_from"] == {"split": "train"}
