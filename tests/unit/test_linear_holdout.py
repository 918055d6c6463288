"""Points are judged on rows that training never sees, and the best of them can be kept; every start ends alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from ltstore.errors import ConfigError, DataError, EncoderMismatchError
from ltstore.linear import TrainSettings, train_linear
from ltstore.linear.problem import Problem
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream

COUNTS = (90, 40, 20, 8, 4)
D = 12


def made(counts, seed, spread=1.1, **options):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centers = np.random.default_rng(99).normal(size=(len(counts), D))
    X = centers[labels] + spread * rng.normal(size=(len(labels), D))
    return ArrayRows(X, labels, class_names=list("abcde"), **options)


ROWS, HELD = made(COUNTS, 0), made((20,) * 5, 1)
MOMENTS = class_moments(ROWS)


def train(holdout=HELD, rows=ROWS, **settings):
    return train_linear(TrainingStream(rows), TrainSettings(**settings), class_moments(rows), holdout=holdout)


@pytest.mark.parametrize("posthoc_tau", [0.0, 0.5])
def test_the_score_is_that_of_the_model(posthoc_tau):
    result = train(posthoc_tau=posthoc_tau, max_passes=7)
    right = result.model.predict(HELD.read(0, 100)) == HELD.labels
    assert result.holdout.accuracy == pytest.approx(right.mean())
    by_class = [right[HELD.labels == c].mean() for c in range(5)]
    assert result.holdout.balanced == pytest.approx(np.mean(by_class))
    assert result.model.record["settings"]["holdout"] == result.holdout._asdict()


def test_a_holdout_without_some_classes_and_labels():
    labels = HELD.labels.copy()
    labels[labels == 4] = -1
    some = ArrayRows(HELD.read(0, 100), labels, class_names=list("abcde"))
    result = train(some)
    known = labels >= 0
    right = (result.model.predict(HELD.read(0, 100)) == labels)[known]
    assert result.holdout.accuracy == pytest.approx(right.mean())
    assert result.holdout.balanced == pytest.approx(right.mean())  # 20 rows of each class


def test_kept_points_and_only_they_are_scored(monkeypatch):
    monkeypatch.setattr("ltstore.linear.solver.FIRST_LENGTH", 30.0)  # too long: some points are not kept
    history = train().history
    for done in history:
        assert np.isfinite(done.gap) == np.isfinite(done.holdout_balanced) == np.isfinite(done.holdout_accuracy)
    assert any(not np.isfinite(done.gap) for done in history)


def test_the_best_point_is_kept():
    last, best = (
        train(loss="ce", l2=1e-4, tolerance=1e-5),
        train(loss="ce", l2=1e-4, tolerance=1e-5, keep="best"),
    )
    scores = np.array([done.holdout_balanced for done in best.history])
    assert np.array_equal(scores, [done.holdout_balanced for done in last.history], equal_nan=True)
    assert best.holdout.balanced == np.nanmax(scores)
    assert best.kept_pass == 1 + int(np.flatnonzero(scores == np.nanmax(scores))[-1])
    assert best.holdout.balanced > last.holdout.balanced  # so that this test tells the two apart
    assert last.kept_pass == len(last.history)
    again = train(loss="ce", l2=1e-4, max_passes=best.kept_pass)
    assert np.array_equal(again.model.weight, best.model.weight)


def test_a_holdout_changes_nothing_in_training():
    assert np.array_equal(train().model.weight, train(None).model.weight)
    assert train(None).holdout is None


def test_settings_and_rows_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="holdout"):
        train(None, keep="best")
    with pytest.raises(DataError, match="other classes"):
        train(ArrayRows(HELD.read(0, 9), HELD.labels[:9], class_names=list("abcdX")))
    with pytest.raises(DataError, match="no labelled rows"):
        train(ArrayRows(HELD.read(0, 9), class_names=list("abcde")))
    with pytest.raises(EncoderMismatchError, match="normal"):
        train(made((20,) * 5, 1, normalize=True))


@pytest.mark.parametrize("init", ["means", "gda", "ridge"])
@pytest.mark.parametrize("loss", ["ce", "la"])
def test_every_start_ends_at_one_minimum(init, loss):
    exact = train(None, loss=loss, tolerance=1e-7, max_passes=500)
    warm = train(None, loss=loss, tolerance=1e-7, max_passes=500, init=init)
    assert warm.history[-1].value == pytest.approx(exact.history[-1].value, rel=1e-5)
    assert warm.history[0].value < exact.history[0].value  # it is a warm start
    X = ROWS.read(0, ROWS.n_samples)
    assert np.abs(warm.model.predict_proba(X) - exact.model.predict_proba(X)).max() < 5e-3
    assert warm.model.record["settings"]["init"] == init
    assert exact.model.record["settings"]["init"] == "zero"


@pytest.mark.parametrize("init", ["means", "gda", "ridge"])
def test_a_start_has_logits_of_the_size_that_explains_the_rows(init):
    problem = Problem(TrainingStream(ROWS), TrainSettings(init=init), MOMENTS)
    start = problem.start()
    X, y = ROWS.read(0, ROWS.n_samples).astype(np.float64), ROWS.labels
    logits = (X - problem.objective.center) @ start[:, :-1].T + start[:, -1]
    weights = 1.0 / np.array(COUNTS)[y]

    def loss(t):
        return weights @ (logsumexp(t * logits, axis=1) - t * logits[np.arange(len(y)), y])

    assert loss(1.0) < min(loss(0.95), loss(1.05))


@pytest.mark.parametrize("init", ["means", "gda", "ridge"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_class_without_rows_is_no_hindrance_to_a_start(init, head):
    rows = made((30, 0, 9, 0, 1), 5, normalize=True)
    model = train(None, rows, init=init, head=head).model
    assert np.isfinite(model.weight).all()
    assert not np.isin(model.predict(rows.read(0, 40)), [1, 3]).any()


def test_the_history_says_what_a_pass_took():
    result = train(None)
    assert result.history[0].rows_per_second == 0  # the class moments told it
    for done in result.history[1:]:
        assert 0 <= done.data_seconds <= done.seconds
        assert done.rows_per_second == pytest.approx(ROWS.n_samples / done.seconds)
    assert 0 <= result.data_share < 1
