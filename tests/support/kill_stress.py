"""Kill a writer at random moments, resume it, and compare with a run that was never killed.

    PYTHONPATH=tests python -m support.kill_stress --rounds 1000 --seed 1

Each round draws a store (rows, features, shards, dtype, threads, extra columns, a subset, a synthetic split)
from (seed, round), writes it once without interruption, then writes it again elsewhere while killing it:
SIGKILL at a random moment, two writers at once, a full disk or a failing one at a random call. After each the
store must verify, commit records may only grow, and what is committed must be the right rows. In the end the
store is byte for byte the uninterrupted one. Every run is a fork of this process, which does no I/O itself.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import google_crc32c  # noqa: F401 - the forks find every import done
import numpy as np
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import zarr.storage  # noqa: F401

from ltstore.errors import StoreBusyError, StoreExistsError, StoreWriteError
from ltstore.store import Split, Store, create_store, is_store, open_store, verify
from ltstore.store import zarr_arrays as _zarr_arrays  # noqa: F401
from ltstore.types import RowStatus
from support.stores import CLASS_NAMES, identity, tree

BUSY, REFUSED = 3, 4
CALLS = ("fsync", "replace", "rename", "mkdir", "link")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One store to write, drawn from the seed and the round."""

    n_rows: int
    n_features: int
    rows_per_shard: int | str
    dtype: str
    n_threads: int
    extra: bool
    subset: bool
    synthetic_rows: int
    order: int

    @classmethod
    def draw(cls, rng: random.Random) -> Case:
        n_rows = rng.choice([0, 1, rng.randint(1, 40), rng.randint(1, 300), rng.randint(1, 300), 3000])
        per_shard = rng.choice([1, 3, 8, 8, 32, 100, 1024, "auto"]) if n_rows < 400 else rng.choice([512, 1024])
        if isinstance(per_shard, int):
            per_shard = max(per_shard, -(-n_rows // 24))  # at most 24 shards, to keep a round short
            per_shard = per_shard if per_shard <= 1024 else 1024
        return cls(
            n_rows=n_rows,
            n_features=rng.randint(1, 9),
            rows_per_shard=per_shard,
            dtype=rng.choice(["float16", "float32"]),
            n_threads=rng.choice([1, 1, 2, 4]),
            extra=rng.random() < 0.3,
            subset=rng.random() < 0.4,
            synthetic_rows=rng.choice([0, 0, 0, 5]),
            order=rng.randint(0, 1 << 30),
        )

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Row r is a function of r alone, and no two rows are alike."""
        ids = np.arange(start, stop, dtype=np.float32)[:, None] + 1
        return (ids / (2 + np.arange(self.n_features, dtype=np.float32))).astype(self.dtype).astype(np.float32)

    def status(self, start: int, stop: int) -> np.ndarray:
        ids = np.arange(start, stop)
        return np.where(ids % 7 == 3, RowStatus.CORRUPT, RowStatus.OK).astype(np.uint8)

    def labels(self, start: int, stop: int) -> np.ndarray:
        ids = np.arange(start, stop)
        return np.where(ids % 5 == 4, -1, (ids * 7) % len(CLASS_NAMES))

    def keys(self, start: int, stop: int) -> list[str]:
        return [f"image/{row:05d}-é.jpg" for row in range(start, stop)]


def write(case: Case, path: Path, order: int) -> None:
    """What a user's command does, first time or again; the order of shards differs from run to run."""
    try:
        store = open_store(path) if is_store(path) else _create(case, path)
    except StoreExistsError:  # the other writer was first
        store = open_store(path)
    _write_split(case, store, case.n_rows, False, order)
    if case.synthetic_rows:
        _write_split(case, store, case.synthetic_rows, True, order)


def _create(case: Case, path: Path) -> Store:
    return create_store(path, encoder=identity(case.n_features), class_names=CLASS_NAMES)


def _write_split(case: Case, store: Store, n_rows: int, synthetic: bool, order: int) -> None:
    with store.begin_split(
        "made" if synthetic else "train",
        n_rows=n_rows,
        source_digest="sha256:stress",
        dtype=case.dtype,
        rows_per_shard=case.rows_per_shard,
        settings={"order": case.order},
        synthetic=synthetic,
    ) as writer:
        pending = list(writer.pending)
        random.Random(order).shuffle(pending)

        def one(shard: int) -> None:
            start, stop = writer.plan.shard_range(shard)
            status = case.status(start, stop)
            writer.write_shard(
                shard,
                embeddings=case.rows(start, stop),
                labels=case.labels(start, stop),
                status=status,
                keys=case.keys(start, stop),
                errors=["cut short" if bad else None for bad in status],
                extra={"parent_ids": np.arange(2 * start, 2 * stop).reshape(-1, 2)} if case.extra else None,
            )

        if case.n_threads == 1:
            for shard in pending:
                one(shard)
        else:
            with ThreadPoolExecutor(case.n_threads) as pool:
                list(pool.map(one, pending))
        split = writer.finish()
    if case.subset and not synthetic:
        split.add_subset("cut", np.arange(0, n_rows, 3), settings={"rule": "third"})


def check_rows(case: Case, split: Split) -> None:
    """Every committed row is there once, at its place."""
    for commit in split.commits:
        start, stop = commit.start, commit.stop
        status = case.status(start, stop)
        assert split.keys(range(start, stop)) == case.keys(start, stop), commit.shard
        assert np.array_equal(split.labels[start:stop], case.labels(start, stop)), commit.shard
        assert np.array_equal(split.status[start:stop], status), commit.shard
        out = np.empty((stop - start, case.n_features), np.float32)
        split.embeddings.read(start, stop, out)
        expected = case.rows(start, stop)
        expected[status != RowStatus.OK] = 0
        assert np.array_equal(out, expected), commit.shard


def commits_of(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("commits/*.json")
        if not file.name.endswith(".tmp")
    }


def check_partial(case: Case, path: Path) -> None:
    """After a kill: a store, or nothing yet; what is committed is right."""
    if not is_store(path):
        return
    report = verify(path)
    assert report.ok, report.problems
    store = open_store(path)
    for name in store.splits:
        check_rows(case, store.split(name, allow_incomplete=True))
    for name in store.synthetic_names:
        check_rows(case, store.synthetic(name, allow_incomplete=True))


def check_finished(case: Case, path: Path, whole: Path) -> None:
    """Byte for byte the uninterrupted store, and nothing lost, doubled or shifted."""
    found, expected = tree(path), tree(whole)
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    assert found == expected, [name for name in found if found[name] != expected[name]]
    report = verify(path)
    assert report.ok, report.problems
    assert not report.notes, report.notes
    split = open_store(path).split("train")
    assert sum(commit.stop - commit.start for commit in split.commits) == split.n_rows == case.n_rows
    check_rows(case, split)
    if case.subset:
        assert np.array_equal(split.subset("cut"), np.arange(0, case.n_rows, 3))


def inject(number: int, budget: int) -> None:
    """From the `budget`-th call on, every call of this process that changes the disk fails."""
    left = [budget]

    def guard(real: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return guarded

    for name in CALLS:
        setattr(os, name, guard(getattr(os, name)))


def fork(work: Callable[[], None], log: Path) -> int:
    """Run `work` in a fork of this process; return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except StoreBusyError:
        code = BUSY
    except StoreWriteError as err:
        code = REFUSED if "\n" not in str(err) else 1
    except BaseException:  # noqa: BLE001 - told to the parent by the exit code
        log.write_text(traceback.format_exc())
    os._exit(code)


def wait(child: int) -> int:
    """Return the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work: Callable[[], None], log: Path, what: str) -> None:
    code = wait(fork(work, log))
    if code:
        detail = log.read_text() if log.exists() else ""
        raise AssertionError(f"{what}: exit {code}\n{detail}")


def one_round(seed: int, number: int, scratch: Path, counts: Counter[str]) -> None:
    rng = random.Random(f"{seed}/{number}")
    case = Case.draw(rng)
    where = scratch / str(number)
    where.mkdir()
    whole, path, log = where / "whole", where / "store", where / "log"
    began = time.perf_counter()
    run(lambda: write(case, whole, case.order), log, f"round {number} {case}: the uninterrupted run")
    seconds = time.perf_counter() - began
    before: dict[str, bytes] = {}
    for attempt in range(rng.randint(1, 4)):
        order = rng.randint(0, 1 << 30)
        kind = rng.choices(["kill", "two", "error"], [6, 2, 2])[0]
        label = f"round {number}, attempt {attempt} ({kind}) of {case}"
        allowed = {0, -signal.SIGKILL}
        children = []
        if kind == "error":
            number_ = rng.choice([errno.ENOSPC, errno.EIO])
            budget = rng.randint(0, 150)
            allowed.add(REFUSED)

            def failing(number_: int = number_, budget: int = budget, order: int = order) -> None:
                inject(number_, budget)
                write(case, path, order)

            children.append(fork(failing, log))
        else:
            children.append(fork(lambda order=order: write(case, path, order), log))
            if kind == "two":
                allowed.add(BUSY)
                children.append(fork(lambda order=order: write(case, path, order + 1), log))
        if kind != "error":
            time.sleep(rng.uniform(0.0, 1.05) * seconds)
            for child in children[: rng.randint(1, len(children))]:
                os.kill(child, signal.SIGKILL)  # not reaped yet, so still this child
        for child in children:
            code = wait(child)
            if code not in allowed:
                raise AssertionError(f"{label}: exit {code}\n{log.read_text() if log.exists() else ''}")
            counts[
                {0: "finished first", BUSY: "refused as busy", REFUSED: "stopped by an error"}.get(
                    code, "killed"
                )
            ] += 1
        counts["resumed after work was committed"] += bool(before)
        now = commits_of(path)
        lost = [name for name, data in before.items() if now.get(name) != data]
        if lost:
            raise AssertionError(f"{label}: commit records changed or went: {lost}")
        before = now
        run(lambda: check_partial(case, path), log, label)
        counts["stores checked between"] += 1
    run(lambda: write(case, path, case.order + 1), log, f"round {number} {case}: the last run")
    run(lambda: check_finished(case, path, whole), log, f"round {number} {case}: the finished store")
    counts["rounds"] += 1
    counts["rows compared"] += case.n_rows
    counts["shards there before the last run"] += len(before)
    shutil.rmtree(where)


def stress(rounds: int, seed: int, first: int = 0) -> Counter[str]:
    """Run `rounds` rounds from `first` on; AssertionError names the first that fails."""
    counts: Counter[str] = Counter()
    memory = Path("/dev/shm")  # every file is fsynced: a disk would be all that is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        gc.freeze()
        for number in range(first, first + rounds):
            one_round(seed, number, Path(scratch), counts)
    return counts


def main() -> int:
    """Print the counts; exit 1 with the first round that fails."""
    parser = argparse.ArgumentParser(description="Kill and resume writers of stores.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first round, to repeat one")
    arguments = parser.parse_args()
    began = time.perf_counter()
    try:
        counts = stress(arguments.rounds, arguments.seed, arguments.first)
    except AssertionError as err:
        print(f"FAILED: {err}", file=sys.stderr)
        return 1
    for name, count in sorted(counts.items()):
        print(f"{count:>8}  {name}")
    print(f"{time.perf_counter() - began:>8.0f}  seconds")
    print("       0  rows lost, doubled or shifted; every finished store equal to the uninterrupted one")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
