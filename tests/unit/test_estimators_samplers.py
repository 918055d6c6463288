"""The samplers' rows are those of `ltstore sample`, with imbalanced-learn's methods."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import ltstore
from ltstore.estimators import (
    DuplicateOverSampler,
    KdeOverSampler,
    LatentSampler,
    LongTailClassifier,
    NeighborGaussOverSampler,
    SmoteOverSampler,
)
from ltstore.estimators.strategy import rows_to_make
from ltstore.sampling import SAMPLERS
from support.samplers import text_vectors
from support.shell import Shell

CLASSES = {one.sampler: one for one in LatentSampler.__subclasses__()}
N_FEATURES = 12


@pytest.fixture
def tail() -> tuple[np.ndarray, np.ndarray]:
    """Four classes of 150, 50, 12 and 4 rows, in no order."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2, 3], [150, 50, 12, 4]))
    means = rng.normal(size=(4, N_FEATURES))
    return (means[y] + 1.5 * rng.normal(size=(len(y), N_FEATURES))).astype(np.float32), y


def test_every_sampler_has_a_class_with_its_settings() -> None:
    assert set(CLASSES) == set(SAMPLERS)
    for name, one in CLASSES.items():
        settings = {each.name: each.default for each in fields(SAMPLERS[name].settings_type)}
        parameters = one().get_params()
        assert {key: parameters[key] for key in settings} == settings, name
        assert parameters.keys() - settings.keys() == {"sampling_strategy", "normalize", "random_state"}, name


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_rows_of_the_command_line(shell: Shell, tmp_path: Path, tail: Any, name: str) -> None:
    X, y = tail
    np.savez(tmp_path / "x.npz", X=X, y=y)
    store = tmp_path / "s.zarr"
    settings = {"vectors": str(text_vectors(4, N_FEATURES))} if name == "text" else {}
    shell.ok("import", tmp_path / "x.npz", store, "--split", "train")
    ltstore.sample(store, name="made", sampler=name, settings=settings, seed=7, dtype="float32")
    split = ltstore.open_store(store).synthetic("made")
    found = CLASSES[name](random_state=7, **settings)
    X_all, y_all = found.fit_resample(X, y)
    np.testing.assert_array_equal(X_all[len(X) :], split.rows(normalize=False).read(0, split.n_rows))
    np.testing.assert_array_equal(y_all, [*y, *split.rows().labels])
    real = ltstore.open_store(store).split("train").rows()
    np.testing.assert_array_equal(X_all[: len(X)], real.read(0, len(X)))


def test_parents_and_donors(tail: Any) -> None:
    X, y = tail
    names = np.array(["a", "b", "c", "d"])[y]
    sampler = DuplicateOverSampler(normalize=False, random_state=0)
    X_all, y_all = sampler.fit_resample(X.astype(np.float64), names)
    assert sampler.sampling_strategy_ == {"b": 100, "c": 138, "d": 146}
    np.testing.assert_array_equal(X_all[: len(X)], X)
    np.testing.assert_array_equal(X_all[len(X) :], X[sampler.parent_ids_[:, 0]])
    np.testing.assert_array_equal(y_all[len(X) :], names[sampler.parent_ids_[:, 0]])
    lent = NeighborGaussOverSampler(random_state=0).fit(X, names)
    lent.fit_resample(X, names)
    assert set(lent.donor_ids_[-146:].ravel()) - {-1} == {0}  # the only large class lends to "d"


STRATEGIES: list[Any] = [
    *("auto", "all", "minority", "not minority", "not majority"),
    {1: 60, 3: 4},
    lambda y: {2: int((y == 0).sum()) - 1},
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_are_those_of_imbalanced_learn(tail: Any, strategy: Any) -> None:
    utils = pytest.importorskip("imblearn.utils")
    y = tail[1]
    assert rows_to_make(strategy, y) == utils.check_sampling_strategy(strategy, y, "over-sampling")
    assert rows_to_make(0.37, y[y < 2]) == utils.check_sampling_strategy(0.37, y[y < 2], "over-sampling")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("majority", "must be one of auto"),
        (0.5, "share for two classes"),
        (1.5, r"share in \(0, 1\]"),
        ({7: 3}, "names class 7"),
        ({0: 149}, "asks for 149 rows of class 0, which has 150"),
        (lambda y: {1: 1}, "no rows are taken away"),
    ],
)
def test_strategies_that_are_refused(tail: Any, strategy: Any, message: str) -> None:
    with pytest.raises(ltstore.LtstoreError, match=message):
        SmoteOverSampler(sampling_strategy=strategy).fit_resample(*tail)


def test_nothing_to_make_leaves_the_rows(tail: Any) -> None:
    X, y = tail
    sampler = KdeOverSampler(sampling_strategy={0: 150}, normalize=False)
    X_all, y_all = sampler.fit_resample(X, y)
    np.testing.assert_array_equal(X_all, X)
    np.testing.assert_array_equal(y_all, y)
    assert len(sampler.parent_ids_) == 0


def test_settings_are_checked_and_cloned(tail: Any) -> None:
    sampler = clone(SmoteOverSampler(k=0, random_state=1))
    with pytest.raises(ltstore.LtstoreError, match="k must be"):
        sampler.fit_resample(*tail)
    made = [sampler.set_params(k=k).fit_resample(*tail)[0] for k in (1, 3)]
    assert (made[0] != made[1]).any()


def test_in_a_pipeline_and_searched_for(tail: Any) -> None:
    pipeline = pytest.importorskip("imblearn.pipeline")
    X, y = tail
    steps = pipeline.Pipeline(
        [("sampler", NeighborGaussOverSampler(random_state=0)), ("head", LongTailClassifier(loss="ce"))]
    )
    grid = {"sampler": [NeighborGaussOverSampler(random_state=0), "passthrough"], "head__loss": ["ce", "la"]}
    search = GridSearchCV(steps, grid, scoring="balanced_accuracy", cv=2).fit(X, y)
    results = search.cv_results_
    scores = {
        (str(sampler) == "passthrough", loss): score
        for sampler, loss, score in zip(
            results["param_sampler"], results["param_head__loss"], results["mean_test_score"], strict=True
        )
    }
    assert len(scores) == 4
    assert scores[False, "ce"] > scores[True, "ce"] + 0.05
    trained = LongTailClassifier(loss="ce", sampler="neighbor-gauss", random_state=0).fit(X, y)
    np.testing.assert_allclose(steps.fit(X, y).predict_proba(X), trained.predict_proba(X), atol=0.05)
