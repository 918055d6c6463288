"""`LongTailClassifier` is the command line's model, with scikit-learn's methods."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import ltstore
from ltstore.estimators import LongTailClassifier
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.rows import normalize_rows
from support.shell import Shell


@pytest.fixture(scope="module")
def tail() -> tuple[np.ndarray, np.ndarray]:
    """Digits, 100 rows of class 0 down to 10 of class 9."""
    X, y = load_digits(return_X_y=True)
    keep = np.concatenate([np.flatnonzero(y == c)[: 100 - 10 * c] for c in range(10)])
    return X[np.sort(keep)].astype(np.float32), y[np.sort(keep)]


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ([], {}),
        (["--sampler", "neighbor-gauss", "--seed", "3"], {"sampler": "neighbor-gauss", "random_state": 3}),
        (["--loss", "ce", "--l2", "0.003"], {"loss": "ce", "l2": 0.003}),
        (["--penalty", "whitened"], {"penalty": "whitened"}),
        (["--head", "cosine"], {"head": "cosine"}),
        (["--head", "gda"], {"head": "gda"}),
    ],
)
def test_the_model_of_the_command_line(
    shell: Shell, tmp_path: Path, tail: Any, words: list[str], parameters: dict[str, Any]
) -> None:
    X, y = tail
    np.savez(tmp_path / "x.npz", X=X, y=y)
    shell.ok("import", str(tmp_path / "x.npz"), str(tmp_path / "s.zarr"), "--split", "train")
    shell.ok("train", str(tmp_path / "s.zarr"), "--out", str(tmp_path / "m"), *words)
    model = ltstore.load_model(tmp_path / "m")
    found = LongTailClassifier(**parameters).fit(X, y)
    np.testing.assert_array_equal(found.coef_, model.weight)
    np.testing.assert_array_equal(found.intercept_, model.bias)
    unit = normalize_rows(X.copy())
    np.testing.assert_array_equal(found.predict(X), model.predict(unit))
    np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(unit))


def test_the_optimum_is_that_of_logistic_regression(tail: Any) -> None:
    """Mean loss + l2/2 s |W|^2 is LogisticRegression at C = 1 / (l2 s N), s the mean within-class variance."""
    X, y = tail
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2.0, len(X))
    found = LongTailClassifier(loss="ce", l2=0.01, normalize=False, tolerance=1e-7).fit(X, y, weights)
    within = sum(((X[y == c] - X[y == c].mean(0)) ** 2).sum(0) for c in range(10)) / (len(X) - 10)
    peer = LogisticRegression(C=1 / (0.01 * within.mean() * weights.sum()), tol=1e-9, max_iter=5000)
    expected = peer.fit(X.astype(np.float64), y, weights).predict_proba(X)
    np.testing.assert_allclose(found.predict_proba(X), expected, atol=1e-3)


def test_two_classes_have_one_column(tail: Any) -> None:
    X, y = tail
    names = np.where(y == 8, "eight", "other")
    found = LongTailClassifier(normalize=False).fit(X, names)
    assert found.coef_.shape == (1, 64)
    assert found.intercept_.shape == (1,)
    decision = found.decision_function(X)
    np.testing.assert_allclose(decision, X @ found.coef_[0] + found.intercept_[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)), atol=1e-5)
    np.testing.assert_array_equal(found.predict(X), np.where(decision > 0, "other", "eight"))


def test_partial_fit_ends_where_fit_does(tail: Any) -> None:
    X, y = tail
    parameters: dict[str, Any] = {"tolerance": 1e-6, "sampler": "duplicate", "random_state": 0}
    whole = LongTailClassifier(**parameters).fit(X, y)
    grown = LongTailClassifier(**parameters).partial_fit(X[:300], y[:300], classes=range(10))
    before = grown.predict_proba(X)
    grown.partial_fit(X[300:], y[300:])
    assert grown.n_iter_ < whole.n_iter_
    np.testing.assert_array_equal(grown.model_.class_counts, np.bincount(y))
    assert np.abs(before - whole.predict_proba(X)).max() > 0.1
    np.testing.assert_allclose(grown.predict_proba(X), whole.predict_proba(X), atol=5e-3)


@pytest.mark.parametrize("head", ["linear", *CLOSED_FORMS])
def test_partial_fit_begins_as_fit(tail: Any, head: str) -> None:
    X, y = tail
    whole = LongTailClassifier(head=head).fit(X, y)
    first = LongTailClassifier(head=head).fit(X[:200], y[:200]).partial_fit(X, y, classes=range(10))
    np.testing.assert_array_equal(first.coef_, whole.coef_)


def test_a_class_without_rows_waits_for_them(tail: Any) -> None:
    X, y = tail
    found = LongTailClassifier().partial_fit(X[y < 9], y[y < 9], classes=range(10))
    assert 9 not in found.predict(X)
    assert 9 in found.partial_fit(X[y == 9], y[y == 9]).predict(X)
    with pytest.raises(ltstore.LtstoreError, match="label 10 is not among the classes"):
        found.partial_fit(X[:1], [10])


def test_pickled_and_searched_for(tail: Any) -> None:
    X, y = tail
    grid = {"loss": ["ce", "la"], "sampler": [None, "smote"], "head": ["linear", "cosine"]}
    search = GridSearchCV(LongTailClassifier(random_state=0), grid, scoring="balanced_accuracy", cv=3).fit(X, y)
    assert search.best_score_ > 0.8
    assert search.best_params_["loss"] == "la" or search.best_params_["sampler"] == "smote"
    again = pickle.loads(pickle.dumps(search.best_estimator_))  # noqa: S301
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"head": "gda", "l2": 0.1}, "closed form"),
        ({"head": "ncm", "sampler": "smote"}, "closed form"),
        ({"per_class": 3}, "without a sampler"),
        ({"sampler": "smotte"}, "did you mean 'smote'"),
        ({"minibatch": {"epoch": 1}}, "did you mean 'epochs'"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"random_state": -1}, "seed must be"),
    ],
)
def test_what_would_do_nothing_is_refused(tail: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ltstore.LtstoreError, match=message):
        LongTailClassifier(**parameters).fit(*tail)
