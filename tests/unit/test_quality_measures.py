"""Quality of whole samplers: good ones look like real rows, bad ones do not, and edges are counted."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.kernels.normals import normal_rows
from ltstore.neighbors import ExactIndex, class_donors
from ltstore.quality import ClassTable, Quality, measure_held_out, measure_made
from ltstore.rng import row_key
from ltstore.rows import ArrayRows, class_counts
from ltstore.sampling import balance_targets, bounded_targets, make_sampler
from ltstore.stats import class_moments
from ltstore.types import SyntheticRows

COUNTS = (90, 80, 70, 60, 50, 8, 5, 3, 1, 0)
D = 6


@pytest.fixture(scope="module")
def rows() -> ArrayRows:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    centers = 4 * rng.normal(size=(len(COUNTS), D))
    return ArrayRows(centers[labels] + rng.normal(size=(len(labels), D)), labels, class_names="abcdefghij")


class Law:
    """Draws each class from its true law, moved and widened as told; no parents."""

    name = "law"
    settings: ClassVar[dict[str, float]] = {}

    def __init__(self, rows, shift=0.0, spread=1.0):
        X, labels = rows.read(0, rows.n_samples), rows.labels
        self.means = np.array(
            [X[labels == c].mean(axis=0) if (labels == c).any() else np.zeros(D) for c in range(10)]
        )
        self.shift, self.spread = shift, spread

    def fit(self, rows, moments, donors):
        return self

    def sample(self, class_id, start, stop, *, seed, epoch=0):
        noise = normal_rows(row_key(seed, "test.law", class_id, epoch), start, stop, D)
        n = stop - start
        none = np.zeros((n, 0), np.int64)
        X = (self.means[class_id] + self.shift + self.spread * noise).astype(np.float32)
        return SyntheticRows(X=X, labels=np.full(n, class_id), parent_ids=none, donor_ids=none)


def fitted(name, rows):
    moments = class_moments(rows, rank=3)
    return make_sampler(name).fit(rows, moments, class_donors(moments.means, moments.counts))


def everywhere(table, name, *, real=False):
    return table.averages(real=real)[name]["all"]


def test_the_true_law_looks_like_held_out_rows(rows):
    table = measure_held_out(rows, lambda train: Law(rows))
    assert table.n_classes == 5
    assert table.n_skipped == 0
    assert everywhere(table, "variance", real=True) != 1  # other rows than those they are compared with
    for name in ("precision", "recall", "density", "coverage", "spectrum", "subspace", "variance"):
        assert everywhere(table, name) == pytest.approx(everywhere(table, name, real=True), abs=0.2)


def test_wrong_laws_are_seen_where_they_are_wrong(rows):
    truth = measure_held_out(rows, lambda train: Law(rows))
    moved = measure_held_out(rows, lambda train: Law(rows, shift=3.0))
    narrow = measure_held_out(rows, lambda train: Law(rows, spread=0.2))
    wide = measure_held_out(rows, lambda train: Law(rows, spread=3.0))
    for name in ("precision", "recall", "density", "coverage"):
        assert everywhere(moved, name) < 0.3 * everywhere(truth, name)
    assert everywhere(moved, "variance") == pytest.approx(everywhere(truth, "variance"))
    assert everywhere(narrow, "precision") > everywhere(truth, "precision")
    assert everywhere(narrow, "recall") < 0.5 * everywhere(truth, "recall")
    assert everywhere(narrow, "variance") == pytest.approx(0.04 * everywhere(truth, "variance"), rel=0.01)
    assert everywhere(wide, "precision") < 0.5 * everywhere(truth, "precision")


def test_the_sampler_never_sees_what_it_is_judged_on(rows):
    """What is fitted is far smaller, and its rows of the cut classes are as many as the table says."""
    seen = []

    def fit(train):
        seen.append(class_counts(train))
        return fitted("duplicate", train)

    table = measure_held_out(rows, fit)
    assert len(seen) == 2
    assert table.counts.max() <= 8
    for c in range(5):
        assert table.counts[c] == min(counts[c] for counts in seen)
    assert everywhere(table, "spectrum") < everywhere(table, "spectrum", real=True)


def test_classes_with_too_few_hidden_rows_are_skipped_and_counted():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), (60, 40, 14, 12, 6, 5, 5, 3))
    rows = ArrayRows(rng.normal(size=(len(labels), 4)), labels)
    table = measure_held_out(rows, lambda train: fitted("duplicate", train))
    assert table.n_skipped == 2
    assert table.n_classes == 2
    assert np.isnan(table.values["precision"][2:]).all()


def test_without_a_tail_there_is_nothing_to_hide():
    balanced = ArrayRows(np.random.default_rng(0).normal(size=(40, 3)), np.repeat([0, 1], 20))
    with pytest.raises(DataError, match="long tail"):
        measure_held_out(balanced, lambda train: fitted("duplicate", train))
    with pytest.raises(ConfigError, match="k must be"):
        measure_held_out(balanced, lambda train: fitted("duplicate", train), k=0)


def made(name, rows, **options):
    targets = balance_targets(class_counts(rows))
    sampler = fitted(name, rows) if isinstance(name, str) else name
    return measure_made(rows, sampler, targets, ExactIndex(rows, "l2"), k=5, **options)


def test_duplicates_are_copies_and_new_rows_are_not(rows):
    copies, _ = made("duplicate", rows)
    assert everywhere(copies, "copies") == everywhere(copies, "closer") == 1
    assert everywhere(copies, "nearest") == 0
    law, _ = made(Law(rows), rows)
    assert everywhere(law, "copies") < 0.05
    for name in ("purity", "intrusion", "nearest", "closer"):
        of_law, of_real = (np.mean(columns[name][1:5]) for columns in (law.values, law.real))
        assert of_law == pytest.approx(of_real, abs=0.15)


def test_rows_on_top_of_another_class_intrude_there(rows):
    class Wrong(Law):
        def sample(self, class_id, start, stop, *, seed, epoch=0):
            found = super().sample(0 if class_id == 6 else class_id, start, stop, seed=seed, epoch=epoch)
            return SyntheticRows(
                X=found.X,
                labels=np.full(stop - start, class_id),
                parent_ids=found.parent_ids,
                donor_ids=found.donor_ids,
            )

    table, intruded = made(Wrong(rows), rows)
    assert intruded[6] == 0
    assert table.values["intrusion"][6] > 0.9
    assert table.values["purity"][6] < 0.2
    assert table.values["intrusion"][5] < 0.2


def test_a_class_of_one_row_and_an_empty_one(rows):
    table, intruded = made("duplicate", rows)
    assert np.isnan(table.values["purity"][8])  # its only row is the parent
    assert np.isnan(table.values["intrusion"][8])
    assert table.values["copies"][8] == 1
    assert table.n_rows[9] == 0
    assert np.isnan(table.values["copies"][9])
    assert intruded[8] == intruded[9] == -1


def test_the_sample_is_bounded_and_takes_the_tail_first(rows):
    table, _ = made("smote", rows, max_rows=30)
    assert table.n_rows.sum() == 30
    assert (table.n_rows[1:9] >= 3).all()
    assert table.n_rows[8] == table.n_rows[5] == 4
    few, _ = made("smote", rows, max_rows=3)
    assert np.flatnonzero(few.n_rows).tolist() == [6, 7, 8]


def test_the_same_again_gives_the_same(rows):
    first, second = made("neighbor-gauss", rows)[0], made("neighbor-gauss", rows)[0]
    for name, values in first.values.items():
        np.testing.assert_array_equal(values, second.values[name])


def test_no_targets_give_an_empty_table(rows):
    table, intruded = measure_made(
        rows, fitted("smote", rows), np.zeros(10, np.int64), ExactIndex(rows, "l2"), k=5
    )
    assert table.n_classes == 0
    assert everywhere(table, "purity") is None
    assert (intruded == -1).all()


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 17, 1000])
def test_bounded_targets(limit):
    targets, counts = np.array([9, 0, 3, 6, 6]), np.array([1, 5, 2, 3, 3])
    found = bounded_targets(targets, counts, limit)
    assert (found <= targets).all()
    assert found.sum() == min(limit, targets.sum())
    uncut = found[found < targets]
    if len(uncut):
        assert found.max() - uncut.min() <= 1
    with pytest.raises(ConfigError, match="limit"):
        bounded_targets(targets, counts, 0)


def test_json_and_back(rows):
    table, intruded = made("smote", rows)
    held_out = measure_held_out(rows, lambda train: fitted("smote", train))
    quality = Quality(made=table, intruded=intruded, held_out=held_out, n_synthetic=500, k=5, seconds=1.0)
    text = json.dumps(quality.to_json(), allow_nan=False)
    again = Quality.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again.n_measured == table.n_rows.sum()
    assert again.made.averages() == table.averages()
    nothing = Quality.from_json({**json.loads(text), "held_out": None, "reason": "no tail"})
    assert nothing.held_out is None
    for damaged in ({}, {**json.loads(text), "made": {"values": 3}}):
        with pytest.raises(ConfigError, match="not a"):
            Quality.from_json(damaged)
    short = table.to_json()
    short["n_rows"] = short["n_rows"][:-1]
    with pytest.raises(ConfigError, match="differ in length"):
        ClassTable.from_json(short)
