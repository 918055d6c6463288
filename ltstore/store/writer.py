"""Writing a split, shard by shard, so that a killed run leaves whole shards and the same run resumes.

Order within a shard: embeddings, labels, status, rows, and the commit record last; each is written under a
temporary name, fsynced and renamed, and its directory fsynced, before the next begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from ltstore.errors import (
    IncompleteStoreError,
    PlanMismatchError,
    StoreExistsError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.storage import Location, WriterLock, write_json
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    GROUP_FILE,
    CommitRecord,
    RootRecord,
    SplitRecord,
    group_document,
    read_attribute,
)
from ltstore.store.generation import commit_location, commits_digest, read_commits, relink, split_of
from ltstore.store.plan import ShardPlan
from ltstore.store.quarantine import shard_entries
from ltstore.store.shard_writer import ShardWriter
from ltstore.store.split import Split

# Settings that say where things lay, not what they were: a resumed run may find them elsewhere.
PLACES = ("encoder_spec", "source")


class SplitWriter:
    """Writes the shards of one generation of a split, in any order. Made by `Store.begin_split`.

    A context manager: leaving it gives the lock back and finishes nothing by itself. `write_shard` may be
    called from several threads at once, each with a shard of its own.
    """

    def __init__(
        self,
        location: Location,
        root: RootRecord,
        wanted: SplitRecord,
        auto_plan: bool,
        lock: WriterLock,
        finished: Callable[[], Split],
    ) -> None:
        self._location = location
        self._root = root
        self._lock = lock
        self._finished = finished
        location.make_directory()
        self._record = self._begin(wanted, auto_plan)
        self._done = set(read_commits(location, self._record.plan))
        self._shards = ShardWriter(location, self._record, root, shard_entries(location))
        self._guard = threading.Lock()

    def _begin(self, wanted: SplitRecord, auto_plan: bool) -> SplitRecord:
        where = self._location / GROUP_FILE
        if where.exists():
            found = SplitRecord.from_json(read_attribute(where), str(where))
            if auto_plan:  # no opinion: keep the plan the split was begun with
                wanted = replace(wanted, rows_per_shard=found.rows_per_shard, chunk_rows=found.chunk_rows)
            if different := differences(found, wanted):
                raise PlanMismatchError(
                    f"{self._location} was begun with another plan ({'; '.join(different)}): "
                    "run it as it was begun, or write to another split"
                )
            return found
        names = (self._location / "commits").child_names()
        if orphans := [name for name in names if name.endswith(".json")]:
            raise StoreFormatError(
                f"{where} is missing, and {len(orphans)} shards were written under it: restore it from a copy, or move "
                f"{self._location} away and write the split again"
            )
        self._create(wanted)
        return wanted

    def _create(self, record: SplitRecord) -> None:
        """Lay out an empty split; its own zarr.json comes last, so a split exists whole or not at all."""
        directories = [self._location / name for name in (*ARRAYS, "rows", "commits")]
        for directory in (*directories, *(self._location / name / "c" for name in ARRAYS)):
            directory.make_directory()
        for name, document in array_documents(record, self._root.encoder.n_features).items():
            write_json(self._location / name / GROUP_FILE, document)
        for directory in (self._location, self._location.parent):
            directory.sync()
        write_json(self._location / GROUP_FILE, group_document(record.to_json()))

    @property
    def plan(self) -> ShardPlan:
        """Which rows go into which shard."""
        return self._record.plan

    @property
    def location(self) -> Location:
        """Where it writes: the place of a generation of the split."""
        return self._location

    @property
    def pending(self) -> tuple[int, ...]:
        """Shards that are not written yet, ascending."""
        return tuple(shard for shard in range(self.plan.n_shards) if shard not in self._done)

    @property
    def shards(self) -> ShardWriter:
        """What writes the files of shards: may be sent to other processes, and `commit` records what they wrote."""
        return self._shards

    def write_shard(self, shard: int, **columns: Any) -> None:
        """Write one shard and its commit record.

        Parameters
        ----------
        shard : int
            One of `pending`.
        columns
            As in `ShardWriter.write`.

        Raises
        ------
        DataError
            A column has the wrong length or type. LabelError for a bad label.
        StoreExistsError
            The shard is written already.
        StoreWriteError
            Disk full, no permission, ...: the shard stays pending, and the same call again may succeed.
        """
        self._check(shard)
        self.commit(self._shards.write(shard, **columns))

    def commit(self, record: CommitRecord) -> None:
        """Record a shard whose files are written: from now on it is part of the split.

        Raises
        ------
        StoreExistsError
            It is recorded already.
        StoreWriteError
            The lock is lost, or the record cannot be written.
        """
        self._check(record.shard)  # a lease can be lost while files are written
        write_json(commit_location(self._location, record.shard), record.to_json())
        with self._guard:
            self._done.add(record.shard)

    def _check(self, shard: int) -> None:
        if not self._lock.held:
            raise StoreWriteError(
                f"the writer of {self._location} is closed, or has lost its lock: begin the split again"
            )
        if shard in self._done:
            raise StoreExistsError(f"shard {shard} of {self._location} is written already")

    def finish(self) -> Split:
        """Mark the split complete and return it; a complete split is returned as it is.

        Raises
        ------
        IncompleteStoreError
            Shards are still pending.
        """
        if pending := self.pending:
            raise IncompleteStoreError(
                f"{len(pending)} of {self.plan.n_shards} shards of {self._location} are not written, first {pending[0]}"
            )
        if self._record.state != COMPLETE:
            commits = read_commits(self._location, self.plan)
            digest = commits_digest(list(commits.values()))
            self._record = replace(self._record, state=COMPLETE, digest=digest)
            write_json(self._location / GROUP_FILE, group_document(self._record.to_json()))
            relink(split_of(self._location))  # rows after it were appended, if this is a repair
        self.close()
        return self._finished()

    def close(self) -> None:
        """Give the lock back; what is written stays, and the split can be resumed."""
        self._lock.release()

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def array_documents(record: SplitRecord, n_features: int) -> dict[str, dict[str, Any]]:
    """Return the zarr.json of each array of a split, sealed."""
    from ltstore.store.zarr_arrays import array_document

    plan = record.plan
    return {
        name: array_document(
            (plan.n_rows, *row_shape),
            dtype,
            (plan.chunk_rows, *row_shape),
            (plan.rows_per_shard, *row_shape),
        )
        for name, dtype, row_shape in (
            ("embeddings", record.dtype, (n_features,)),
            ("labels", "int64", ()),
            ("status", "uint8", ()),
        )
    }


def differences(found: SplitRecord, wanted: SplitRecord, *, plan: bool = True) -> list[str]:
    """Name what differs between the record on disk and the one asked for, settings one by one.

    Where things lay is left out, and without `plan` also how rows were cut into shards.
    """
    left_out = ("state", "digest", "settings", *(() if plan else ("rows_per_shard", "chunk_rows")))
    there, now = (
        {
            **{k: v for k, v in record.to_json().items() if k not in left_out},
            **{f"settings.{k}": v for k, v in record.settings.items() if k not in PLACES},
        }
        for record in (found, wanted)
    )
    return [
        f"{key}: {there.get(key, 'nothing')} there, {now.get(key, 'nothing')} now"
        for key in dict.fromkeys([*there, *now])
        if key not in there or key not in now or there[key] != now[key]
    ]
