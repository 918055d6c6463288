"""Synthetic rows go into a real store and come back with their origin."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ltstore.errors import ConfigError
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import ShardWriter, balance_targets, make_sampler, materialize, read_synthetic
from ltstore.stats import class_moments
from ltstore.store import Split, create_store
from ltstore.types import EncoderIdentity


def test_materialised_split(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [1500, 30, 1])
    X = np.random.default_rng(0).normal(size=(len(labels), 5))
    identity = EncoderIdentity(encoder="import", model="made", n_features=5)
    rows = ArrayRows(X, labels, class_names="abc", normalize=True, encoder=identity)
    moments = class_moments(rows, rank=2)
    sampler = make_sampler("neighbor-gauss").fit(rows, moments, class_donors(moments.means, moments.counts))
    targets = balance_targets(moments.counts)

    store = create_store(tmp_path / "s.zarr", encoder=identity, class_names=["a", "b", "c"])
    with store.begin_split(
        "balanced",
        n_rows=int(targets.sum()),
        source_digest=rows.digest,
        dtype="float32",
        rows_per_shard=1024,
        synthetic=True,
    ) as split_writer:
        writer: ShardWriter = split_writer
        materialize(sampler, targets, writer, seed=4)

    split = store.synthetic("balanced")
    view = split.rows(normalize=False)
    made = read_synthetic(sampler, targets, 0, int(targets.sum()), seed=4)
    np.testing.assert_array_equal(view.read(0, view.n_samples), made.X)
    np.testing.assert_array_equal(view.labels, np.repeat([1, 2], [1470, 1499]))
    assert split.keys([0, 1470]) == ["neighbor-gauss/4/0/1/0", "neighbor-gauss/4/0/2/0"]
    table = pq.ParquetDataset(split.path / "rows").read(["parent_ids", "donor_ids", "error"]).to_pydict()
    assert table["parent_ids"] == made.parent_ids.tolist()
    assert table["donor_ids"][-1] == [0]
    assert set(table["error"]) == {None}


class Problem:
    """A class of 3,000, one of 30 and one of 1; the sampler fitted, and a store to write to."""

    def __init__(self, path: Path) -> None:
        labels = np.repeat([0, 1, 2], [3000, 30, 1])
        X = np.random.default_rng(0).normal(size=(len(labels), 7))
        identity = EncoderIdentity(encoder="import", model="made", n_features=7)
        rows = ArrayRows(X, labels, class_names="abc", normalize=True, encoder=identity)
        moments = class_moments(rows, rank=2)
        donors = class_donors(moments.means, moments.counts)
        self.sampler = make_sampler("neighbor-gauss").fit(rows, moments, donors)
        self.targets = balance_targets(moments.counts)
        self.store = create_store(path, encoder=identity, class_names=list("abc"))

    def materialize(self, name: str, **options: Any) -> Split:
        n_rows = int(self.targets.sum())
        with self.store.begin_split(
            name, n_rows=n_rows, source_digest="made", rows_per_shard=2048, synthetic=True
        ) as writer:
            materialize(self.sampler, self.targets, writer, seed=4, **options)
        return self.store.synthetic(name)


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return Problem(tmp_path / "p.zarr")


def test_rows_do_not_depend_on_workers_or_kills(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    one = problem.materialize("one", n_workers=1, progress=lambda n, seconds: seen.append((n, dict(seconds))))
    assert sum(n for n, _ in seen) == one.n_rows == 5969
    assert {stage for _, seconds in seen for stage in seconds} == {"sample", "write"}
    many = problem.materialize("many", n_workers=5)
    assert many.digest == one.digest

    class KilledError(Exception):
        pass

    def killed(n: int, seconds: Mapping[str, float]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    for calls in range(len(seen)):
        left, name = calls, f"killed{calls}"
        with pytest.raises(KilledError):
            problem.materialize(name, n_workers=2, progress=killed)
        assert problem.materialize(name, n_workers=3).digest == one.digest


def test_a_sampler_that_fails_leaves_whole_shards(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = type(problem.sampler).sample

    def failing(self: Any, class_id: int, start: int, stop: int, **key: Any) -> Any:
        if class_id == 2 and start > 1000:
            raise MemoryError("no more")
        return draw(self, class_id, start, stop, **key)

    with monkeypatch.context() as patch:
        patch.setattr(type(problem.sampler), "sample", failing)
        with pytest.raises(MemoryError):
            problem.materialize("x")
    split = problem.store.synthetic("x", allow_incomplete=True)
    assert not split.complete
    assert problem.materialize("x").digest == problem.materialize("y").digest


def test_workers_are_counted(problem: Problem) -> None:
    with pytest.raises(ConfigError, match="n_workers must be a positive integer"):
        problem.materialize("x", n_workers=0)


@pytest.mark.stress
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_ten_million_rows_stay_in_bounds(tmp_path: Path) -> None:
    """Ten million rows of 64 features: memory of a few shards, not of the set."""
    script = """
        import sys
        import numpy as np
        from ltstore.neighbors import class_donors
        from ltstore.rows import ArrayRows
        from ltstore.sampling import make_sampler, materialize
        from ltstore.stats import class_moments
        from ltstore.store import create_store
        labels = np.repeat(np.arange(50), np.linspace(400, 4, 50).astype(int))
        X = np.random.default_rng(0).normal(size=(len(labels), 64))
        rows = ArrayRows(X, labels, normalize=True)
        moments = class_moments(rows)
        sampler = make_sampler("neighbor-gauss").fit(rows, moments, class_donors(moments.means, moments.counts))
        store = create_store(sys.argv[1], encoder=rows.encoder, class_names=rows.class_names)
        def make(name, n):
            targets = np.full(50, n // 50)
            with store.begin_split(name, n_rows=n, source_digest="made", synthetic=True) as writer:
                materialize(sampler, targets, writer, seed=0)
            with open("/proc/self/status") as status:  # ru_maxrss has the parent's in it
                return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        first = make("some", 500_000)
        print(make("many", 10_000_000) - first)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "s.zarr")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(found.stdout) < 200e6  # the rows are 2.6 GB in float32
