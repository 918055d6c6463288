"""Stores made to do harm: a named error in a moment, without the memory or the writes that they ask for."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from ltstore.errors import (
    ConfigError,
    LtstoreError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.storage import open_location
from ltstore.store import open_store, store_info, verify
from ltstore.store.format import GROUP_FILE, read_json, seal
from support import peak
from support.peak import MIB
from support.stores import begin, made_store, new_store, tree, write_pending

ROOM = 200 * MIB  # what hostile stores may cost at most: far below what they claim


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 rows in shards of 8 and chunks of 8, and a subset."""
    path = tmp_path_factory.mktemp("store") / "s"
    made_store(path).split("train").add_subset("cut", [0, 2, 19], settings={"rule": "exp"})
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that waits for ever, for a pipe say, ends the run with its stack."""
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


_IMPORTS = """
import numpy, pyarrow.parquet, zarr
from ltstore.store import open_store, verify, store_info, zarr_arrays
from ltstore.transfer import adopt
"""


def peak_bytes(path: Path, what: str) -> tuple[int, str]:
    """Do `what` with the store at `path`; see `support.peak`."""
    return peak.peak_bytes(path, what, _IMPORTS)


def change(path: Path, values: dict[str, Any]) -> None:
    """Set values of our attribute, and seal the document again: the seal is no defence."""
    document = json.loads(path.read_text())
    document["attributes"]["ltstore"].update(values)
    path.write_text(json.dumps(seal(document)))


def everything(path: Path) -> None:
    """What a reader can ask of a store."""
    store_info(path)
    opened = open_store(path)
    for name in opened.splits:
        split = opened.split(name, allow_incomplete=True)
        split.keys(np.arange(split.n_rows))
        for subset in (None, *split.subsets):
            rows = split.rows(subset)
            rows.read(0, rows.n_samples)
            rows.take(np.arange(rows.n_samples))


# JSON


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"a": {"b": 1, "c": 1, "b": 1}}', "'b' is there twice"),
        ('{"a": 1e999}', "no number that a float holds"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        (r'{"a": "\ud800"}', "surrogates not allowed"),
        (b'{"a": "\xed\xa0\x80"}', "utf-8"),
        (b'{"a": "\xff"}', "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("[" * 200 + "]" * 200, "nested deeper"),
        ("[" * 1_000_000, "not valid JSON"),
        (" " * ((1 << 24) + 1), "larger than any record"),
    ],
)
def test_json_that_two_readers_may_take_for_two_things(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StoreFormatError, match=message) as caught:
        read_json(open_location(file))
    assert len(str(caught.value)) < 400 + len(str(file))
    assert "\n" not in str(caught.value)


def test_messages_stay_short(store: Path) -> None:
    """A hostile value is not printed whole."""
    for values in ({"encoder": {"x" * 100_000: 1}}, {"format_version": "x" * 100_000}):
        shutil.copytree(store, store.with_name("t"))
        change(store.with_name("t") / GROUP_FILE, values)
        with pytest.raises(StoreFormatError) as caught:
            open_store(store.with_name("t"))
        assert len(str(caught.value)) < 1000
        shutil.rmtree(store.with_name("t"))
    file = store / "train" / "labels" / GROUP_FILE
    document = json.loads(file.read_text())
    document["shape"] = list(range(100_000))
    file.write_text(json.dumps(seal(document)))
    commit = store / "train" / "commits" / "00001.json"
    commit.write_text(json.dumps({**json.loads(commit.read_text()), "failures": {"\n" * 100_000: 1}}))
    assert all(
        len(problem.message) < 1000 and "\n" not in problem.message for problem in verify(store).problems
    )
    commit.unlink()
    shutil.copy(store / "train" / "commits" / "00000.json", commit)
    with pytest.raises(StoreFormatError) as caught:
        _ = open_store(store).split("train", allow_incomplete=True).labels
    assert len(str(caught.value)) < 1000


def test_class_names_beyond_all_measure(store: Path, tmp_path: Path) -> None:
    """Of files of many small values; and what cannot be read is not written."""
    from ltstore.store import create_store

    whole = (store / GROUP_FILE).read_text()
    for filler in ('"",', "[],"):
        names = (filler * (6_000_000 // len(filler)))[:-1]
        (store / GROUP_FILE).write_text(whole.replace('"class_names": [', f'"class_names": [{names},'))
        grown, error = peak_bytes(store, "open_store(path)")
        assert grown < ROOM, (filler, grown)
        assert error.startswith("StoreFormatError") or filler == '"",'
    encoder = open_store(made_store(tmp_path / "t").path).encoder
    with pytest.raises(ConfigError, match="class names must fit"):
        create_store(tmp_path / "u", encoder=encoder, class_names=["x" * 1000] * 70_000)
    assert not (tmp_path / "u").exists()


# what is no regular file


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            end.bind(path.name)
        finally:
            os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_pipe, _socket, _device, _loop, _directory])
@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        "train/zarr.json",
        "train/labels/zarr.json",
        "train/embeddings/c/1/0",
        "train/labels/c/1",
        "train/rows/part-00001.parquet",
        "train/commits/00001.json",
        "train/subsets/cut/zarr.json",
        "train/subsets/cut/c/0",
    ],
)
def test_pipes_devices_and_directories_in_place_of_files(
    store: Path, name: str, make: Callable[[Path], None]
) -> None:
    (store / name).unlink()
    make(store / name)
    with pytest.raises(LtstoreError) as caught:
        opened = open_store(store).split("train")
        opened.rows("cut").read(0, 2)
        everything(store)
    assert "\n" not in str(caught.value)
    if name == GROUP_FILE:
        with pytest.raises(LtstoreError):
            verify(store)
    else:
        assert not verify(store).ok


@pytest.mark.parametrize("make", [_pipe, _device, _directory])
def test_pipes_in_a_recompressed_array(store: Path, make: Callable[[Path], None]) -> None:
    file = recompress(store / "train" / "embeddings", compressors=ZstdCodec())
    file.unlink()
    make(file)
    with pytest.raises(StoreFormatError):
        everything(store)


def test_a_store_on_other_disks_is_read_through_its_links(store: Path, tmp_path: Path) -> None:
    expected = open_store(store).split("train").rows().read(0, 17)
    (tmp_path / "elsewhere").mkdir()
    for name in ("train/embeddings/c", "train/rows", "train/labels/c/0"):
        target = tmp_path / "elsewhere" / name.replace("/", "-")
        (store / name).rename(target)
        (store / name).symlink_to(target)
    assert np.array_equal(open_store(store).split("train").rows().read(0, 17), expected)
    assert verify(store).ok


def recompress(array: Path, **changes: Any) -> Path:
    """Write an array anew through zarr-python in another layout; return the file of one chunk."""
    found = zarr.open_array(array, mode="r")
    values = np.asarray(found[...])
    shutil.rmtree(array)
    arguments = {"chunks": values.shape, "compressors": None, **changes}
    made = zarr.create_array(
        array, shape=values.shape, dtype=values.dtype, config={"write_empty_chunks": True}, **arguments
    )
    made[...] = values
    return next(file for file in sorted((array / "c").rglob("*")) if file.is_file())


# headers that claim more than there is


def claims(path: Path, n_rows: int, *, rows_per_shard: int = 1 << 24, state: str = "writing") -> Path:
    """A store whose split claims `n_rows` rows, every document of it in order."""
    split = path / "train"
    change(split / GROUP_FILE, {"n_rows": n_rows, "rows_per_shard": rows_per_shard, "state": state})
    for name in ("embeddings", "labels", "status"):
        file = split / name / GROUP_FILE
        document = json.loads(file.read_text())
        document["shape"][0] = n_rows
        document["chunk_grid"]["configuration"]["chunk_shape"][0] = rows_per_shard
        file.write_text(json.dumps(seal(document)))
    return path


@pytest.mark.parametrize("state", ["writing", "complete"])
@pytest.mark.parametrize(
    "what",
    [
        "store_info(path)",
        "verify(path)",
        "open_store(path).split('train', allow_incomplete=True).labels",
        "open_store(path).split('train', allow_incomplete=True).rows()",
        "open_store(path).split('train', allow_incomplete=True).table(None, ['key'])",
    ],
)
def test_a_header_of_2_to_the_36_rows_costs_nothing(store: Path, what: str, state: str) -> None:
    shutil.rmtree(store / "train" / "subsets")
    for file in (store / "train" / "commits").iterdir():
        file.unlink()
    claims(store, 1 << 36, state=state)
    grown, error = peak_bytes(store, what)
    assert grown < ROOM, grown
    assert error or "info" in what or "verify" in what


def test_a_million_shards_that_are_not_there_take_no_time(store: Path) -> None:
    for file in (store / "train" / "commits").iterdir():
        file.unlink()
    claims(store, 1 << 28, rows_per_shard=256, state="complete")
    report = verify(store)
    assert not report.ok
    assert len(report.problems) < 2000
    assert any("more shards of" in problem.message for problem in report.problems)
    with pytest.raises(StoreFormatError):
        _ = open_store(store).split("train").labels


def test_commit_records_that_claim_rows_without_files(store: Path) -> None:
    """Each shard of 2**24 rows has its record, and the files are a few bytes."""
    claims(store, 1 << 32)
    commits = store / "train" / "commits"
    record = json.loads((commits / "00000.json").read_text())
    for shard in range(256):
        record.update(shard=shard, start=shard << 24, stop=(shard + 1) << 24)
        (commits / f"{shard:05d}.json").write_text(json.dumps(seal(record)))
    for what in (
        "store_info(path)",
        "verify(path)",
        "open_store(path).split('train', allow_incomplete=True).rows()",
        "open_store(path).split('train', allow_incomplete=True).table(None, ['key'])",
    ):
        grown, _ = peak_bytes(store, what)
        assert grown < ROOM, (what, grown)


def test_thousands_of_commit_records_of_no_plan(store: Path) -> None:
    for number in range(100, 6_000):
        (store / "train" / "commits" / f"{number:05d}.json").touch()
    for name in ("-1", "0", "000000", "00001 ", "x", "²", "9" * 200):
        (store / "train" / "commits" / f"{name}.json").touch()
    assert open_store(store).split("train").rows().n_samples == 17
    assert len(verify(store).problems) == 6_000 - 100 + 7


def test_rows_of_a_million_features_are_not_allocated(store: Path) -> None:
    """D is as large as it may be and the embeddings' own metadata agree; the files are those of D = 5."""
    n_features = 1 << 20
    change(
        store / GROUP_FILE,
        {
            "encoder": {
                **json.loads((store / GROUP_FILE).read_text())["attributes"]["ltstore"]["encoder"],
                "n_features": n_features,
            }
        },
    )
    file = store / "train" / "embeddings" / GROUP_FILE
    text = json.dumps(json.loads(file.read_text())).replace("20, 5]", f"20, {n_features}]")
    document = json.loads(text.replace("8, 5]", f"8, {n_features}]"))
    assert document["shape"][1] == n_features
    file.write_text(json.dumps(seal(document)))
    rows = open_store(store).split("train").rows()
    with pytest.raises(StoreFormatError):
        rows.read(0, 3)
    grown, error = peak_bytes(store, "r = open_store(path).split('train').rows(); r.take([0] * 100_000)")
    assert grown < ROOM
    assert error.startswith("StoreFormatError")


@pytest.mark.parametrize(
    "shape, message",
    [
        ([1 << 40], "a chunk of"),
        ([3, 1], "dimensions"),
        ([-3], "shape"),
        ([0], "other row"),
        ([4], "cannot read"),
        ("x", "list"),
    ],
)
def test_hostile_subsets(store: Path, shape: Any, message: str) -> None:
    file = store / "train" / "subsets" / "cut" / GROUP_FILE
    document = json.loads(file.read_text())
    document["shape"] = shape
    if isinstance(shape, list):
        document["chunk_grid"]["configuration"]["chunk_shape"] = [max(n, 1) for n in shape]
    file.write_text(json.dumps(seal(document)))
    with pytest.raises(StoreFormatError, match=message):
        open_store(store).split("train").subset("cut")
    assert not verify(store).ok


@pytest.mark.parametrize("ids", [[0, 0, 2], [2, 1, 0], [-1, 0, 1], [0, 2, 20], [0, 2, 18]])
def test_subsets_of_ids_that_are_none(store: Path, ids: list[int]) -> None:
    data = np.array(ids, "<i8").tobytes()
    (store / "train" / "subsets" / "cut" / "c" / "0").write_bytes(
        data + google_crc32c.value(data).to_bytes(4, "little")
    )
    with pytest.raises(StoreFormatError):
        open_store(store).split("train").subset("cut")
    assert not verify(store).ok


# shard indexes


def reindex(file: Path, entries: list[tuple[int, int]]) -> None:
    """Replace the index of a shard file by another with a checksum that holds."""
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    body = file.read_bytes()[: -16 * len(entries) - 4]
    file.write_bytes(body + index + struct.pack("<I", google_crc32c.value(index)))


@pytest.fixture
def chunked(tmp_path: Path) -> Path:
    """4,000 rows in one shard of four chunks."""
    return made_store(tmp_path / "c", 4000, 4096).path


CHUNK = 1024 * 5 * 2 + 4


def test_chunks_in_another_order_are_the_same_rows(chunked: Path) -> None:
    """Legal in Zarr: the index says where each lies."""
    expected = open_store(chunked).split("train").rows(normalize=False).read(0, 3000)
    file = chunked / "train" / "embeddings" / "c" / "0" / "0"
    data = file.read_bytes()
    pieces = [data[i * CHUNK : (i + 1) * CHUNK] for i in range(4)]
    order = [2, 0, 3, 1]
    file.write_bytes(b"".join(pieces[chunk] for chunk in order) + data[4 * CHUNK :])
    reindex(file, [(order.index(chunk) * CHUNK, CHUNK) for chunk in range(4)])
    rows = open_store(chunked).split("train").rows(normalize=False)
    assert np.array_equal(rows.read(0, 3000), expected)
    assert np.array_equal(rows.take(np.arange(2999, -1, -1)), expected[::-1])
    assert not verify(chunked).ok


@pytest.mark.parametrize(
    "chunk, entry",
    [
        (1, (2**64 - 1, 2**64 - 1)),  # absent: Zarr reads zeros
        (0, (2**64 - 1, 2**64 - 1)),
        (1, (2**64 - 1, CHUNK)),
        (1, (CHUNK, 2**64 - 1)),
        (1, (CHUNK, 0)),
        (1, (CHUNK, 4)),
        (1, (CHUNK, CHUNK + 1)),
        (1, (2**63, 2**63)),
        (1, (2**64 - CHUNK, 2 * CHUNK)),
    ],
)
@pytest.mark.parametrize("name", ["embeddings/c/0/0", "labels/c/0"])
def test_an_index_that_leaves_rows_out(chunked: Path, chunk: int, entry: tuple[int, int], name: str) -> None:
    stored = CHUNK if name.startswith("e") else 1024 * 8 + 4
    entries = [(i * stored, stored) for i in range(4)]
    entries[chunk] = tuple(stored if n == CHUNK else n for n in entry)  # type: ignore[assignment]
    reindex(chunked / "train" / name, entries)
    with pytest.raises(StoreFormatError):
        open_store(chunked).split("train").rows().read(0, 3400)
    with pytest.raises(StoreFormatError):
        split = open_store(chunked).split("train")
        _ = split.labels
        split.embeddings.take(np.array([chunk * 1024 + 5]), np.empty((1, 5), np.float32))
    assert not verify(chunked).ok


def test_chunks_that_overlap_are_found(chunked: Path) -> None:
    """Two chunks in one place are legal in Zarr and read as such; verify says that it was not written so."""
    file = chunked / "train" / "embeddings" / "c" / "0" / "0"
    reindex(file, [(0, CHUNK), (0, CHUNK), (2 * CHUNK, CHUNK), (3 * CHUNK, CHUNK)])
    split = open_store(chunked).split("train")
    out = np.empty((4000, 5), np.float32)
    split.embeddings.read(0, 4000, out)
    assert np.array_equal(out, np.asarray(zarr.open_array(chunked / "train" / "embeddings", mode="r")[...]))
    assert np.array_equal(out[:1024], out[1024:2048])
    assert not verify(chunked).ok


# arrays laid out by others


@pytest.mark.parametrize("name", ["embeddings", "labels", "status"])
@pytest.mark.parametrize(
    "layout",
    [
        {"compressors": ZstdCodec()},
        {"compressors": GzipCodec()},
        {"compressors": BloscCodec()},
        {"compressors": (ZstdCodec(), Crc32cCodec())},
        {"compressors": BloscCodec(), "chunks": "2", "shards": "4"},
        {"chunks": "3"},
    ],
)
def test_recompressed_arrays_are_the_same_rows(store: Path, name: str, layout: dict[str, Any]) -> None:
    expected = open_store(store).split("train").rows(normalize=False)
    X = expected.read(0, 17)
    width = (5,) if name == "embeddings" else ()
    sizes = {key: (int(value), *width) for key, value in layout.items() if isinstance(value, str)}
    recompress(store / "train" / name, **{**layout, **sizes})
    found = open_store(store).split("train").rows(normalize=False)
    assert np.array_equal(found.read(0, 17), X)
    assert np.array_equal(found.take(np.arange(16, -1, -1)), X[::-1])
    assert np.array_equal(found.labels, expected.labels)


def bomb(kind: str, n_bytes: int) -> bytes:
    """A few kilobytes that unfold to `n_bytes` zeros."""
    if kind == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            for _ in range(n_bytes // MIB):
                stream.write(bytes(MIB))
        return bytes(sink.getvalue())
    if kind == "blosc":
        import numcodecs

        return bytes(numcodecs.Blosc("zstd", 9).encode(bytes(n_bytes)))
    import zlib

    squeeze = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    return b"".join(squeeze.compress(bytes(MIB)) for _ in range(n_bytes // MIB)) + squeeze.flush()


@pytest.mark.parametrize(
    "kind, codec, n_bytes",
    [("zstd", ZstdCodec(), 2 << 30), ("gzip", GzipCodec(), 1 << 29), ("blosc", BloscCodec(), 1 << 29)],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_a_decompression_bomb(store: Path, kind: str, codec: Any, n_bytes: int, sharded: bool) -> None:
    layout = {"chunks": (20, 5), "shards": (20, 5)} if sharded else {}
    file = recompress(store / "train" / "embeddings", compressors=codec, **layout)
    data = bomb(kind, n_bytes)
    file.write_bytes(data)
    if sharded:
        file.write_bytes(data + bytes(20))
        reindex(file, [(0, len(data))])
    grown, error = peak_bytes(store, "r = open_store(path).split('train').rows(); r.read(0, 17)")
    assert grown < ROOM, grown
    assert error.startswith("StoreFormatError"), error
    assert not verify(store).ok


def rewrite_array(file: Path, **values: Any) -> None:
    document = json.loads(file.read_text())
    document.update(values)
    file.write_text(json.dumps(seal(document)))


def grid(shape: list[int]) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def sharding(chunk: list[int], codecs: list[Any], **more: Any) -> dict[str, Any]:
    index = [BYTES, {"name": "crc32c"}]
    configuration = {"chunk_shape": chunk, "codecs": codecs, "index_codecs": index, "index_location": "end"}
    return {"name": "sharding_indexed", "configuration": {**configuration, **more}}


@pytest.mark.parametrize(
    "values",
    [
        {"storage_transformers": [{"name": "cache"}]},
        {"codecs": [BYTES, {"name": "pickle"}]},
        {"codecs": [BYTES, {"name": "numcodecs.pickle"}]},
        {"codecs": [BYTES, {"name": "x" * 10_000}]},
        {"codecs": []},
        {"codecs": "bytes"},
        {"codecs": [BYTES] * 1000},
        {"codecs": [{"name": ["bytes"]}]},
        {"codecs": [{"name": "bytes", "configuration": 3}]},
        {
            "codecs": [BYTES, {"name": "zstd"}],
            "chunk_grid": grid([1 << 40, 5]),
        },
        {"codecs": [BYTES], "chunk_grid": grid([0, 5])},
        {"codecs": [BYTES], "chunk_grid": grid([20])},
        {"codecs": [BYTES], "chunk_grid": {"name": "irregular", "configuration": {}}},
        {"codecs": [BYTES], "chunk_grid": []},
        {"codecs": [BYTES], "chunk_grid": grid([1 << 20, 5])},
        {
            "codecs": [sharding([1, 1], [BYTES])],
            "chunk_grid": grid([1 << 30, 5]),
        },
        {"codecs": [sharding([8, 5], [sharding([4, 5], [sharding([2, 5], [sharding([1, 5], [BYTES])])])])]},
        {"codecs": [sharding([3, 5], [BYTES])]},
        {"codecs": [sharding([8, 5], [BYTES], index_codecs=[BYTES, {"name": "zstd"}])]},
        {"codecs": [sharding([8, 5], [BYTES], index_location="middle")]},
        {"codecs": [sharding([8, 5], [BYTES], index_location="start")]},
        {"fill_value": "NaN", "codecs": [sharding([2, 5], [BYTES])]},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "../"}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}},
        {"data_type": "float64"},
        {"data_type": {"name": "float16"}},
        {"shape": [20, 5, 1]},
        {"node_type": "group"},
        {"zarr_format": 2, "codecs": [BYTES]},
    ],
)
def test_hostile_array_documents(store: Path, values: dict[str, Any]) -> None:
    rewrite_array(store / "train" / "embeddings" / GROUP_FILE, **values)
    with pytest.raises(StoreFormatError) as caught:
        open_store(store).split("train").rows().read(0, 17)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert not verify(store).ok


def test_sharding_in_sharding_is_the_same_rows_or_refused(store: Path) -> None:
    expected = open_store(store).split("train").rows(normalize=False).read(0, 17)
    array = store / "train" / "embeddings"
    values = np.asarray(zarr.open_array(array, mode="r")[...])
    shutil.rmtree(array / "c")
    rewrite_array(array / GROUP_FILE, codecs=[sharding([8, 5], [sharding([4, 5], [BYTES])])])
    with np.errstate(all="ignore"):
        made = zarr.open_array(array, mode="r+", config={"write_empty_chunks": True})
        made[...] = values
    try:
        found = open_store(store).split("train").rows(normalize=False).read(0, 17)
    except StoreFormatError:
        return
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["embeddings", "labels", "status"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_missing_chunk_is_never_zeros(store: Path, name: str, sharded: bool) -> None:
    """Whatever the layout: a lost file, or a chunk that the index calls absent."""
    width = (5,) if name == "embeddings" else ()
    layout = {"chunks": (2, *width), "shards": (4, *width)} if sharded else {"chunks": (4, *width)}
    file = recompress(store / "train" / name, compressors=ZstdCodec(), **layout)
    if sharded:
        index = file.read_bytes()[-36:]
        reindex(file, [struct.unpack("<QQ", index[:16]), (2**64 - 1, 2**64 - 1)])  # type: ignore[list-item]
    else:
        file.unlink()
    with pytest.raises(StoreFormatError, match=r"chunk of .* is missing"):
        everything_raises(store)


def everything_raises(path: Path) -> None:
    split = open_store(path).split("train")
    split.rows().read(0, 17)


# parts


def write_part(store: Path, table: Any, **options: Any) -> Path:
    file = store / "train" / "rows" / "part-00000.parquet"
    pq.write_table(table, file, **options)
    return file


def part_table(n: int = 8, **changes: Any) -> Any:
    columns_: dict[str, Any] = {
        "key": pa.array([str(i) for i in range(n)]),
        "label": pa.array([0] * n, pa.int64()),
        "status": pa.array([0] * n, pa.uint8()),
        "error": pa.array([None] * n, pa.string()),
    }
    columns_.update(changes)
    return pa.table({name: column for name, column in columns_.items() if column is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"key": None},
        {"key": pa.array(range(8))},
        {"key": pa.array([None] * 8, pa.string())},
        {"key": pa.array([b"\xff"] * 8)},
        {"key": pa.array([["a"]] * 8)},
        {"key": pa.array([{"a": "b"}] * 8)},
        {"key": pa.array(["a"] * 7 + [None])},
        {"error": pa.array(range(8))},
        {"label": pa.array([1.5] * 8)},
        {"status": pa.array([0] * 8, pa.int64())},
    ],
)
def test_parts_of_other_columns(store: Path, changes: dict[str, Any]) -> None:
    write_part(store, part_table(**changes))
    split = open_store(store).split("train")
    with pytest.raises(StoreFormatError, match=r"part-00000.parquet"):
        split.table(range(20), ["key", "label", "status", "error"])
    assert not verify(store).ok


@pytest.mark.parametrize("n", [0, 7, 9, 1_000_000])
def test_parts_of_other_lengths(store: Path, n: int) -> None:
    write_part(store, part_table(n))
    with pytest.raises(StoreFormatError, match=f"must have 8 rows, found {n}"):
        open_store(store).split("train").keys([0])


def test_parts_by_other_writers_are_read(store: Path) -> None:
    """Row groups, encodings and compressors of another writer's choice; large strings; a dictionary."""
    expected = [str(i) for i in range(8)]
    for options in (
        {"row_group_size": 3},
        {"compression": "gzip"},
        {"compression": "none", "use_dictionary": False},
        {"data_page_version": "2.0", "write_page_index": True},
        {"use_dictionary": False, "column_encoding": {"key": "DELTA_LENGTH_BYTE_ARRAY"}},
        {"data_page_size": 1, "write_batch_size": 1, "dictionary_pagesize_limit": 1},
    ):
        write_part(store, part_table(), **options)
        assert open_store(store).split("train").keys(range(8)) == expected, options
    for key in (pa.array(expected, pa.large_string()), pa.array(expected).dictionary_encode()):
        write_part(store, part_table(key=key))
        assert open_store(store).split("train").keys(range(8)) == expected
    assert open_store(store).split("train").keys([0, 9])[0] == "0"


@pytest.mark.parametrize(
    "what", ["long values", "one long value", "again and again", "changes", "many in a list"]
)
def test_a_part_that_unfolds(store: Path, what: str) -> None:
    """Each is far below a megabyte, and would take gigabytes."""
    options: dict[str, Any] = {"compression": "zstd"}
    column, extra = "key", {}
    long = "x" * (2 * MIB)
    if what == "long values":
        table = part_table(key=pa.array(["x" * (30 * MIB)] * 8))
        options["use_dictionary"] = False
    elif what == "one long value":
        table = part_table(key=pa.array([*("a" * 7), "x" * (240 * MIB)]))
    elif what == "again and again":
        claims_rows(store, 1024)
        indices = pa.array([0] * 1024, pa.int32())
        table = part_table(1024, key=pa.DictionaryArray.from_arrays(indices, pa.array([long])))
    elif what == "changes":
        claims_rows(store, 256)
        table = part_table(256, key=pa.array([long] * 256))
        options |= {"use_dictionary": False, "column_encoding": {"key": "DELTA_BYTE_ARRAY"}}
    else:
        column = "ids"
        lists = pa.array([np.zeros(8 * MIB, np.int64)] * 8, pa.list_(pa.int64()))
        extra = {"ids": lists}
        table = part_table(**extra)
    file = write_part(store, table, **options)
    del table
    assert file.stat().st_size < 2 * MIB
    grown, error = peak_bytes(
        store, f"open_store(path).split('train', allow_incomplete=True).table([0], ['{column}'])"
    )
    assert grown < ROOM, grown
    assert error.startswith("StoreFormatError"), error


def claims_rows(store: Path, n_rows: int) -> None:
    """Make one shard of the split so long; only its part is looked at."""
    commits = store / "train" / "commits"
    record = json.loads((commits / "00000.json").read_text())
    for file in commits.iterdir():
        file.unlink()
    (commits / "00000.json").write_text(json.dumps(seal({**record, "stop": n_rows})))
    claims(store, n_rows, rows_per_shard=n_rows)


def test_a_schema_nested_beyond_the_stack(store: Path) -> None:
    """Named, not a crash of the process: Thrift lists of more than 4,096 items are refused."""
    kind: Any = pa.int64()
    for _ in range(5000):
        kind = pa.struct({"a": kind})
    try:
        write_part(store, part_table(x=pa.nulls(8, kind)))
    except (pa.ArrowException, RecursionError):
        pytest.skip("pyarrow writes no such schema")
    grown, error = peak_bytes(store, "open_store(path).split('train').keys([0])")
    assert grown < ROOM
    assert error.startswith("StoreFormatError")


def test_any_damaged_byte_of_a_part_is_named_or_harmless(store: Path) -> None:
    """In another process, since it must not crash: 700 damaged parts."""
    program = (
        "import random, sys\nfrom pathlib import Path\nfrom ltstore.store import open_store\n"
        "from ltstore.errors import LtstoreError\n"
        "store = Path(sys.argv[1]); file = store / 'train/rows/part-00000.parquet'\n"
        "whole = file.read_bytes(); rng = random.Random(5); split = open_store(store).split('train')\n"
        "for _ in range(700):\n"
        "    data = bytearray(whole)\n"
        "    for _ in range(rng.randint(1, 4)):\n"
        "        data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])\n"
        "    if rng.random() < 0.2: del data[rng.randrange(len(data)):]\n"
        "    file.write_bytes(data)\n"
        "    try: split.table([0, 5], ['key', 'label', 'status', 'error'])\n"
        "    except LtstoreError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(store)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


# links, names


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "train/commits",
        "train/rows",
        "train/labels",
        "train/labels/c",
        "train/embeddings/c/0",
        "train/subsets",
        "synthetic",
    ],
)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store = new_store(tmp_path / "s")
    begin(store, 20).close()  # the directories of "train"
    place = store.path / name
    if place.is_dir():
        shutil.copytree(place, outside, dirs_exist_ok=True)
        shutil.rmtree(place)
    place.parent.mkdir(exist_ok=True, parents=True)
    place.symlink_to(outside)
    before = tree(outside)
    with pytest.raises(StoreWriteError, match="is a symbolic link") as caught:
        with begin(store, 20) as writer:
            write_pending(writer)
            writer.finish().add_subset("cut", [0], settings={})
        store.begin_split("made", n_rows=1, source_digest="", synthetic=True)
    assert str(place) in str(caught.value)
    assert tree(outside) == before


@pytest.mark.parametrize("kind", ["stats", "indexes", "stats/train", "indexes/train"])
def test_no_artefact_is_written_through_a_link(tmp_path: Path, kind: str) -> None:
    from ltstore.workflow import build_store_index
    from ltstore.workflow.selection import select

    store = made_store(tmp_path / "s", 60)
    (tmp_path / "outside").mkdir()
    (store.path / kind).parent.mkdir(exist_ok=True)
    (store.path / kind).symlink_to(tmp_path / "outside")
    if kind.startswith("stats"):
        assert select(store.path, "train").moments().counts.sum() > 0  # made, and not kept
    else:
        with pytest.raises(StoreWriteError, match="is a symbolic link"):
            build_store_index(store.path)
    assert tree(tmp_path / "outside") == {}


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    made_store(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    open_store(tmp_path / "link").split("train").add_subset("cut", [0], settings={})
    assert open_store(tmp_path / "real").split("train").subset("cut").tolist() == [0]


@pytest.mark.parametrize("target", ["file", "pipe"])
def test_a_lock_that_is_a_link_or_a_pipe(tmp_path: Path, target: str) -> None:
    store = new_store(tmp_path / "s")
    (store.path / "train").mkdir()
    lock = store.path / "train" / ".lock"
    if target == "file":
        (tmp_path / "precious").write_text("precious")
        lock.symlink_to(tmp_path / "precious")
    else:
        os.mkfifo(lock)
    with pytest.raises(StoreWriteError, match=r"\.lock"):
        begin(store, 20)
    if target == "file":
        assert (tmp_path / "precious").read_text() == "precious"


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    (tmp_path / "precious").write_text("precious")
    begin(store, 20).close()
    links = ["rows/part-00000.parquet", "labels/c/0", "commits/00001.json"]
    for link in links[:2]:
        (store.path / "train" / link).symlink_to(tmp_path / "precious")
    with begin(store, 20) as writer:
        write_pending(writer)
        writer.finish()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not any((store.path / "train" / link).is_symlink() for link in links)
    assert verify(store.path).ok


NAMES = ["..", ".", "a/b", "/a", "a\\b", "a\0b", "a\nb", "\u202eab", "a b", "x" * 201, "é" * 101, "e\u0301", ".a", "-a",
         "a.tmp", "zarr.json", "", "stats", "CON:", "a\u200bb"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_other_paths(tmp_path: Path, name: str) -> None:
    store = made_store(tmp_path / "s")
    before = tree(tmp_path)
    for act in (
        lambda: store.split(name),
        lambda: store.begin_split(name, n_rows=1, source_digest=""),
        lambda: store.begin_split(name, n_rows=1, source_digest="", synthetic=True),
        lambda: store.synthetic(name),
        lambda: store.artefact_path("stats", name),
        lambda: store.split("train").subset(name),
        lambda: store.split("train").add_subset(name, [0], settings={}),
    ):
        if name == "stats" and act is not None:
            continue
        with pytest.raises(ConfigError) as caught:
            act()
        assert "\n" not in str(caught.value)
        assert "\u202e" not in str(caught.value)
    assert tree(tmp_path) == before


def test_directories_of_names_that_no_split_has(store: Path) -> None:
    for name in ("a\nb", "\u202eab", "a b", "-x"):
        shutil.copytree(store / "train", store / name)
        shutil.copytree(store / "train" / "subsets" / "cut", store / "train" / "subsets" / name)
    assert open_store(store).splits == ("train",)
    assert open_store(store).split("train").subsets == ("cut",)
    assert "damaged" not in store_info(store)["splits"]["train"]
    report = verify(store)
    assert len([problem for problem in report.problems if not problem.array]) == 4
    for problem in report.problems:
        assert (problem.split + problem.array + problem.message).isprintable()


# files that change under a reader


def test_a_file_cut_short_while_it_is_open(chunked: Path) -> None:
    """Named by the next read: a mapped page beyond the end would kill the process."""
    split = open_store(chunked).split("train")
    rows = split.rows()
    first = rows.read(0, 10)
    file = chunked / "train" / "embeddings" / "c" / "0" / "0"
    whole = file.read_bytes()
    os.truncate(file, 4096)
    for read in (lambda: rows.read(3000, 3400), lambda: rows.take(np.array([3300]))):
        with pytest.raises(StoreFormatError, match="0/0"):
            read()
    file.write_bytes(whole)
    assert np.array_equal(rows.read(0, 10), first)


def test_text_that_is_no_text_any_more_is_named(store: Path) -> None:
    """A flipped byte in an uncompressed page of keys: Parquet has no checksum that would tell."""
    import pyarrow.parquet as pq

    part = store / "train" / "rows" / "part-00000.parquet"
    pq.write_table(pq.read_table(part), part, compression="none", use_dictionary=False, write_statistics=False)
    data = part.read_bytes()
    at = data.index(b"image/")
    part.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(StoreFormatError, match="part-00000"):
        open_store(store).split("train").keys([0])
    assert not verify(store).ok
