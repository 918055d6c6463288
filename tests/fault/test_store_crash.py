"""A run killed at any point leaves whole shards; the same run again gives the same store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ltstore.errors import IncompleteStoreError, StoreBusyError, StoreWriteError
from ltstore.store import create_store, open_store, verify
from ltstore.store.format import GROUP_FILE
from support.power import Killed, Power
from support.stores import (
    CLASS_NAMES,
    begin,
    columns,
    embeddings,
    identity,
    made_store,
    new_store,
    tree,
    write_pending,
)

N_ROWS = 12


def ingest(path: Path) -> None:
    """What a user's command does, first time or again."""
    if (path / GROUP_FILE).exists():
        store = open_store(path)
    else:
        store = create_store(path, encoder=identity(), class_names=CLASS_NAMES)
    with begin(store, N_ROWS) as writer:
        write_pending(writer)
        split = writer.finish()
    split.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})


def count_calls(path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, 1 << 30, Killed)
        ingest(path)
    return power.calls


@pytest.mark.parametrize(
    "error", [Killed, lambda: OSError(28, "No space left on device")], ids=["kill", "full"]
)
def test_a_crash_at_every_write_point_then_resume(tmp_path: Path, error: Callable[[], BaseException]) -> None:
    n_calls = count_calls(tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    assert n_calls > 60
    for budget in range(n_calls - 1):  # the last call removes a lock file, whose failure is no error
        path = tmp_path / f"s{budget}"
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, budget, error)
            with pytest.raises((Killed, StoreWriteError)) as caught:
                ingest(path)
        if isinstance(caught.value, StoreWriteError):
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)
        if (path / GROUP_FILE).exists():
            store = open_store(path)
            assert verify(path).ok, (budget, verify(path).problems)
            for name in store.splits:
                split = store.split(name, allow_incomplete=True)
                for commit in split.commits:
                    split.rows(normalize=False)
                    assert len(split.keys(range(commit.start, commit.stop))) == commit.stop - commit.start
        count_calls(path)
        assert tree(path) == expected, budget


def test_the_power_stub_reaches_the_disk(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Power(patch, 3, Killed)
        with pytest.raises(Killed):
            ingest(tmp_path / "s")
    assert not (tmp_path / "s" / "train" / GROUP_FILE).exists()


WRITER = """
import sys
from pathlib import Path
from support.stores import begin, write_pending
from ltstore.store import open_store
with begin(open_store(Path(sys.argv[1])), 400, 8) as writer:
    print("begun", flush=True)
    write_pending(writer)
    writer.finish()
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    support = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(support), str(support.parent)])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    made_store(tmp_path / "whole", 400)
    new_store(tmp_path / "s")
    moments = random.Random(3)
    n_before = 0
    for _ in range(3):
        process = start_writer(tmp_path / "s")
        time.sleep(moments.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        report = verify(tmp_path / "s")
        assert report.ok, report.problems
        n_now = len(open_store(tmp_path / "s").split("train", allow_incomplete=True).commits)
        assert n_now >= n_before
        n_before = n_now
    with begin(open_store(tmp_path / "s"), 400) as writer:
        write_pending(writer)
        writer.finish()
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    new_store(tmp_path / "s")
    process = start_writer(tmp_path / "s")
    process.send_signal(signal.SIGSTOP)  # it holds the lock and goes nowhere
    try:
        with pytest.raises(StoreBusyError, match=f"process {process.pid} on "):
            begin(open_store(tmp_path / "s"), 400)
    finally:
        process.kill()
        process.communicate()
    begin(open_store(tmp_path / "s"), 400).close()


def test_two_writers_in_one_process(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    with begin(store, N_ROWS):
        with pytest.raises(StoreBusyError, match=f"process {os.getpid()} on "):
            begin(store, N_ROWS)
        with store.begin_split("test", n_rows=4, source_digest="") as other:
            assert other.pending == (0,)
    with begin(store, N_ROWS) as writer:
        write_pending(writer)
        writer.finish()
    assert not (store.path / "train" / ".lock").exists()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    writer = begin(store, N_ROWS)
    reader, signal_end = os.pipe()
    ready, born = os.pipe()
    child = os.fork()
    if child == 0:  # a decode worker that outlives the writer
        os.write(born, b"x")
        os.read(reader, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        os.close(writer._lock._descriptor)  # what the kernel does for a killed writer
        writer._lock._descriptor = -1
        begin(store, N_ROWS).close()
    finally:
        os.write(signal_end, b"x")
        os.waitpid(child, 0)
        for descriptor in (reader, signal_end, ready, born):
            os.close(descriptor)


def test_a_reader_during_the_writing_sees_whole_shards_only(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s")
    with begin(store, N_ROWS) as writer:
        writer.write_shard(1, **columns(N_ROWS, 8, 12))
        half = store.path / "train" / "embeddings" / "c" / "0"
        half.mkdir()
        (half / "0.tmp").write_bytes(b"half a shard")
        with pytest.raises(IncompleteStoreError, match="1 of 2 shards"):
            store.split("train")
        split = store.split("train", allow_incomplete=True)
        assert not split.complete
        rows = split.rows(normalize=False)
        assert rows.row_ids.tolist() == [8, 9, 11]
        expected = embeddings(N_ROWS)[rows.row_ids].astype("float16").astype("float32")
        assert (rows.read(0, 3) == expected).all()
        assert split.status.tolist() == [255] * 8 + [0, 0, 2, 0]
        with pytest.raises(IncompleteStoreError, match="shard 0"):
            split.keys([3])
        with pytest.raises(IncompleteStoreError, match="digest"):
            _ = split.digest
        with pytest.raises(IncompleteStoreError, match="1 of 2 shards"):
            writer.finish()
        write_pending(writer)
        writer.finish()
        assert len(split.rows().row_ids) == 3  # what was opened stays as it was
    assert store.split("train").rows().n_samples == 10
    assert (
        json.loads((store.path / "train" / GROUP_FILE).read_text())["attributes"]["ltstore"]["state"]
        == "complete"
    )
