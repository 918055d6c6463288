"""What a split keeps of its rows, and what it refuses."""

from __future__ import annotations

import logging
import pickle
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ltstore.errors import (
    ConfigError,
    DataError,
    LabelError,
    PlanMismatchError,
    StoreExistsError,
    StoreNotFoundError,
    StoreWriteError,
)
from ltstore.store import create_store, open_store, store_info, verify
from ltstore.store.reader import StoredArray
from ltstore.types import RowStatus
from support.stores import (
    CLASS_NAMES,
    begin,
    columns,
    embeddings,
    identity,
    made_store,
    new_store,
    write_pending,
)


def one_shard(X: Any, **changes: Any) -> dict[str, Any]:
    n = len(X)
    return {
        "embeddings": X,
        "labels": np.zeros(n, int),
        "status": np.zeros(n, int),
        "keys": [str(row) for row in range(n)],
        "errors": [None] * n,
        **changes,
    }


def test_rows_that_cannot_be_stored_keep_their_place_and_say_why(tmp_path: Path) -> None:
    X = np.ones((6, 3), np.float64)
    X[1, 0] = np.nan
    X[2, 1:] = -np.inf
    X[3, 2] = -70000
    X[4] = 1e-12  # below what float16 holds: kept as zeros, and counted
    X[5] = np.nan  # beside a status of its own, not looked at
    before = X.copy()
    store = new_store(tmp_path / "s", 3)
    with store.begin_split("train", n_rows=6, source_digest="") as writer:
        writer.write_shard(
            0, **one_shard(X, status=[0, 0, 0, 0, 0, RowStatus.MISSING], errors=[*[None] * 5, "no file"])
        )
        split = writer.finish()
    np.testing.assert_array_equal(X, before)
    assert split.status.tolist() == [0, 4, 4, 5, 0, 1]
    assert split.failures() == {"MISSING": 1, "NON_FINITE": 2, "OVERFLOW": 1}
    assert split.zero_norm == 1
    assert split.errors(range(6)) == [
        None,
        "NaN or Inf in 1 of 3 features",
        "NaN or Inf in 2 of 3 features",
        "largest magnitude 70000 does not fit float16",
        None,
        "no file",
    ]
    rows = split.rows()
    assert rows.row_ids.tolist() == [0, 4]
    np.testing.assert_allclose(rows.read(0, 2), [[3**-0.5] * 3, [0] * 3], rtol=1e-6)
    stored = zarr.open_array(tmp_path / "s" / "train" / "embeddings", mode="r")[:]
    assert not np.asarray(stored)[[1, 2, 3, 5]].any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_embeddings_given_are_not_modified(tmp_path: Path, dtype: str) -> None:
    X = np.ones((3, 2), dtype)
    X[1, 0] = np.nan
    before = X.copy()
    X.flags.writeable = False
    with new_store(tmp_path / "s", 2).begin_split("train", n_rows=3, source_digest="", dtype=dtype) as writer:
        writer.write_shard(0, **one_shard(X, status=[0, 0, RowStatus.CORRUPT]))
        assert writer.finish().rows().n_samples == 1
    np.testing.assert_array_equal(X, before)


def test_float32_holds_what_float16_does_not(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s", 2)
    X = np.array([[7e4, 1e-12], [1e39, 0]])
    with store.begin_split("train", n_rows=2, source_digest="", dtype="float32") as writer:
        writer.write_shard(0, **one_shard(X))
        split = writer.finish()
    assert split.failures() == {"OVERFLOW": 1}
    np.testing.assert_array_equal(split.rows(normalize=False).read(0, 1), X[:1].astype(np.float32))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"embeddings": np.zeros((8, 4), np.float32)}, DataError, "floats of shape"),
        ({"embeddings": np.zeros((7, 5), np.float32)}, DataError, "floats of shape"),
        ({"embeddings": np.zeros((8, 5), np.int64)}, DataError, "floats of shape"),
        ({"labels": np.full(8, 4)}, LabelError, "label 4 of row 0"),
        ({"labels": np.full(8, -2)}, LabelError, "label -2"),
        ({"labels": np.zeros(8)}, DataError, "8 integers"),
        ({"status": np.full(8, 7)}, DataError, "RowStatus"),
        ({"status": np.zeros(7, int)}, DataError, "RowStatus"),
        ({"keys": ["a"]}, DataError, "keys of shard 0 must be 8"),
        ({"keys": [1] * 8}, DataError, "'key' cannot be stored"),
        ({"errors": [None]}, DataError, "errors of shard 0 must be 8"),
        ({"extra": {"key": [0] * 8}}, DataError, "rename it"),
        ({"extra": {"more": [0]}}, DataError, "one value for each of 8 rows"),
    ],
)
def test_bad_columns_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with begin(new_store(tmp_path / "s"), 20) as writer:
        with pytest.raises(error, match=message):
            writer.write_shard(0, **{**columns(20, 0, 8), **change})
        assert not list((tmp_path / "s" / "train" / "commits").iterdir())
        assert writer.pending == (0, 1, 2)
        write_pending(writer)
        with pytest.raises(StoreExistsError, match="shard 1"):
            writer.write_shard(1, **columns(20, 8, 16))
        writer.finish()
        with pytest.raises(StoreWriteError, match="closed"):
            writer.write_shard(1, **columns(20, 8, 16))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_rows": 21}, "n_rows: 20 there, 21 now"),
        ({"source_digest": "sha256:other"}, "source_digest: sha256:made there"),
        ({"dtype": "float32"}, "dtype: float16 there, float32 now"),
        ({"rows_per_shard": 4}, "rows_per_shard: 8 there, 4 now"),
        ({"settings": {"limit": 3}}, "settings.limit: nothing there, 3 now"),
    ],
)
def test_another_plan_is_named_and_changes_nothing(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    store = made_store(tmp_path / "s")
    plan = {"n_rows": 20, "source_digest": "sha256:made", "rows_per_shard": 8, **change}
    with pytest.raises(PlanMismatchError, match=message):
        store.begin_split("train", **plan)
    assert verify(store.path).ok
    with begin(store, 20, "auto") as writer:  # no opinion about the plan, and nothing left to do
        assert writer.pending == ()
        assert writer.finish().complete


def test_extra_columns_come_back(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    parents = np.arange(40).reshape(20, 2)
    with store.begin_split("smote", n_rows=20, source_digest="", rows_per_shard=8, synthetic=True) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            extra = {"parent_ids": parents[start:stop], "note": [None] * (stop - start)}
            writer.write_shard(shard, **columns(20, start, stop), extra=extra)
        writer.finish()
    assert store.splits == ()
    assert store.synthetic_names == ("smote",)
    split = store.synthetic("smote")
    table = split.table([19, 0, 19], ["parent_ids", "key"])
    assert table.column("parent_ids").to_pylist() == [[38, 39], [0, 1], [38, 39]]
    assert table.column("key").to_pylist() == split.keys([19, 0, 19])
    assert split.table(None, ["parent_ids"]).num_rows == 20
    with pytest.raises(ValueError, match="no column 'absent'; it has key, label"):
        split.table([0], ["absent"])
    with pytest.raises(DataError, match=r"0\.\.19"):
        split.keys([20])


def test_file_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s", 1)
    with store.begin_split("train", n_rows=1, source_digest="") as writer:
        writer.write_shard(0, **one_shard(np.ones((1, 1), np.float32), keys=["caf\udce9.jpg"]))
        assert writer.finish().keys([0]) == ["caf\\udce9.jpg"]


def test_subsets(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    split = store.split("train")
    split.add_subset("longtail-é", [0, 3, 4, 19], settings={"imbalance": 10, "shape": (1, 2)})
    split.add_subset("longtail-é", np.array([0, 3, 4, 19]), settings={"imbalance": 10, "shape": [1, 2]})
    split.add_subset("none", [], settings={})
    split = open_store(store.path).split("train")
    assert split.subsets == ("longtail-é", "none")
    assert split.subset("longtail-é").tolist() == [0, 3, 4, 19]
    assert split.subset_settings("longtail-é") == {"imbalance": 10, "shape": [1, 2]}
    assert split.subset("none").dtype == np.int64
    rows = split.rows("longtail-é", normalize=False)
    assert rows.row_ids.tolist() == [0, 4, 19]  # row 3 has no embedding
    np.testing.assert_array_equal(rows.read(0, 3), embeddings(20)[[0, 4, 19]].astype(np.float16))
    assert rows.labels.tolist() == [0, -1, -1]
    assert rows.digest != split.rows(normalize=False).digest
    assert rows.digest != split.rows("longtail-é").digest
    assert rows.digest == split.rows("longtail-é", normalize=False).digest
    with pytest.raises(StoreExistsError, match="other rows or settings"):
        split.add_subset("longtail-é", [1], settings={"imbalance": 10})
    for ids, message in (([3, 1], "ascending"), ([1, 1], "ascending"), ([20], "0..19"), ([0.5], "integers")):
        with pytest.raises(DataError, match=message):
            split.add_subset("bad", ids, settings={})
    with pytest.raises(StoreNotFoundError, match="there are: longtail-é, none"):
        split.subset("bad")
    assert np.asarray(zarr.open_group(store.path, mode="r")["train/subsets/longtail-é"][:]).tolist() == [
        0,
        3,
        4,
        19,
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/a",
        "a\\b",
        ".lock",
        "-a",
        "a b",
        "a\n",
        "a\x00",
        "x.tmp",
        "a:b",
        "n" * 201,
        "e\u0301",
    ],
)
def test_names_that_could_be_another_path(tmp_path: Path, name: str) -> None:
    store = made_store(tmp_path / "s", 3)
    for call in (
        lambda: store.split(name),
        lambda: store.begin_split(name, n_rows=1, source_digest=""),
        lambda: store.artefact_path("indexes", name),
        lambda: store.split("train").add_subset(name, [0], settings={}),
        lambda: store.split("train").subset(name),
    ):
        with pytest.raises(ConfigError, match="name must be"):
            call()


def test_names_of_any_script(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    for name in ("été", "训练", "हिन्दी", "train-2.v1_a"):
        store.begin_split(name, n_rows=0, source_digest="").finish()
        assert store.artefact_path("stats", name) == store.path / "stats" / name
    assert len(store.splits) == 4
    with pytest.raises(ConfigError, match="cannot be named 'stats'"):
        store.split("stats")
    with pytest.raises(StoreNotFoundError, match="no split 'nope'; there are: "):
        store.split("nope")


def test_create_refuses_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    new_store(tmp_path / "empty")
    with pytest.raises(StoreExistsError, match="not empty"):
        new_store(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreExistsError, match="is a file"):
        new_store(tmp_path / "file")
    with pytest.raises(StoreWriteError, match="cannot write"):
        new_store(tmp_path / "file" / "s")
    with pytest.raises(ConfigError, match="list of strings"):
        create_store(tmp_path / "s", encoder=identity(), class_names="abc")
    store = open_store(new_store(tmp_path / "deep" / "s").path)
    assert store.encoder == identity()
    assert store.class_names == CLASS_NAMES


@pytest.mark.parametrize("codec", ["zstd", "plain", "unsharded"])
def test_a_foreign_layout_reads_the_same_values(
    tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = made_store(tmp_path / "s")
    expected = store.split("train").rows(normalize=False)
    ids = np.array([3, 16, 0, 16])
    X, some = expected.read(0, expected.n_samples), expected.take(ids)
    path = store.path / "train" / "embeddings"
    values = np.asarray(zarr.open_array(path, mode="r")[:])
    layout: dict[str, Any] = {"chunks": (8, 5), "shards": (8, 5), "compressors": None}
    if codec == "zstd":
        layout["compressors"] = "auto"
    elif codec == "unsharded":
        layout = {"chunks": (3, 2)}
    zarr.create_array(path, data=values, overwrite=True, **layout)
    with caplog.at_level(logging.WARNING):
        rows = store.split("train").rows(normalize=False)
        np.testing.assert_array_equal(rows.read(0, rows.n_samples), X)
        np.testing.assert_array_equal(rows.take(ids), some)
    assert "through zarr" in caplog.text


def test_reading_checks_its_arguments(tmp_path: Path) -> None:
    rows = made_store(tmp_path / "s").split("train").rows()
    assert rows.read(5, 5).shape == (0, 5)
    assert rows.take(np.array([], np.int64)).shape == (0, 5)
    for start, stop in ((-1, 2), (0, rows.n_samples + 1), (3, 2)):
        with pytest.raises(IndexError):
            rows.read(start, stop)
    with pytest.raises(IndexError):
        rows.take(np.array([-1]))
    for out in (np.empty((2, 5)), np.empty((3, 5), np.float32), np.empty((5, 2), np.float32).T):
        with pytest.raises(DataError, match="out must be"):
            rows.read(0, 2, out=out)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        rows.labels[0] = 1
    buffer = np.empty((2, 5), np.float32)
    assert rows.read(0, 2, out=buffer) is buffer


def test_views_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltstore.store.reader.OPEN_MAPS", 1)  # every shard change closes the one before
    rows = made_store(tmp_path / "s").split("train").rows()
    before = rows.read(0, rows.n_samples)
    again = pickle.loads(pickle.dumps(rows))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.read(0, again.n_samples), before)
    np.testing.assert_array_equal(again.take(np.array([16, 0, 9, 0])), before[[16, 0, 9, 0]])
    assert again.digest == rows.digest
    assert isinstance(again.split.generations[0].embeddings, StoredArray)
    assert again.normalized


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    one, two = (made_store(tmp_path / name).split("train") for name in "ab")
    assert one.digest == two.digest
    assert one.rows().digest == two.rows().digest
    other = made_store(tmp_path / "c", 21).split("train")
    assert other.digest != one.digest


def test_info_shows_it_all(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", settings={"limit": 20})
    store.split("train").add_subset("cut", [0, 1, 5], settings={"rule": "exp"})
    with store.begin_split("test", n_rows=20, source_digest="", rows_per_shard=8) as writer:
        writer.write_shard(2, **columns(20, 16, 20))
    store.artefact_path("indexes", "train-flat").mkdir(parents=True)
    info = store_info(store.path)
    train, test = info["splits"]["train"], info["splits"]["test"]
    assert (train["n_rows"], train["n_ok"], train["failures"]) == (20, 17, {"CORRUPT": 3})
    assert train["settings"] == {"limit": 20}
    assert train["classes"]["largest"] == 4
    assert train["subsets"]["cut"]["n_rows"] == 3
    assert (test["complete"], test["rows_written"], test["shards_written"], test["n_shards"]) == (
        False,
        4,
        1,
        3,
    )
    assert test["n_ok"] == 3
    assert test["classes"]["labelled"] + test["classes"]["unlabelled"] == 4
    assert info["indexes"] == ["train-flat"]
    assert info["encoder"]["digest"] == identity().digest


def test_a_status_of_a_later_version_is_a_row_without_an_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(IntEnum):
        OK = 0
        FADED = 77

    monkeypatch.setattr("ltstore.store.shard_writer.RowStatus", Later)
    X = np.ones((3, 5), np.float32)
    with begin(new_store(tmp_path / "s"), 3) as writer:
        writer.write_shard(0, **one_shard(X, status=[0, 77, 0]))
        split = writer.finish()
    assert split.failures() == {"FADED": 1}
    assert split.rows().row_ids.tolist() == [0, 2]
    assert verify(tmp_path / "s").ok


@pytest.mark.parametrize("bounds", [(0, 5000), (1, 4999), (1023, 1025), (2048, 2048), (3000, 3001)])
def test_chunks_are_views_of_the_files(tmp_path: Path, bounds: tuple[int, int]) -> None:
    split = made_store(tmp_path / "s", 5000, 2048).split("train")
    start, stop = bounds
    out = np.empty((stop - start, 5), np.float16)
    split.embeddings.read(start, stop, out)
    pieces = list(split.embeddings.iter_chunks(start, stop))
    rows = [row for row, _ in pieces]
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(np.concatenate([X for _, X in pieces]) if pieces else out, out)
    shards = [split.generations[0].embeddings._map(shard) for shard in range(3)]  # type: ignore[attr-defined]
    for row, X in pieces:
        assert row % 1024 + len(X) <= 1024
        assert np.shares_memory(X, shards[row // 2048])
        assert not X.flags.writeable
        assert X.dtype == np.float16
