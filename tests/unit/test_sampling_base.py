"""Settings, names, targets and refusals of the samplers."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import SAMPLERS, BaseSampler, DuplicateSettings, balance_targets, make_sampler
from ltstore.stats import ClassMoments, class_moments
from ltstore.types import Donors, Sampler
from support.samplers import ready


def rows_with_gap() -> ArrayRows:
    X = np.random.default_rng(0).normal(size=(9, 3))
    return ArrayRows(X, [0, 0, 0, 0, 0, 0, 2, -1, -1], class_names=["cat", "dog", "eel"])


def fit(name: str, rows: ArrayRows) -> BaseSampler:
    moments = class_moments(rows)
    return ready(name, rows).fit(rows, moments, class_donors(moments.means, moments.counts))


@pytest.mark.parametrize("name", SAMPLERS)
def test_refusals(name: str) -> None:
    rows = rows_with_gap()
    sampler: Sampler = fit(name, rows)
    with pytest.raises(DataError, match="class 'dog' has no rows"):
        sampler.sample(1, 0, 2, seed=0)
    with pytest.raises(LabelError, match="class 3 is outside the 3"):
        sampler.sample(3, 0, 2, seed=0)
    with pytest.raises(LabelError):
        sampler.sample(-1, 0, 2, seed=0)
    for start, stop, seed in ((-1, 2, 0), (3, 2, 0), (0, 1, -1)):
        with pytest.raises(ConfigError, match="need 0 <= start"):
            sampler.sample(0, start, stop, seed=seed)
    with pytest.raises(DataError, match="has not been fitted"):
        make_sampler(name).sample(0, 0, 1, seed=0)
    assert sampler.sample(2, 4, 4, seed=0).X.shape == (0, 3)


def test_donors_are_those_of_the_class_means_unless_given() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), (40, 30, 4))
    rows = ArrayRows(rng.normal(size=(3, 5))[labels] + 0.1 * rng.normal(size=(74, 5)), labels)
    moments = class_moments(rows)
    given, found, none = (
        make_sampler("neighbor-gauss").fit(rows, moments, *donors).sample(2, 0, 9, seed=0)
        for donors in ((class_donors(moments.means, moments.counts),), (), (without_donors(moments),))
    )
    np.testing.assert_array_equal(found.X, given.X)
    np.testing.assert_array_equal(found.donor_ids, given.donor_ids)
    assert (found.donor_ids >= 0).any()
    assert not np.array_equal(found.X, none.X)


def without_donors(moments: ClassMoments) -> Donors:
    return class_donors(moments.means, np.ones_like(moments.counts))


@pytest.mark.parametrize("name", SAMPLERS)
def test_foreign_moments_and_donors(name: str) -> None:
    rows = rows_with_gap()
    moments = class_moments(rows)
    donors = class_donors(moments.means, moments.counts)
    other = ArrayRows(np.ones((3, 3)), [0, 1, 2], class_names=["cat", "dog", "eel"])
    with pytest.raises(DataError, match="count 1 rows of class 'cat', the rows have 6"):
        ready(name, rows).fit(rows, class_moments(other), donors)
    narrow = ArrayRows(np.ones((3, 2)), [0, 1, 2])
    with pytest.raises(DataError, match="moments have shape"):
        ready(name, rows).fit(rows, class_moments(narrow), donors)
    with pytest.raises(DataError, match="donors are of 2 classes"):
        ready(name, rows).fit(rows, moments, class_donors(np.ones((2, 3)), np.array([2, 1])))


def test_class_without_donors_is_drawn_around_itself() -> None:
    """Equal classes have no tail: nobody borrows, everybody can be sampled."""
    X = np.random.default_rng(1).normal(size=(8, 3))
    sampler = fit("neighbor-gauss", ArrayRows(X, [0, 0, 0, 0, 1, 1, 1, 1]))
    made = sampler.sample(1, 0, 2000, seed=0)
    np.testing.assert_allclose(made.X.mean(axis=0), X[4:].mean(axis=0), atol=0.15)
    assert (made.donor_ids == -1).all()


def test_one_row_everywhere_gives_that_row() -> None:
    sampler = fit("neighbor-gauss", ArrayRows(np.eye(3), [0, 1, 2]))
    np.testing.assert_allclose(sampler.sample(1, 0, 2, seed=0).X, [[0, 1, 0]] * 2, atol=1e-7)


def test_names_and_settings() -> None:
    assert set(SAMPLERS) == {
        "neighbor-gauss",
        "vmf",
        "kde",
        "smote",
        "distribution-calibration",
        "residual-transfer",
        "text",
        "duplicate",
    }
    sampler = make_sampler("neighbor-gauss", pull=0.25)
    assert sampler.settings["pull"] == 0.25
    assert set(sampler.settings) == {
        "anchor",
        "nu",
        "donor_share",
        "pull",
        "pull_rows",
        "spread",
        "noise",
        "terms",
    }
    with pytest.raises(ConfigError, match="did you mean 'neighbor-gauss'"):
        make_sampler("neighbour-gauss")
    with pytest.raises(ConfigError, match="did you mean 'pull_rows'"):
        make_sampler("neighbor-gauss", pul_rows=3)
    with pytest.raises(ConfigError, match="known: none"):
        make_sampler("duplicate", pull=3)
    with pytest.raises(ConfigError, match="takes NeighborGaussSettings"):
        SAMPLERS["neighbor-gauss"](DuplicateSettings())


@pytest.mark.parametrize(
    "name, value",
    [("anchor", -0.1), ("pull", 1.1), ("nu", 0), ("nu", np.inf), ("pull_rows", -1), ("spread", np.nan)],
)
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be"):
        make_sampler("neighbor-gauss", **{name: value})


def test_targets(caplog: pytest.LogCaptureFixture) -> None:
    counts = np.array([10, 4, 1, 0])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(balance_targets(counts), [0, 6, 9, 0])
    assert "1 of 4 classes have no rows" in caplog.text
    np.testing.assert_array_equal(balance_targets(counts, max_ratio=2.5), [0, 6, 2, 0])
    np.testing.assert_array_equal(balance_targets(counts, mode="per-class", per_class=7), [7, 7, 7, 0])
    np.testing.assert_array_equal(
        balance_targets(counts, mode="per-class", per_class=7, max_ratio=1), [7, 4, 1, 0]
    )
    assert balance_targets(np.zeros(0, np.int64)).dtype == np.int64
    for bad in (
        {"per_class": 3},
        {"mode": "per-class"},
        {"mode": "per-class", "per_class": -1},
        {"max_ratio": -1.0},
        {"mode": "all"},
    ):
        with pytest.raises(ConfigError):
            balance_targets(counts, **bad)  # type: ignore[arg-type]
