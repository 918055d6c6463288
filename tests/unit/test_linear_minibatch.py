"""Minibatch solvers: the order of rows, one step by its formula, the optimum of the whole passes."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.linear import MinibatchSettings, TrainSettings, train_linear
from ltstore.linear.problem import Problem
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import make_sampler
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream, iter_shuffled
from support.made_sampler import MadeSampler

COUNTS = (160, 60, 25, 10, 5)
C, D = len(COUNTS), 8


def made(seed=0, normalize=False):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), COUNTS))
    X = rng.normal(size=(C, D))[labels] + 0.7 * rng.normal(size=(len(labels), D)) + 1
    return ArrayRows(X, labels, class_names=list("abcde"), normalize=normalize)


ROWS = made()
MOMENTS = class_moments(ROWS)


def balanced_stream(**options):
    targets = np.array(COUNTS).max() - np.array(COUNTS)
    return TrainingStream(ROWS, sampler=MadeSampler(MOMENTS.means, 0.5), targets=targets, seed=3, **options)


def train(stream=None, settings=None, **minibatch):
    settings = settings or {"solver": "sgd"}
    chosen = TrainSettings(l2=0.02, minibatch=MinibatchSettings(**minibatch), **settings)
    return train_linear(stream or TrainingStream(ROWS), chosen, MOMENTS)


def rows_of(batches):
    batches = list(batches)
    return np.concatenate([X for X, _, _ in batches]), np.concatenate([labels for _, labels, _ in batches])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_has_every_row_of_the_pass_once(batch_size, prefetch):
    stream = balanced_stream()
    X, labels = rows_of(stream)
    found, found_labels = rows_of(iter_shuffled(stream, batch_size, seed=1, epoch=2, prefetch=prefetch))
    assert len(found) == stream.n_samples == 5 * 160
    order, found_order = np.lexsort(X.T), np.lexsort(found.T)
    assert np.array_equal(X[order], found[found_order])
    assert np.array_equal(labels[order], found_labels[found_order])


def test_the_order_is_a_function_of_seed_and_epoch():
    stream = balanced_stream()

    def order(**key):
        return rows_of(iter_shuffled(stream, 50, **key))[0]

    assert np.array_equal(order(seed=1, epoch=0), order(seed=1, epoch=0))
    assert not np.array_equal(order(seed=1, epoch=0), order(seed=1, epoch=1))
    assert not np.array_equal(order(seed=1, epoch=0), order(seed=2, epoch=0))


def test_batches_mix_classes_and_kinds():
    stream = balanced_stream()
    share = [
        np.bincount(labels, minlength=C) / len(labels)
        for _, labels, _ in iter_shuffled(stream, 200, seed=0, epoch=0)
    ]
    assert np.abs(np.array(share) - 0.2).max() < 0.12


def test_unlabelled_rows_are_left_out_and_weights_stay_with_their_rows():
    labels = ROWS.labels.copy()
    labels[::4] = -1
    weights = np.random.default_rng(0).uniform(0.5, 2, len(labels)).astype(np.float32)
    some = ArrayRows(ROWS.read(0, ROWS.n_samples), labels, class_names=list("abcde"))
    stream = TrainingStream(some, weights=weights)
    for X, found, found_weights in iter_shuffled(stream, 33, seed=0, epoch=0):
        where = [int(np.flatnonzero((some.read(0, some.n_samples) == x).all(axis=1))[0]) for x in X]
        assert np.array_equal(labels[where], found)
        assert np.array_equal(weights[where], found_weights)
    assert (found >= 0).all()


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_steps_are_those_of_the_formula(solver):
    """Two epochs of one batch each, against the update written out with the gradient of the whole pass.

    From W = 0 the gradient of the bias is 0 but for rounding, which adam would make a step of.
    """
    settings = TrainSettings(solver=solver, l2=0.02, loss="ce", init="ridge")
    problem = Problem(TrainingStream(ROWS), settings, MOMENTS)
    root = problem.metric.scale**0.5
    W, b = problem.start()[:, :-1], problem.start()[:, -1]
    m, v = [np.zeros((C, D)), np.zeros(C)], [np.zeros((C, D)), np.zeros(C)]
    for step in (1, 2):
        found = problem.objective.evaluate(W, b)
        for i, gradient in enumerate((found.grad_weight / root, found.grad_bias)):
            if solver == "sgd":
                m[i] = 0.8 * m[i] + gradient
                move = 0.3 * m[i]
            else:
                m[i] = 0.8 * m[i] + 0.2 * gradient
                v[i] = 0.999 * v[i] + 0.001 * gradient**2
                move = 0.3 * (m[i] / (1 - 0.8**step)) / (np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
            if i == 0:
                W = W - move / root
            else:
                b = b - move
    model = train(
        settings={"solver": solver, "loss": "ce", "init": "ridge"},
        learning_rate=0.3,
        momentum=0.8,
        epochs=2,
        batch_size=10_000,
        schedule="constant",
    ).model
    assert np.allclose(model.weight, W, rtol=1e-4, atol=1e-5)
    assert np.allclose(model.bias, b - W @ problem.objective.center, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver, rate", [("sgd", 0.1), ("adam", 0.05)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weights": "effective-number", "smoothing": 0.1, "margin": 0.3},
        {"implicit": 0.3, "loss": "ce"},
    ],
    ids=["la", "terms", "implicit"],
)
def test_the_optimum_of_whole_passes_is_reached(solver, rate, options):
    stream = balanced_stream() if not options else TrainingStream(ROWS)
    exact = train_linear(stream, TrainSettings(l2=0.02, tolerance=1e-7, **options), MOMENTS).history[-1].value
    result = train(stream, {"solver": solver, **options}, epochs=150, batch_size=64, learning_rate=rate)
    problem = Problem(stream, TrainSettings(l2=0.02, **options), MOMENTS)
    W, b = result.model.arrays
    found = problem.objective.evaluate(W, b + W @ problem.objective.center).value
    assert exact <= found * (1 + 1e-5)
    assert found <= 1.01 * exact
    assert result.history[-1].value == pytest.approx(found, rel=0.05)  # the mean over the last epoch's steps
    assert result.stopped == "epochs"
    assert result.converged


@pytest.mark.parametrize("solver, rate", [("sgd", 0.5), ("adam", 0.05)])
def test_the_cosine_head_learns(solver, rate):
    rows = made(normalize=True)
    moments = class_moments(rows)
    minibatch = MinibatchSettings(batch_size=32, epochs=100, learning_rate=rate)
    settings = TrainSettings(head="cosine", scale=8.0, solver=solver, minibatch=minibatch)
    result = train_linear(TrainingStream(rows), settings, moments)
    exact = train_linear(
        TrainingStream(rows),
        TrainSettings(head="cosine", scale=8.0, tolerance=1e-6),
        moments,
    )
    assert result.history[-1].loss <= 1.03 * exact.history[-1].loss
    assert np.allclose(np.linalg.norm(result.model.weight, axis=1), 8.0, atol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    def weight(seed=0, **options):
        stream = balanced_stream(**options)
        return train(stream, {"solver": "adam", "seed": seed}, epochs=3, batch_size=100).model.weight

    assert np.array_equal(weight(), weight())
    assert np.array_equal(weight(), weight(cache_bytes=0, block_rows=17))
    assert not np.array_equal(weight(), weight(seed=1))


def test_scaling_the_rows_changes_nothing():
    scaled = ArrayRows(100 * ROWS.read(0, ROWS.n_samples), ROWS.labels, class_names=list("abcde"))
    X = ROWS.read(0, ROWS.n_samples)
    for solver in ("sgd", "adam"):
        settings = TrainSettings(solver=solver, l2=0.02, minibatch=MinibatchSettings(epochs=4, batch_size=50))
        a = train_linear(TrainingStream(ROWS), settings, MOMENTS).model
        b = train_linear(TrainingStream(scaled), settings, class_moments(scaled)).model
        assert np.abs(a.predict_proba(X) - b.predict_proba(100 * X)).max() < 1e-3


def test_the_learning_rate_falls_to_zero_along_a_cosine():
    falling = train(epochs=10, batch_size=64, learning_rate=0.1)
    constant = train(epochs=10, batch_size=64, learning_rate=0.1, schedule="constant")
    assert falling.history[0].value == pytest.approx(constant.history[0].value, rel=0.2)
    assert not np.array_equal(falling.model.weight, constant.model.weight)
    assert falling.model.record["settings"]["minibatch"] == {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "epochs": 10,
        "batch_size": 64,
        "schedule": "cosine",
    }


def test_synthetic_rows_that_are_sums_are_made_in_minibatches_and_the_record_says_so():
    sampler = make_sampler("smote").fit(ROWS, MOMENTS, class_donors(MOMENTS.means, MOMENTS.counts))
    stream = TrainingStream(ROWS, sampler=sampler, targets=np.full(C, 30), seed=3)
    found = train(stream, {"solver": "adam"}, epochs=2).model.record["settings"]
    assert found["synthesis"] == "rows are made: in minibatches they always are"


def test_the_best_epoch_is_kept():
    held = made(seed=0)
    settings = TrainSettings(solver="adam", keep="best", minibatch=MinibatchSettings(epochs=8, batch_size=20))
    result = train_linear(TrainingStream(ROWS), settings, MOMENTS, holdout=held)
    scores = [done.holdout_balanced for done in result.history]
    assert result.holdout.balanced == max(scores)
    assert len(scores) == result.n_passes == 8
