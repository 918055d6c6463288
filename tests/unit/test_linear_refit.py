"""A head that a holdout chose is trained on from where it is, on all rows, and ends where they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltstore.linear import MinibatchSettings, TrainSettings, refit_linear, train_linear
from ltstore.linear.problem import Problem
from ltstore.rows import ArrayRows, copy_rows_at
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream

COUNTS = (90, 40, 20, 8, 4)
D = 12


def made(counts=COUNTS, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = np.random.default_rng(99).normal(size=(len(counts), D))[labels] + rng.normal(size=(len(labels), D))
    return ArrayRows(X, labels, class_names=list("abcde")[: len(counts)], normalize=True)


ALL = made()
RNG = np.random.default_rng(5)
FAST = MinibatchSettings(epochs=9, batch_size=16, learning_rate=0.2, schedule="constant")
HELD = np.concatenate(
    [RNG.choice(np.flatnonzero(c == ALL.labels), n // 4, False) for c, n in enumerate(COUNTS)]
)
REST = np.setdiff1d(np.arange(ALL.n_samples), HELD)


def problem(rows, settings):
    return Problem(TrainingStream(rows), settings, class_moments(rows))


def chosen_by_the_holdout(settings):
    rest, held = copy_rows_at(ALL, REST), copy_rows_at(ALL, HELD)
    return train_linear(TrainingStream(rest), settings, class_moments(rest), holdout=held)


def on_all(settings, chosen, **options):
    return refit_linear(TrainingStream(ALL), settings, class_moments(ALL), chosen, **options)


def test_it_ends_at_the_minimum_of_all_rows_and_sooner_than_from_zero():
    settings = TrainSettings(l2=1e-2, tolerance=1e-7, max_passes=500)
    chosen = chosen_by_the_holdout(settings)
    again = on_all(settings, chosen)
    anew = train_linear(TrainingStream(ALL), settings, class_moments(ALL))
    assert again.stopped == "tolerance"
    assert again.history[-1].value == pytest.approx(anew.history[-1].value, rel=1e-5)
    assert again.n_passes < anew.n_passes
    X = ALL.read(0, ALL.n_samples)
    assert np.abs(again.model.predict_proba(X) - anew.model.predict_proba(X)).max() < 5e-3
    assert np.abs(again.model.predict_proba(X) - chosen.model.predict_proba(X)).max() > 5e-3
    assert again.model.record["settings"]["n_real"] == ALL.n_samples
    assert again.holdout is None


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(loss="ce", l2=1e-5, tolerance=1e-6, keep="best"),
        TrainSettings(solver="adam", minibatch=FAST, keep="best"),
    ],
)
def test_where_the_holdout_chose_when_to_stop_there_are_no_more_passes(settings, caplog):
    chosen = chosen_by_the_holdout(settings)
    assert chosen.kept_pass < chosen.n_passes  # so that this test tells the two apart
    caplog.clear()
    again = on_all(settings, chosen)
    assert again.n_passes == chosen.kept_pass
    assert not caplog.records  # it is cut short on purpose


@pytest.mark.parametrize("posthoc_tau", [0.0, 0.7])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_it_begins_at_the_head(head, posthoc_tau):
    """The first pass has the loss of the chosen model, computed by its logits."""
    settings = TrainSettings(head=head, loss="ce", posthoc_tau=posthoc_tau, max_passes=6)
    own = problem(ALL, settings)
    chosen = train_linear(TrainingStream(ALL), settings, class_moments(ALL))
    weight, bias = own.finish(own.point_of(chosen.model))
    assert weight == pytest.approx(chosen.model.weight, abs=1e-5)
    assert bias == pytest.approx(chosen.model.bias, abs=1e-5)
    passes = []
    on_all(settings, chosen, on_pass=passes.append)
    assert passes[0].loss == pytest.approx(chosen.history[-1].loss, rel=1e-4)


def test_a_class_that_was_empty_begins_as_at_zero():
    few = made((90, 40, 20, 8, 0))
    settings = TrainSettings(max_passes=5)
    chosen = train_linear(TrainingStream(few), settings, class_moments(few))
    own = problem(ALL, settings)
    point = own.point_of(chosen.model)
    assert np.abs(point).max() < 100
    assert np.array_equal(point[4], own.start()[4])
    again = on_all(replace(settings, max_passes=200), chosen)
    assert (again.model.predict(ALL.read(0, ALL.n_samples)) == 4).any()
