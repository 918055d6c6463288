"""Heads that share their passes end where each ends alone, and the best on the holdout is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltstore.errors import ConfigError
from ltstore.linear import TrainSettings, best_of, expand_grid, train_grid, train_linear
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.made_sampler import MadeSampler

COUNTS = (120, 50, 20, 8, 4)
C, D = len(COUNTS), 9


def made(seed, counts):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), counts))
    X = np.random.default_rng(99).normal(size=(C, D))[labels] + 0.9 * rng.normal(size=(len(labels), D))
    return ArrayRows(X, labels, class_names=list("abcde"), normalize=True)


ROWS, HELD = made(0, COUNTS), made(1, (30,) * 5)
MOMENTS = class_moments(ROWS)


class CountingStream(TrainingStream):
    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def stream():
    return CountingStream(
        ROWS, sampler=MadeSampler(MOMENTS.means, 0.2), targets=np.array([0, 5, 20, 9, 0]), block_rows=70
    )


def grid(rows=None, settings=(), **options):
    return train_grid(rows or stream(), settings, MOMENTS, holdout=HELD, **options)


MIXED = [
    TrainSettings(),
    TrainSettings(l2=1e-3),
    TrainSettings(tau=0.5, l2=0.1, penalty="whitened"),
    TrainSettings(loss="ce", smoothing=0.1),
    TrainSettings(class_weights="effective-number", margin=0.4, init="gda"),
    TrainSettings(implicit=0.5, posthoc_tau=0.2),
    TrainSettings(head="cosine", scale=9.0),
]


def test_each_head_is_the_one_that_is_trained_alone():
    settings = [replace(one, tolerance=1e-7, max_passes=400) for one in MIXED]
    X = ROWS.read(0, ROWS.n_samples)
    for one, together in zip(settings, grid(settings=settings), strict=True):
        alone = train_linear(stream(), one, MOMENTS, holdout=HELD)
        assert together.history[-1].value == pytest.approx(alone.history[-1].value, rel=1e-5)
        assert np.abs(together.model.predict_proba(X) - alone.model.predict_proba(X)).max() < 5e-3
        assert together.holdout.balanced == pytest.approx(alone.holdout.balanced, abs=0.02)
        differing = {"n_passes", "kept_pass", "stopped", "holdout"}
        differing.add("device_reason")  # a pass of several heads is that much larger
        records = [
            {k: v for k, v in result.model.record["settings"].items() if k not in differing}
            for result in (together, alone)
        ]
        assert records[0] == records[1]


def test_the_first_passes_are_the_same_as_alone():
    """Before rounding can grow: same points, same values, same line searches."""
    for one, together in zip(MIXED, grid(settings=[replace(s, max_passes=5) for s in MIXED]), strict=True):
        alone = train_linear(stream(), replace(one, max_passes=5), MOMENTS, holdout=HELD)
        assert [done.value for done in together.history] == pytest.approx(
            [done.value for done in alone.history], rel=1e-4
        )
        assert [np.isfinite(done.gap) for done in together.history] == [
            np.isfinite(done.gap) for done in alone.history
        ]


def test_rows_are_read_as_often_as_the_longest_head_needs():
    rows = stream()
    results = grid(rows, MIXED)
    lengths = [result.n_passes for result in results]
    assert rows.passes == max(lengths)
    assert min(lengths) < max(lengths)
    for result in results:
        assert len(result.history) == result.n_passes
        assert result.converged


def test_a_grid_of_one_is_the_head_alone_to_the_bit():
    alone = train_linear(stream(), MIXED[4], MOMENTS)
    (together,) = grid(settings=[MIXED[4]])
    assert np.array_equal(alone.model.weight, together.model.weight)


def test_progress_counts_passes():
    counted = []
    results = grid(settings=MIXED[:2], progress=lambda passes, _: counted.append(passes))
    assert counted == [1] * max(result.n_passes for result in results)


def test_the_best_is_by_balanced_accuracy_then_accuracy_then_order():
    results = grid(settings=MIXED)
    best = best_of(results)
    assert results[best].holdout.balanced == max(result.holdout.balanced for result in results)
    same = [results[best], results[best]]
    assert best_of(same) == 0
    with pytest.raises(ConfigError, match="holdout"):
        best_of([replace(results[0], holdout=None)])
    with pytest.raises(ConfigError, match="holdout"):
        best_of([])


def test_all_combinations_in_order():
    base = TrainSettings(max_passes=7)
    found = expand_grid(base, {"l2": [1e-3, 1e-2], "tau": [0.5, 1.0]})
    assert [(one.l2, one.tau) for one in found] == [(1e-3, 0.5), (1e-3, 1.0), (1e-2, 0.5), (1e-2, 1.0)]
    assert {one.max_passes for one in found} == {7}
    assert expand_grid(base, {}) == [base]


@pytest.mark.parametrize(
    "axes, word",
    [
        ({"smothing": [1]}, "did you mean 'smoothing'"),
        ({"seed": [1, 2]}, "cannot differ in 'seed'"),
        ({"l2": []}, "no values"),
        ({"l2": [1e-3, -1.0]}, "l2 must be"),
        ({"loss": ["ce"], "tau": [1.0]}, "loss 'ce'"),
        ({"l2": [0.1 + i for i in range(20)], "margin": [float(i) for i in range(20)]}, "256"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(axes, word):
    with pytest.raises(ConfigError, match=word):
        expand_grid(TrainSettings(), axes)


@pytest.mark.parametrize(
    "settings, word",
    [
        ([], "none"),
        ([TrainSettings(), TrainSettings(solver="sgd")], "lbfgs"),
        ([TrainSettings(), TrainSettings(seed=1)], "one seed"),
        ([TrainSettings(), TrainSettings(backend="reference")], "one backend"),
        ([TrainSettings(), TrainSettings(keep="best")], "one keep"),
    ],
)
def test_heads_that_cannot_share_passes_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        grid(settings=settings)
