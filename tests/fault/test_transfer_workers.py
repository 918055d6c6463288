"""Import and verify by workers: the bytes and words of a run without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.engine import LocalEngine
from ltstore.errors import SourceError
from ltstore.store import open_store, verify
from ltstore.transfer import import_embeddings
from support.engines import engine_of
from support.foreign import clip_retrieval, lists, matrix, table
from support.stores import made_store, tree


def npz(path: Path) -> Path:
    X = matrix(3000)
    X[77] = np.nan
    np.savez_compressed(path / "x.npz", X=X, y=np.arange(3000) % 4)
    return path / "x.npz"


def parquet(path: Path) -> Path:
    return table(path / "x.parquet", embedding=lists(matrix(3000)), label=np.arange(3000) % 4)


def parts(path: Path) -> Path:
    return clip_retrieval(path / "c", [matrix(1300), matrix(1700, seed=1)])


SHARDS: dict[str, Any] = {"rows_per_shard": 512}


class TestEveryEngine:
    @pytest.mark.parametrize("make", [npz, parquet, parts])
    def test_an_import_has_the_bytes_of_one_without_workers(
        self, engine_kind: str, tmp_path: Path, make
    ) -> None:
        source = make(tmp_path)
        alone = import_embeddings(source, tmp_path / "alone", "train", **SHARDS)
        rows: list[int] = []
        with engine_of(engine_kind, 2) as engine:
            how = {**SHARDS, "engine": engine, "progress": lambda n, _: rows.append(n)}
            report = import_embeddings(source, tmp_path / "s", "train", **how)
            again = import_embeddings(source, tmp_path / "s", "train", **how)
        assert tree(tmp_path / "s") == tree(tmp_path / "alone")
        assert alone.engine == {}
        assert report.engine == {**engine.describe(), "restarts": 0}
        assert sorted(rows) == [3000 - 5 * 512, *[512] * 5]
        assert (report.failures, report.n_zero) == (alone.failures, alone.n_zero)
        assert (again.n_written, again.resumed_shards) == (0, 6)

    def test_a_damaged_store_is_described_as_without_workers(self, engine_kind: str, tmp_path: Path) -> None:
        store = made_store(tmp_path / "s", 200, 8)
        with engine_of(engine_kind, 3) as engine:
            calls: list[int] = []
            report = verify(store.path, engine=engine, progress=lambda n, _: calls.append(n))
            assert report.ok
            assert (report.n_shards, calls) == (25, [8] * 25)
            for shard in (3, 17, 18):
                file = store.path / "train" / "embeddings" / "c" / str(shard) / "0"
                file.write_bytes(file.read_bytes()[:-1] + b"!")
            (store.path / "train" / "commits").joinpath("00005.json").unlink()
            found, expected = verify(store.path, engine=engine), verify(store.path)
        assert not found.ok
        assert found.problems == expected.problems
        assert (found.notes, found.n_bytes, found.n_shards) == (
            expected.notes,
            expected.n_bytes,
            expected.n_shards,
        )


def test_other_files_under_the_path_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = npz(tmp_path)
    monkeypatch.setattr("ltstore.transfer.importing._Sent.digest", "sha256:another", raising=False)
    with pytest.raises(SourceError, match=r"worker [12] of 2 finds other files at .*x\.npz"):
        import_embeddings(source, tmp_path / "s", "train", **SHARDS, engine=LocalEngine(2))
    assert not open_store(tmp_path / "s").split("train", allow_incomplete=True).complete
