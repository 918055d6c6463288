"""The factor of the logits that labels are most probable under, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.linear.temperature import best_factor, scaled
from ltstore.rows import ArrayRows
from ltstore.types import UNLABELLED


def test_a_head_that_is_too_sure_is_made_as_sure_as_it_is_right() -> None:
    """Labels are drawn from the softmax of a head; logits five times as large are divided by five."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((4, 6)), np.zeros(4)  # classes of about one size: they weigh the same
    X = rng.standard_normal((4000, 6)).astype(np.float32)
    logits = X @ weight.T + bias
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    labels[::50] = -1  # unlabelled: not looked at
    rows = ArrayRows(X, labels, class_names=list("abcd"))
    assert best_factor(weight, bias, rows) == pytest.approx(1.0, abs=0.1)
    assert best_factor(5 * weight, 5 * bias, rows) == pytest.approx(0.2, abs=0.02)
    assert best_factor(weight / 5, bias, rows) == pytest.approx(5.0, abs=0.5)


def test_an_empty_class_stays_empty() -> None:
    weight, bias = np.array([[1.0], [0.0]]), np.array([0.5, EMPTY_CLASS_BIAS])
    new_weight, new_bias = scaled(weight, bias, 2.0)
    assert new_weight.tolist() == [[2.0], [0.0]]
    assert new_bias.tolist() == [1.0, EMPTY_CLASS_BIAS]
    assert bias[0] == 0.5


def test_rows_that_tell_nothing_leave_a_head_as_it_is() -> None:
    """No label, a class that the head does not know, or no mistake: surer would always be better."""
    weight, bias = np.eye(3), np.array([0.0, 0.0, EMPTY_CLASS_BIAS])
    X = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert best_factor(weight, bias, ArrayRows(X, np.array([UNLABELLED, 2, 2, UNLABELLED]))) == 1.0
    assert best_factor(weight, bias, ArrayRows(X, np.array([0, 1, 2, UNLABELLED]))) == 1.0


def test_a_head_that_makes_no_mistake_on_its_own_rows_is_made_as_sure_as_they_ask() -> None:
    """A closed form leaves logits of any size: those of training rows are scaled all the same."""
    weight, bias = 0.1 * np.eye(2), np.zeros(2)
    rows = ArrayRows(np.eye(2, dtype=np.float32), np.array([0, 1]))
    assert best_factor(weight, bias, rows) == 1.0
    assert best_factor(weight, bias, rows, held_out=False) > 100
