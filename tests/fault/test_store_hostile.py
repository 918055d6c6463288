"""Stores made to do harm: a named error in a moment, without the memory or the writes that they ask for."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
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
    IncompleteStoreError,
    LtstoreError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.store import open_store, store_info, verify
from ltstore.store.format import GROUP_FILE, read_json, seal
from support.stores import begin, columns, embeddings, made_store, new_store, tree, write_pending

MIB = 1 << 20
ROOM = 400 * MIB  # what hostile stores may cost at most: far below what they claim


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
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def peak_bytes(path: Path, what: str) -> tuple[int, str]:
    """Do `what` with `path` in a process of its own; return how far its memory grew, and what it raised."""
    program = (
        "import sys, resource, numpy, pyarrow.parquet, zarr, logging\n"
        "from pathlib import Path\n"
        "from ltstore.errors import LtstoreError\n"
        "from ltstore.store import open_store, verify, store_info, zarr_arrays\n"
        "from ltstore.transfer import adopt\n"
        "logging.disable()\n"
        "path = Path(sys.argv[1])\n"
        "hwm = lambda: next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) << 10\n"
        "before = hwm()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "try:\n"
        f"    {what}\n"
        "except LtstoreError as err: error = f'{type(err).__name__}: {err}'\n"
        "else: error = ''\n"
        "print(hwm() - before, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    grown, _, error = done.stdout.strip().partition(" ")
    return int(grown), error


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
def test_json_that_two_readers_may_take_for_two_things(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StoreFormatError, match=message) as caught:
        read_json(file)
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
