"""A store in an object store: the same commit protocol, and what happens when the service fails."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ltstore.errors import (
    ChecksumMismatchError,
    LtstoreError,
    StoreBusyError,
    StoreExistsError,
    StoreFormatError,
    StoreNotFoundError,
    StoreReadError,
    StoreWriteError,
)
from ltstore.storage import Location, lease, write_json
from ltstore.store import create_store, is_store, open_or_create_store, open_store, store_info, verify
from ltstore.store.format import GROUP_FILE
from support import memory
from support.memory import in_memory
from support.object_server import CREDENTIALS, ObjectServer, Request
from support.power import Killed, killed_at
from support.stores import CLASS_NAMES, begin, columns, embeddings, identity, made_store, tree, write_pending

N_ROWS = 24


def made(location: Location, n_rows: int = N_ROWS, rows_per_shard: int = 8) -> None:
    """What a user's command does, first time or again."""
    store = open_or_create_store(location, encoder=identity(), class_names=CLASS_NAMES)
    with begin(store, n_rows, rows_per_shard) as writer:
        write_pending(writer)
        split = writer.finish()
    split.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})


def objects(location: Location) -> dict[str, bytes]:
    """Every object's bytes; commit records without what differs between equal runs."""
    found = memory.objects(location)
    for name, data in found.items():
        if "/commits/" in name:
            record = json.loads(data)
            del record["timings"], record["sha256"]
            found[name] = json.dumps(record).encode()
    return found


@pytest.fixture
def place(server: ObjectServer) -> Location:
    return server.location(f"{secrets.token_hex(5)}.zarr")


def test_the_same_bytes_as_on_a_disk(place: Location, tmp_path: Path) -> None:
    made(place)
    store = made_store(tmp_path / "s", N_ROWS)
    store.split("train").add_subset("cut", [0, 2, 11], settings={"rule": "exp"})
    assert objects(place) == tree(tmp_path / "s")


def test_reading(place: Location) -> None:
    made(place, 5000, 2048)
    store = open_store(place)
    assert is_store(place)
    assert store.splits == ("train",)
    assert str(place) in repr(store)
    split = store.split("train")
    expected = embeddings(5000).astype(np.float16).astype(np.float32)
    ok = split.status == 0
    rows = split.rows(normalize=False)
    ids = np.flatnonzero(ok)
    rng = np.random.default_rng(0)
    for _ in range(5):
        start, stop = sorted(rng.integers(0, len(ids) + 1, 2))
        np.testing.assert_array_equal(rows.read(start, stop), expected[ids[start:stop]])
        positions = rng.integers(0, len(ids), 40)
        np.testing.assert_array_equal(rows.take(positions), expected[ids[positions]])
    np.testing.assert_array_equal(split.labels, columns(5000, 0, 5000)["labels"])
    out = np.empty((3000, 5), np.float16)
    split.embeddings.read(1000, 4000, out)
    chunks = list(split.embeddings.iter_chunks(1000, 4000))
    np.testing.assert_array_equal(np.concatenate([X for _, X in chunks]), out)
    assert split.keys([4999, 0]) == ["image/4999-é.jpg", "image/0000-é.jpg"]
    assert split.subsets == ("cut",)
    assert split.subset("cut").tolist() == [0, 2, 11]
    again = pickle.loads(pickle.dumps(rows))  # noqa: S301 - as worker processes get it
    np.testing.assert_array_equal(again.read(0, 10), rows.read(0, 10))
    report = verify(place)
    assert report.ok, report.problems
    assert report.n_shards == 3
    facts = store_info(place)
    assert facts["path"] == str(place)
    assert facts["splits"]["train"]["complete"]


def test_a_chunk_is_fetched_once(place: Location, server: ObjectServer) -> None:
    made(place, 5000, 2048)
    rows = open_store(place).split("train").rows()
    rows.read(0, 10)
    before = len(server.requests)
    for start in range(0, 800, 100):  # all of the first chunk
        rows.read(start, start + 100)
    assert len(server.requests) == before
    rows.read(0, rows.n_samples)
    assert len(server.requests) - before < 12


def test_what_is_not_there(place: Location) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no store at s3://bucket/"):
        open_store(place)
    (place / "x").write([b"1"])
    with pytest.raises(StoreFormatError, match="is not a store"):
        open_store(place)
    with pytest.raises(StoreExistsError, match="is not empty"):
        create_store(place, encoder=identity(), class_names=CLASS_NAMES)


def test_a_missing_bucket_and_wrong_credentials_are_one_line(server: ObjectServer) -> None:
    from ltstore.storage import open_location

    options = {**CREDENTIALS, "endpoint": server.endpoint}
    nowhere = open_location("s3://no-such-bucket/s.zarr", options)
    for call in (
        lambda: create_store(nowhere, encoder=identity(), class_names=["a"]),
        lambda: open_store(nowhere),
    ):
        with pytest.raises(LtstoreError) as caught:
            call()
        assert "s3://no-such-bucket/s.zarr" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damage_is_found_and_located(place: Location) -> None:
    made(place, 5000, 2048)
    shard = place / "train" / "embeddings" / "c" / "1" / "0"
    data = bytearray(shard.read())
    data[1024 * 5 * 2 + 4 + 100] ^= 1  # the second chunk
    shard.write([bytes(data)])
    (problem,) = verify(place).problems
    assert (problem.array, problem.shard, problem.chunk, problem.rows) == ("embeddings", 1, 1, (3072, 4096))
    split = open_store(place).split("train")
    split.embeddings.read(2048, 3072, np.empty((1024, 5), np.float16))
    with pytest.raises(ChecksumMismatchError, match=r"chunk 1 of s3://bucket/.*run verify"):
        split.embeddings.read(3072, 3073, np.empty((1, 5), np.float16))
    shard.remove()
    with pytest.raises(StoreFormatError, match="is missing though its shard was written"):
        open_store(place).split("train").embeddings.read(3072, 3073, np.empty((1, 5), np.float16))


def test_a_compressed_array_is_read_through_zarr(place: Location, tmp_path: Path) -> None:
    made(place, 3000, 2048)
    raw = tmp_path / "raw"
    values = embeddings(3000).astype(np.float16)
    array = zarr.create_array(raw, shape=values.shape, chunks=(700, 5), shards=(1400, 5), dtype="float16")
    array[:] = values
    directory = place / "train" / "embeddings"
    (directory / GROUP_FILE).remove()
    for file in sorted(raw.rglob("*")):
        if file.is_file():
            at = directory
            for part in file.relative_to(raw).parts:
                at = at / part
            at.write([file.read_bytes()])
    embedded = open_store(place).split("train").embeddings
    out = np.empty((900, 5), np.float16)
    embedded.read(600, 1500, out)
    np.testing.assert_array_equal(out, values[600:1500])
    embedded.take(np.array([2999, 0, 5]), out[:3])
    np.testing.assert_array_equal(out[:3], values[[2999, 0, 5]])


# -- a service that fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "503", "cut", "reset", "lost"])
def test_passing_faults_are_not_noticed(
    place: Location, server: ObjectServer, kind: str, tmp_path: Path
) -> None:
    luck = random.Random(kind)
    server.fault = lambda _: kind if luck.random() < 0.15 else ""
    made(place, 3000, 1024)
    split = open_store(place).split("train")
    rows = split.rows(normalize=False)
    X = rows.read(0, rows.n_samples)
    keys = split.keys(range(3000))
    report = verify(place)
    server.reset()
    assert report.ok, report.problems
    store = made_store(tmp_path / "s", 3000, 1024)
    local = store.split("train")
    local.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})
    np.testing.assert_array_equal(X, local.rows(normalize=False).read(0, len(X)))
    assert keys == local.keys(range(3000))
    assert objects(place) == tree(tmp_path / "s")


def test_a_hanging_service_is_left_and_asked_again(place: Location, server: ObjectServer) -> None:
    made(place)
    hangs = itertools.cycle([True, False, False, False, False])
    server.fault = lambda _: "hang" if next(hangs) else ""
    split = open_store(place).split("train")
    assert len(split.rows().read(0, 3)) == 3


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_a_service_that_stays_down_is_named(place: Location, server: ObjectServer, kind: str) -> None:
    made(place)
    rows = open_store(place).split("train").rows()
    server.fault = lambda request: kind if request.method in ("GET", "PUT") else ""
    with pytest.raises(StoreReadError, match=r"cannot read s3://bucket/") as read:
        rows.read(0, 3)
    with pytest.raises(StoreReadError) as opened:
        open_store(place)
    for caught in (read, opened):
        assert "\n" not in str(caught.value)
    if kind == "500":
        with pytest.raises(StoreWriteError, match=r"cannot (write|lock) s3://bucket/") as written:
            open_store_quietly(place, server).begin_split("more", n_rows=3, source_digest="")
        assert "\n" not in str(written.value)


def open_store_quietly(place: Location, server: ObjectServer) -> Any:
    fault, server.fault = server.fault, lambda _: ""
    store = open_store(place)
    server.fault = fault
    return store


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_every_write_then_resume(torn: bool) -> None:
    whole = in_memory()
    with pytest.MonkeyPatch.context() as patch:
        calls = killed_at(whole, 1 << 30, patch, torn)
        next(calls)
        made(whole)
        n_calls = next(calls)
    expected = objects(whole)
    assert n_calls > 25
    for budget in range(n_calls - 1):
        place = in_memory()
        with pytest.MonkeyPatch.context() as patch:
            next(killed_at(place, budget, patch, torn))
            with pytest.raises(Killed):
                made(place)
        lease._held.clear()  # the process is gone
        if is_store(place):
            assert verify(place).ok, (budget, verify(place).problems)
            for name in open_store(place).splits:
                split = open_store(place).split(name, allow_incomplete=True)
                for commit in split.commits:
                    assert len(split.keys(range(commit.start, commit.stop))) == commit.stop - commit.start
        made(place)
        assert objects(place) == expected, budget


# -- two writers ------------------------------------------------------------------------------------------

WRITER = """
import sys, time
from support.stores import begin
from ltstore.store import open_store
writer = begin(open_store(sys.argv[1]), 24, 8)
print("begun", flush=True)
time.sleep(60)
"""


FILLER = """
import sys
from support.stores import begin, write_pending
from ltstore.store import open_store
writer = begin(open_store(sys.argv[1]), 24, 8)
print("begun", flush=True)
write_pending(writer)
"""


def start_writer(place: Location, server: ObjectServer, program: str = WRITER) -> subprocess.Popen[str]:
    support = Path(__file__).parents[1]
    environment = {
        **os.environ,
        **server.environment,
        "PYTHONPATH": os.pathsep.join([str(support), str(support.parent)]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_kill_9_at_random_moments(place: Location, server: ObjectServer, tmp_path: Path) -> None:
    create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    moments = random.Random(5)
    for _ in range(4):
        process = start_writer(place, server, FILLER)
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        report = verify(place)
        assert report.ok, report.problems
    made(place)
    store = made_store(tmp_path / "s", N_ROWS)
    store.split("train").add_subset("cut", [0, 2, 11], settings={"rule": "exp"})
    assert objects(place) == tree(tmp_path / "s")


def test_a_second_writer_is_refused_until_the_first_is_dead(place: Location, server: ObjectServer) -> None:
    create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    process = start_writer(place, server)
    try:
        with pytest.raises(StoreBusyError, match=f"written by process {process.pid} on .* since "):
            begin(open_store(place), N_ROWS)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    made(place)  # at once: the process was of this machine
    assert verify(place).ok


def test_the_lease_of_a_dead_machine_ends(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    store = create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    holder = {"pid": 1, "host": "elsewhere", "since": "then", "renewed": lease._now(), "nonce": "n"}
    write_json(place / "train" / ".lock", holder)
    with pytest.raises(StoreBusyError, match="process 1 on elsewhere since then"):
        begin(store, N_ROWS)
    time.sleep(1.1)
    began = time.monotonic()
    begin(store, N_ROWS).close()
    assert time.monotonic() - began >= 1.0  # watched for a whole lease by this machine's own clock


def test_clocks_that_differ_do_not_break_a_living_lease(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_now", lambda: "2001-01-01T00:00:00+00:00")
    store = create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    with begin(store, N_ROWS) as writer:
        with pytest.raises(StoreBusyError):
            begin(store, N_ROWS)
        assert writer._lock.held


def test_a_writer_that_lost_its_lease_commits_nothing(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    store = create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    writer = begin(store, N_ROWS)
    write_json(place / "train" / ".lock", {"pid": 1, "host": "elsewhere", "nonce": "another"})
    deadline = time.monotonic() + 10
    while writer._lock.held and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(StoreWriteError, match="has lost its lock"):
        write_pending(writer)
    assert store.split("train", allow_incomplete=True).commits == ()
    writer.close()
    assert (place / "train" / ".lock").exists()  # it is the other's


def test_a_renewal_whose_answer_was_lost_is_no_loss(place: Location, server: ObjectServer) -> None:
    store = create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    with begin(store, N_ROWS) as writer:
        lost = iter(["lost"])

        def fault(request: Request) -> str:
            return next(lost, "") if request.method == "PUT" else ""

        server.fault = fault
        writer._lock.renew()  # type: ignore[attr-defined]
        assert writer._lock.held
        writer._lock.renew()  # type: ignore[attr-defined]
        assert writer._lock.held
        write_pending(writer)
        writer.finish()
