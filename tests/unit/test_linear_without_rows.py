"""At W = 0 the class means tell what a pass would find, and only where they are those of all rows of a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltstore.engine import LocalEngine
from ltstore.linear import TrainSettings, train_grid, train_linear
from ltstore.linear.objective import Objective, PassSums, evaluate_together
from ltstore.linear.problem import Problem
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.made_sampler import MadeSampler

COUNTS = (40, 25, 9, 1, 0)
C, D = len(COUNTS), 6
TERMS = {
    "plain": TrainSettings(),
    "cross entropy": TrainSettings(loss="ce", penalty="whitened"),
    "smoothing and margins": TrainSettings(smoothing=0.1, margin=0.3),
    "class weights": TrainSettings(class_weights="balanced"),
    "implicit": TrainSettings(implicit=0.5, smoothing=0.2),
}


class CountedRows(ArrayRows):
    """Counts how often the whole of it was read."""

    rounds = 0

    def read(self, start: int, stop: int, out: Any = None) -> Any:
        self.rounds += start == 0
        return super().read(start, stop, out=out)


def made() -> CountedRows:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.concatenate([np.repeat(np.arange(C), COUNTS), np.full(7, -1)]))
    X = 3 + rng.normal(size=(C + 1, D))[labels] + 0.5 * rng.normal(size=(len(labels), D))
    return CountedRows(X, labels, class_names="abcde")


def problem(settings: TrainSettings, **options: Any) -> tuple[CountedRows, Problem]:
    rows = made()
    moments = class_moments(rows)
    rows.rounds = 0
    return rows, Problem(TrainingStream(rows, cache_bytes=0, **options), settings, moments)


def at_zero(objective: Objective) -> Any:
    return np.zeros((C, D)), objective.prior_bias + np.linspace(-1, 1, C)


@pytest.mark.parametrize("settings", TERMS.values(), ids=TERMS)
def test_value_and_gradient_are_those_of_a_pass(settings: TrainSettings) -> None:
    rows, posed = problem(settings)
    objective = posed.objective
    point = at_zero(objective)
    found = objective.evaluate(*point)
    assert rows.rounds == 0
    assert not found.from_rows
    sums = PassSums([objective], [point])
    sums.add_stream(objective.stream)
    (expected,) = sums.evaluations(started=0.0)
    assert rows.rounds == 1
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    np.testing.assert_allclose(found.grad_weight, expected.grad_weight, atol=3e-6)
    np.testing.assert_allclose(found.grad_bias, expected.grad_bias, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"weights": np.linspace(0.5, 2, sum(COUNTS) + 7)},
        {"sampler": MadeSampler(np.eye(C, D)), "targets": np.array([0, 0, 5, 9, 0])},
    ],
    ids=["weighted rows", "synthetic rows"],
)
def test_other_rows_than_the_means_tell_of_are_read(options: Any) -> None:
    rows, posed = problem(TrainSettings(), **options)
    assert posed.objective.evaluate(*at_zero(posed.objective)).from_rows
    assert rows.rounds == 1


def test_moments_of_other_rows_tell_nothing() -> None:
    rows = made()
    fewer = class_moments(ArrayRows(rows.read(0, 60), rows.labels[:60], class_names="abcde"))
    posed = Problem(TrainingStream(rows), TrainSettings(), fewer)
    assert posed.objective.evaluate(*at_zero(posed.objective)).from_rows


def test_one_head_beyond_zero_takes_a_pass_of_all() -> None:
    _, posed = problem(TrainSettings())
    objective = posed.objective
    zero, beyond = at_zero(objective), (np.eye(C, D), np.zeros(C))
    together = evaluate_together([objective, objective], [zero, beyond])
    assert [found.from_rows for found in together] == [True, True]
    assert together[0].value == pytest.approx(objective.evaluate(*zero).value, rel=1e-6)


@pytest.mark.parametrize("engine", [None, LocalEngine(2)], ids=["alone", "workers"])
def test_training_reads_the_rows_once_less_than_it_says_passes(engine: Any) -> None:
    rows, posed = problem(TrainSettings())
    result = train_linear(posed.stream, TrainSettings(), posed.moments, engine=engine)
    assert rows.rounds == result.n_passes - 1
    assert [done.rows_per_second > 0 for done in result.history] == [False] + [True] * (result.n_passes - 1)
    spent = sum(done.seconds for done in result.history)
    assert result.rows_per_second == pytest.approx(sum(COUNTS) * (result.n_passes - 1) / spent)


def test_a_grid_begins_so_too() -> None:
    rows, posed = problem(TrainSettings())
    results = train_grid(posed.stream, list(TERMS.values())[:2], posed.moments)
    assert rows.rounds == max(result.n_passes for result in results) - 1
