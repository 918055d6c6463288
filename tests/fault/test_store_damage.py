"""Damage is found and named; hostile values end in a named error, never in other rows."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from ltstore import workflow
from ltstore.errors import ChecksumMismatchError, LtstoreError, StoreFormatError, StoreNotFoundError
from ltstore.linear import load_model
from ltstore.store import open_store, verify
from ltstore.store.format import GROUP_FILE, group_document
from support.memory import in_memory
from support.stores import begin, made_store, write_pending


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 rows in shards of 8, a subset, a synthetic split; chunks of 8 rows."""
    path = tmp_path_factory.mktemp("store") / "s"
    store = made_store(path)
    store.split("train").add_subset("cut", [0, 2, 19], settings={"rule": "exp"})
    with store.begin_split("more", n_rows=3, source_digest="", rows_per_shard=8, synthetic=True) as writer:
        write_pending(writer)
        writer.finish()
    assert verify(path).ok
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


def says_the_same(flipped: bytes, written: bytes) -> bool:
    """Whether JSON only spells a number otherwise: 1E-05 for 1e-05, or its seventeenth digit."""
    return written.startswith(b"{") and json.loads(flipped) == json.loads(written)


def test_any_flipped_bit_is_found(store: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(file for file in store.rglob("*") if file.is_file())
    assert len(files) > 25
    for file in files:
        data = bytearray(file.read_bytes())
        whole_data = bytes(data)
        for where in {0, len(data) - 1, *rng.integers(0, len(data), 8).tolist()}:
            bit = 1 << int(rng.integers(8))
            data[where] ^= bit
            file.write_bytes(data)
            try:
                found = not verify(store).ok
                assert found or says_the_same(data, whole_data), (file, where, bit)
            except StoreFormatError:  # the root cannot be opened at all
                assert file == store / GROUP_FILE
            data[where] ^= bit
        file.write_bytes(data)
    assert verify(store).ok


def test_a_flipped_byte_is_located(tmp_path: Path) -> None:
    from ltstore.store.format import SplitRecord, read_attribute

    store = made_store(tmp_path / "s", 5000, 2048)
    record = SplitRecord.from_json(read_attribute(store.location / "train" / GROUP_FILE), "")
    assert record.chunk_rows == 1024
    shard = store.path / "train" / "embeddings" / "c" / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[1024 * 5 * 2 + 4 + 100] ^= 1  # the second chunk
    shard.write_bytes(data)
    report = verify(store.path)
    (problem,) = report.problems
    assert (problem.split, problem.array, problem.shard, problem.chunk) == ("train", "embeddings", 1, 1)
    assert problem.rows == (3072, 4096)
    assert report.n_shards == 3
    assert json.loads(json.dumps(report.to_json()))["ok"] is False


@pytest.mark.parametrize(
    "name, array",
    [
        ("train/embeddings/c/2/0", "embeddings"),
        ("train/labels/c/2", "labels"),
        ("train/status/c/2", "status"),
        ("train/rows/part-00002.parquet", "rows"),
        ("train/commits/00002.json", "commits"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "short", "empty", "replaced"])
def test_a_damaged_file_is_named_with_its_rows(store: Path, name: str, array: str, damage: str) -> None:
    file = store / name
    if damage == "missing":
        file.unlink()
    elif damage == "replaced":  # by the same file of another shard
        shutil.copy(store / name.replace("2", "1"), file)
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-9])
    problems = verify(store).problems
    assert problems
    assert {(p.split, p.array, p.shard, p.rows) for p in problems} == {("train", array, 2, (16, 20))}
    if damage == "replaced":
        return
    with pytest.raises(StoreFormatError):
        split = open_store(store).split("train")
        assert split.digest
        split.rows().read(0, 17)
        split.keys([18])


def test_leftovers_are_notes(store: Path) -> None:
    (store / "train" / "embeddings" / "c" / "0" / "0.tmp").write_bytes(b"half")
    begin(open_store(store), 20).close()
    open_store(store).begin_split("test", n_rows=3, source_digest="").close()
    report = verify(store)
    assert report.ok
    assert [note.split(" ")[0] for note in report.notes] == ["test", "train/embeddings/c/0/0.tmp"]


def test_damaged_labels_are_not_served(store: Path) -> None:
    file = store / "train" / "labels" / "c" / "0"
    data = bytearray(file.read_bytes())
    data[8] ^= 1
    file.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match="labels"):
        open_store(store).split("train").rows()


def rewrite(path: Path, change: dict[str, Any]) -> None:
    document = json.loads(path.read_text())
    document["attributes"]["ltstore"].update(change)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format_version": 3}, "newer than the 2"),
        ({"format_version": "1"}, "format_version must be an integer"),
        ({"format_version": True}, "format_version must be an integer"),
        ({"class_names": "abc"}, "class_names must be a list"),
        ({"class_names": [1]}, "class_names must be a list"),
        ({"encoder": None}, "encoder must be an object"),
        ({"encoder": {"encoder": "x"}}, "encoder must have"),
    ],
)
def test_a_hostile_root(store: Path, change: dict[str, Any], message: str) -> None:
    rewrite(store / GROUP_FILE, change)
    with pytest.raises(StoreFormatError, match=message) as caught:
        open_store(store)
    assert str(store / GROUP_FILE) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"n_rows": -1},
        {"n_rows": 10**30},
        {"n_rows": 1 << 36},
        {"n_rows": 1000},
        {"n_rows": 19},
        {"n_rows": 20.0},
        {"rows_per_shard": 0},
        {"rows_per_shard": 4},
        {"rows_per_shard": 16},
        {"chunk_rows": 3},
        {"chunk_rows": 4},
        {"dtype": "float64"},
        {"dtype": "float32"},
        {"dtype": ["float16"]},
        {"state": "done"},
        {"digest": "sha256:0"},
        {"settings": []},
    ],
)
def test_a_hostile_split(store: Path, change: dict[str, Any]) -> None:
    rewrite(store / "train" / GROUP_FILE, change)
    if change != {"chunk_rows": 4}:  # which zarr can read
        with pytest.raises(LtstoreError):
            split = open_store(store).split("train")
            assert split.digest
            split.rows().read(0, 17)
    assert not verify(store).ok


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"attributes": 3}', "[" * 100000, '{"a": NaN}', '{"a":' * 500 + "1" + "}" * 500],
)
def test_a_file_that_is_no_record(store: Path, text: str) -> None:
    for name in (GROUP_FILE, "train/zarr.json", "train/commits/00001.json", "train/labels/zarr.json"):
        shutil.copytree(store, store.with_name("t"))
        (store.with_name("t") / name).write_text(text)
        with pytest.raises((StoreFormatError, StoreNotFoundError)):
            open_store(store.with_name("t")).split("train").rows()
        if name != GROUP_FILE:
            assert not verify(store.with_name("t")).ok
        shutil.rmtree(store.with_name("t"))


@pytest.mark.parametrize(
    "entry",
    [
        (0, 1 << 63),
        (1 << 63, 84),
        (2**64 - 2, 84),
        (0, 85),
        (1, 84),
        (84, 84),
        (0, 0),
        (2**64 - 100, 200),
        (2**64 - 1, 84),
        (0, 2**64 - 1),
    ],
)
def test_a_hostile_shard_index(store: Path, entry: tuple[int, int]) -> None:
    """Offsets that leave the file, wrap around, or have another size never give rows."""
    file = store / "train" / "embeddings" / "c" / "0" / "0"
    data = file.read_bytes()[:-20] + struct.pack("<QQ", *entry)
    file.write_bytes(data + struct.pack("<I", google_crc32c.value(data[-16:])))
    with pytest.raises(StoreFormatError):
        open_store(store).split("train").rows().read(0, 3)
    assert not verify(store).ok


def test_what_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="no store at"):
        open_store(tmp_path / "nothing")
    with pytest.raises(StoreFormatError, match="is not a store"):
        open_store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreFormatError, match="is not a store"):
        open_store(tmp_path / "file")
    (tmp_path / GROUP_FILE).write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    with pytest.raises(StoreFormatError, match="no ltstore store"):
        open_store(tmp_path)
    (tmp_path / GROUP_FILE).write_text(json.dumps(group_document({"format_version": 99})))
    with pytest.raises(StoreFormatError, match="upgrade"):
        open_store(tmp_path)


def test_shards_that_are_looked_at_at_once_are_reported_in_order(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", 60, 8)
    directory = store.path / "train"
    for name in (
        "rows/part-00006.parquet",
        "status/c/1",
        "embeddings/c/6/0",
        "labels/c/1",
        "commits/00004.json",
    ):
        (directory / name).write_bytes((directory / name).read_bytes()[:-9])
    place = in_memory(store.path)
    there, here = verify(place), verify(store.path)
    found = [(p.shard, p.array, p.rows) for p in there.problems]
    assert found == [(p.shard, p.array, p.rows) for p in here.problems]
    assert [p[:2] for p in found] == [
        (1, "labels"),
        (1, "status"),
        (4, "commits"),
        (6, "embeddings"),
        (6, "rows"),
    ]
    assert (there.n_shards, there.n_bytes) == (here.n_shards, here.n_bytes)


LEARNING: dict[str, Callable[[Path, Path], object]] = {
    "train": lambda store, out: workflow.train(store, head="gda", out=out),
    "sample": lambda store, out: workflow.sample(store, sampler="smote", name="made"),
    "index": lambda store, out: workflow.build_store_index(store),
    "donors": lambda store, out: workflow.store_donors(store),
    "evaluate": lambda store, out: workflow.evaluate(out, store, split="train"),
    "train --holdout": lambda store, out: workflow.train(store, subset="cut", holdout="held"),
    "predict": lambda store, out: list(workflow.predict_stored(load_model(out), store, split="train")),
}


@pytest.mark.parametrize("command", LEARNING)
def test_nothing_is_learnt_from_damaged_embeddings(store: Path, command: str) -> None:
    """Rows are read out of mapped files without a look at their checksums: that is taken before."""
    model = store / "models" / "sound"
    open_store(store).split("train").add_subset("held", [9, 10], settings={"rule": "exp"})
    if command in ("evaluate", "predict"):
        workflow.train(store, head="ncm", out=model)
    file = store / "train" / "embeddings" / "c" / "1" / "0"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match=r"chunk 0 of .*embeddings/c/1/0 .*run verify"):
        LEARNING[command](store, model)
