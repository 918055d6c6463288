"""Every approximate kind finds what is wanted of rows it never saw, those of tail classes too."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import ConfigError
from ltstore.metrics import count_groups
from ltstore.neighbors import (
    KINDS,
    ExactIndex,
    IndexPlan,
    build_index,
    building,
    faiss_index,
    kinds,
    plan_index,
)
from ltstore.neighbors.recall import Judge, hold_out
from ltstore.rows import ArrayRows, class_counts
from ltstore.types import FloatArray, IntArray

APPROXIMATE = KINDS[1:]
_EXACT: dict[str, tuple[ArrayRows, FloatArray, IntArray, IntArray]] = {}


def problem(data: Path, name: str) -> tuple[ArrayRows, FloatArray, IntArray, IntArray]:
    """Rows, queries of another split with their labels, and the true neighbours of these."""
    if name in _EXACT:
        return _EXACT[name]
    if name == "cifar100":
        with np.load(data / "cifar100" / "mobilenetv2_embeddings_u8.npz") as file:
            rows = ArrayRows(file["train_q"][:, ::5].astype(np.float32), file["train_y"], normalize=True)
            X, y = file["test_q"][:1000, ::5].astype(np.float32), file["test_y"][:1000]
            cut = np.load(data / "longtail" / "cifar100_lt_if100_seed0_ldam_order.npy")
            rows = rows.select(np.flatnonzero(np.isin(file["train_index"], cut)))
    else:
        with np.load(data / "clip_vitb32" / "caltech101.npz") as file:
            rows = ArrayRows(file["test_x"], file["test_y"].astype(np.int64), normalize=True)
            X, y = file["val_x"].astype(np.float32), file["val_y"]
    ids, _ = ExactIndex(rows).search(X, 10)
    _EXACT[name] = rows, X, y.astype(np.int64), ids
    return _EXACT[name]


@pytest.mark.parametrize("name", ["cifar100", "caltech101"])
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_wanted_recall_is_reached_tails_included(
    real_data: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, X, y, expected = problem(real_data, name)
    index = build_index(rows, kind=kind, device="cpu", recall=0.95)
    assert index.report is not None
    assert index.report.reached, index.report
    ids, _ = index.search(X, 10)
    found = (expected[:, :, None] == ids[:, None, :]).any(axis=2)
    few_rows = ~count_groups(class_counts(rows))["many"]
    recall = {"all": found.mean(), "tail": found[few_rows[y]].mean()}
    assert min(recall.values()) >= 0.945, (
        recall
    )  # 1,000 other queries: within two standard errors of what is wanted
    assert abs(recall["all"] - index.report.recall["all"]) < 0.03
    if kind != "hnsw":
        assert index.parameters["nprobe"] < index.plan.n_lists  # it was not reached by looking everywhere
    # Among some classes, whose rows lie together, if these were too many to be searched exactly.
    monkeypatch.setattr(faiss_index, "NARROW_ROWS", 0)
    for among in (few_rows, ~few_rows):
        mask = among[rows.labels]
        ids, _ = index.search(X, 10, among=mask)
        expected, _ = ExactIndex(rows).search(X, 10, among=mask)
        assert (expected[:, :, None] == ids[:, None, :]).any(axis=2).mean() > 0.95


def test_held_out_rows_are_not_in_the_index_while_they_ask() -> None:
    """Pairs of equal rows: a query that were in the index would find itself, and its twin second."""
    rng = np.random.default_rng(0)
    rows = ArrayRows(rng.normal(size=(4000, 16)), rng.integers(0, 8, 4000))
    held = hold_out(rows, 200)
    assert len(np.unique(held.positions)) == len(held.positions) == 200
    assert held.uniform.all()  # every class has more than 100 rows
    index = build_index(rows, kind="ivf", device="cpu", n_queries=200)
    assert index.n_added == 4000
    ids, distances = index.search(rows.take(held.positions), 1)
    np.testing.assert_array_equal(ids[:, 0], held.positions)  # added in the end
    np.testing.assert_allclose(distances[:, 0], 1, atol=1e-5)


def test_tail_rows_are_asked_for() -> None:
    labels = np.repeat(np.arange(12), [3000, *[30] * 10, 12])
    rows = ArrayRows(np.random.default_rng(0).normal(size=(len(labels), 4)), labels)
    held = hold_out(rows, 300)
    assert len(np.unique(held.positions)) == 300
    assert (labels[held.positions] > 0).sum() >= 150
    assert held.uniform.sum() == 150
    assert abs((labels[held.positions[held.uniform]] > 0).sum() - 15) < 12
    assert not len(hold_out(rows, 300, first=len(labels) - 100).positions)


def test_a_report_says_what_was_measured() -> None:
    rows = ArrayRows(np.random.default_rng(0).normal(size=(6000, 64)))
    index = build_index(rows, kind="ivf", device="cpu", recall=0.99, n_queries=400)
    report = index.report
    assert report is not None
    assert report.reached == (report.recall["all"] >= 0.99)
    assert report.n_queries["all"] == 200
    assert set(report.milliseconds) == {"mean", "p50", "p95", "p99"}
    assert report.n_indexed == 6000 - len(index.parts[0][1])
    assert build_index(ArrayRows(np.eye(30)), kind="ivf", device="cpu").report is None


class Partial:
    """Finds everything from some effort on, and nothing below it."""

    metric = "cosine"

    def __init__(self, rows: ArrayRows, indexed: IntArray, least: dict[str, int]) -> None:
        self.parameters: dict[str, int] = {}
        self.row_ids = rows.row_ids
        self._exact, self._indexed, self._least = ExactIndex(rows), indexed, least
        self.n_asked = 0

    def search(
        self, X: FloatArray, k: int, *, exclude: Any = None, among: Any = None
    ) -> tuple[IntArray, FloatArray]:
        self.n_asked += 1
        if all(self.parameters[name] >= value for name, value in self._least.items()):
            return self._exact.search(X, k, among=self._indexed)
        return np.full((len(X), k), -1), np.full((len(X), k), np.nan, np.float32)


@pytest.mark.parametrize(
    "nprobe, refine, expected",
    [
        (1, 1, (1, 1)),
        (5, 3, (8, 4)),
        (50, 64, (50, 64)),
        (3, 100, (4, 256)),  # out of reach of the usual candidates
        (50, 1000, (50, 1024)),
        (3, 2000, None),
        (51, 1, None),
    ],
)
def test_the_least_effort_is_found(nprobe: int, refine: int, expected: tuple[int, int] | None) -> None:
    rows = ArrayRows(np.random.default_rng(0).normal(size=(975, 8)))
    plan = plan_index("ivfpq", 975 * 2, 8)
    assert plan.effort["nprobe"][-1] == 50
    held = hold_out(rows, 90)
    indexed = np.setdiff1d(np.arange(975), held.positions)
    index = Partial(rows, indexed, {"nprobe": nprobe, "refine": refine})
    judge = Judge(rows, held, indexed, metric="cosine", k=5, wanted=0.9)
    reached = judge.tune(index, plan, index.parameters)
    assert reached == (expected is not None)
    assert index.parameters == dict(zip(("nprobe", "refine"), expected or (50, 1024), strict=True))
    assert index.n_asked <= 12
    assert judge.report(index).reached == reached


def _plans(monkeypatch: pytest.MonkeyPatch, kind: str, **changed: Any) -> None:
    """Let `auto` take approximate kinds of few rows, and change what it may do with one of them."""

    def changed_plan(*words: Any, **named: Any) -> IndexPlan:
        plan = plan_index(*words, **named)
        return replace(plan, **changed) if plan.kind == kind else plan

    monkeypatch.setattr(kinds, "FLAT_BYTES", 0)
    monkeypatch.setattr(building, "plan_index", changed_plan)


def test_auto_takes_lists_where_the_graph_finds_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    _plans(monkeypatch, "hnsw", effort={"ef_search": (1, 2)})
    rows = ArrayRows(np.random.default_rng(0).normal(size=(3000, 64)))
    passed: list[int] = []
    index = build_index(rows, kind="auto", device="cpu", progress=lambda n, _: passed.append(n))
    assert index.kind == "ivf"
    assert index.report is not None
    assert index.report.reached
    assert re.fullmatch(r"hnsw finds 0\.\d+ of the neighbours, recall 0\.95 is wanted", index.reasons["kind"])
    assert index.plan.reason == index.reasons["kind"]
    assert sum(passed) == 3000
    named = build_index(rows, kind="hnsw", device="cpu")
    assert named.report is not None
    assert not named.report.reached


def test_auto_refuses_codes_that_find_too_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _plans(monkeypatch, "ivfpq", effort={"nprobe": (1, 2), "refine": (1,)}, wider=())
    rows = ArrayRows(np.random.default_rng(0).normal(size=(3000, 64)))
    with pytest.raises(
        ConfigError, match=r"ivfpq finds 0\.\d+ of the neighbours, recall 0\.95 is wanted; give more"
    ):
        build_index(rows, kind="auto", device="cpu", memory_bytes=200_000)
    caplog.clear()
    named = build_index(rows, kind="ivfpq", device="cpu")
    assert named.report is not None
    assert not named.report.reached
    assert "0.95 was wanted" in caplog.text


def test_codes_that_tell_little_apart_compare_more_rows() -> None:
    """Eight bytes for 64 features of noise: of 10 x 64 candidates too few are right."""
    rows = ArrayRows(np.random.default_rng(0).normal(size=(20_000, 64)))
    index = build_index(rows, kind="ivfpq", device="cpu", recall=0.95)
    assert index.report is not None
    assert index.report.reached
    assert index.parameters["refine"] > 64


def test_threads_of_others_are_left_alone() -> None:
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads()
    rows = ArrayRows(np.random.default_rng(0).normal(size=(3000, 16)))
    build_index(rows, kind="ivf", device="cpu").search(rows.read(0, 100), 5)
    assert (torch.get_num_threads(), numba.get_num_threads()) == before
