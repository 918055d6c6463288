"""One split of a store, as a reader sees it: rows, labels, keys, subsets, and the record of its writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import DataError, IncompleteStoreError, StoreFormatError
from ltstore.storage import Location, parallel_map
from ltstore.store import subsets
from ltstore.store.format import (
    COMPLETE,
    FILES,
    GROUP_FILE,
    UNWRITTEN,
    CommitRecord,
    RootRecord,
    SplitRecord,
    digest_of,
    read_attribute,
    read_json,
)
from ltstore.store.parts import read_parts
from ltstore.store.plan import ShardPlan
from ltstore.store.reader import StoredArray, open_array
from ltstore.store.view import RowView
from ltstore.types import UNLABELLED, ByteArray, EncoderIdentity, IntArray, RowStatus


def commit_location(split: Location, shard: int) -> Location:
    """Return where the commit record of a shard lies."""
    return split / "commits" / f"{shard:05d}.json"


def read_commit(split: Location, plan: ShardPlan, shard: int) -> CommitRecord:
    """Return a shard's commit record, checked against the plan; FileNotFoundError where there is none."""
    location = commit_location(split, shard)
    commit = CommitRecord.from_json(read_json(location), str(location))
    start, stop = plan.shard_range(shard)
    if (commit.shard, commit.start, commit.stop) != (shard, start, stop):
        raise StoreFormatError(
            f"{location} must be of shard {shard}, rows [{start}, {stop}), found shard {commit.shard}, "
            f"rows [{commit.start}, {commit.stop}): it belongs to another plan"
        )
    return commit


def read_commits(split: Location, plan: ShardPlan) -> dict[int, CommitRecord]:
    """Return the commit records that are there, by shard."""
    there = set((split / "commits").child_names())
    shards = [shard for shard in range(plan.n_shards) if commit_location(split, shard).name in there]
    commits = parallel_map(split, lambda shard: read_commit(split, plan, shard), shards)
    return dict(zip(shards, commits, strict=True))


def commits_digest(commits: Sequence[CommitRecord]) -> str:
    """Return the digest of a split: of the digests of its files, shard by shard."""
    return digest_of([[commit.files[name]["sha256"] for name in FILES] for commit in commits])


class Split:
    """A split as it was when it was opened. Made by `Store.split` and `Store.synthetic`.

    Notes
    -----
    Labels, status and commit records are read when first asked for. Picklable.
    """

    def __init__(self, location: Location, name: str, root: RootRecord) -> None:
        self._location = location
        self._name = name
        self._root = root
        self._record = SplitRecord.from_json(read_attribute(location / GROUP_FILE), str(location / GROUP_FILE))
        self._plan = self._record.plan
        self.commits  # noqa: B018 - which shards are there is settled at opening

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self._location

    @property
    def path(self) -> Path:
        """Its directory; ConfigError where it lies in an object store."""
        return self._location.path

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._name

    @property
    def record(self) -> SplitRecord:
        """What its zarr.json says."""
        return self._record

    @property
    def n_rows(self) -> int:
        """Rows of the plan, those without an embedding included."""
        return self._plan.n_rows

    @property
    def n_features(self) -> int:
        """D."""
        return self._root.encoder.n_features

    @property
    def dtype(self) -> str:
        """How embeddings are stored: "float16" or "float32"."""
        return self._record.dtype

    @property
    def complete(self) -> bool:
        """Whether it was written to its end."""
        return self._record.state == COMPLETE

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity of every row."""
        return self._root.encoder

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._root.class_names

    @property
    def plan(self) -> ShardPlan:
        """Which rows lie in which shard."""
        return self._plan

    @property
    def settings(self) -> dict[str, Any]:
        """The settings it was written with."""
        return dict(self._record.settings)

    @property
    def source_digest(self) -> str:
        """The digest of what it was made from."""
        return self._record.source_digest

    @cached_property
    def commits(self) -> tuple[CommitRecord, ...]:
        """The commit records that were there at opening, in order of shards."""
        return tuple(read_commits(self._location, self._plan).values())

    @cached_property
    def digest(self) -> str:
        """ "sha256:..." over the digests of all files, shard by shard.

        Raises
        ------
        IncompleteStoreError
            The split has not been written to its end.
        StoreFormatError
            Commit records are missing or not those it was finished with.
        """
        if not self.complete:
            raise IncompleteStoreError(
                f"{self._location} is not complete: it has no digest yet; run the ingest again"
            )
        found = commits_digest(self.commits)
        if len(self.commits) != self._plan.n_shards or found != self._record.digest:
            raise StoreFormatError(
                f"the commit records of {self._location} ({len(self.commits)} of {self._plan.n_shards}) are not those "
                "it was finished with: run verify"
            )
        return found

    @cached_property
    def embeddings(self) -> StoredArray:
        """The stored embeddings; `rows` is the way in for everything but copying bytes."""
        return open_array(self._location / "embeddings", self._plan, self.dtype, (self.n_features,))

    def _column(self, name: str, dtype: str, missing: int) -> NDArray[Any]:
        if self.complete and len(self.commits) != self._plan.n_shards:
            raise StoreFormatError(
                f"{self._location} is complete but has {len(self.commits)} of {self._plan.n_shards} commit records: "
                "run verify"
            )
        array = open_array(self._location / name, self._plan, dtype, ())
        column = np.full(self.n_rows, missing, dtype)

        def read(commit: CommitRecord) -> None:
            array.check_shard(commit.shard)
            array.read(commit.start, commit.stop, column[commit.start : commit.stop])

        parallel_map(self._location, read, self.commits)
        column.flags.writeable = False
        return column

    @cached_property
    def labels(self) -> IntArray:
        """(n_rows,) int64, UNLABELLED where unknown or not written yet. Read-only."""
        labels: IntArray = self._column("labels", "int64", UNLABELLED)
        if len(labels) and not -1 <= labels.min() <= labels.max() < max(len(self.class_names), 0):
            raise StoreFormatError(
                f"{self._location / 'labels'} must lie in -1..{len(self.class_names) - 1}, "
                f"found {labels.min()}..{labels.max()}"
            )
        return labels

    @cached_property
    def status(self) -> ByteArray:
        """(n_rows,) uint8; 255 where the shard is not written yet. Read-only.

        A `RowStatus`, or the number of a reason that a later version knows: such rows have no embedding either.
        """
        status: ByteArray = self._column("status", "uint8", UNWRITTEN)
        return status

    def failures(self) -> dict[str, int]:
        """Return how many rows have no embedding, by the name of the reason."""
        total: Counter[str] = Counter()
        for commit in self.commits:
            total.update(commit.failures)
        return dict(sorted(total.items()))

    @property
    def zero_norm(self) -> int:
        """How many rows with status OK are all zeros."""
        return sum(commit.zero_norm for commit in self.commits)

    def table(self, row_ids: ArrayLike | None, columns: Sequence[str]) -> Any:
        """Return a pyarrow Table of `columns` for the rows in the order given, or for all of them.

        Parameters
        ----------
        row_ids : (n,) int, or None for all rows
        columns : sequence of str
            "key", "label", "status", "error" or an extra column the split was written with.

        Raises
        ------
        DataError
            A row id lies outside the split.
        IncompleteStoreError
            A row's shard has not been written yet.
        """
        ids = np.arange(self.n_rows) if row_ids is None else _row_ids(row_ids, self.n_rows)
        written = {commit.shard for commit in self.commits}
        if absent := sorted(set((ids // self._plan.rows_per_shard).tolist()) - written):
            raise IncompleteStoreError(f"shard {absent[0]} of {self._location} is not written yet")
        return read_parts(self._location, self._plan, ids, columns)

    def keys(self, row_ids: ArrayLike) -> list[str]:
        """Return where each row came from: a path or a member name."""
        keys: list[str] = self.table(row_ids, ["key"]).column("key").to_pylist()
        return keys

    def errors(self, row_ids: ArrayLike) -> list[str | None]:
        """Return why each row has no embedding, None where it has one."""
        errors: list[str | None] = self.table(row_ids, ["error"]).column("error").to_pylist()
        return errors

    def rows(self, subset: str | None = None, *, normalize: bool = True) -> RowView:
        """Return the rows with an embedding, of the split or of a subset, as `ltstore.types.Rows`.

        Parameters
        ----------
        subset : str, optional
        normalize : bool
            Scale rows to unit norm on reading.
        """
        ok = self.status == RowStatus.OK
        if subset is None:
            return RowView(self, np.flatnonzero(ok).astype(np.int64), normalize)
        ids = self.subset(subset)
        return RowView(self, ids[ok[ids]], normalize)

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of its subsets, sorted."""
        return subsets.names(self._location)

    def subset(self, name: str) -> IntArray:
        """Return the row ids of a subset: int64, ascending, unique. StoreNotFoundError lists those there are."""
        return subsets.read(self._location, name, self.n_rows)

    def subset_settings(self, name: str) -> dict[str, Any]:
        """Return the settings a subset was made with."""
        return dict(subsets.read_record(self._location, name).settings)

    def add_subset(self, name: str, row_ids: ArrayLike, *, settings: Mapping[str, Any]) -> None:
        """Store row ids under a name. The same ids and settings again change nothing.

        Parameters
        ----------
        name : str
        row_ids : (n,) int
            Ascending and unique, in 0..n_rows-1; rows without an embedding may be among them.
        settings : mapping
            How they were chosen; JSON values.

        Raises
        ------
        DataError
            Ids are not sorted, repeated, or outside the split.
        StoreExistsError
            A subset of that name with other contents is there.
        """
        ids = _row_ids(row_ids, self.n_rows)
        if len(ids) and (np.diff(ids) <= 0).any():
            raise DataError(f"the row ids of subset {name!r} must be ascending and unique")
        subsets.write(self._location, name, ids, settings, self.digest)


def _row_ids(values: ArrayLike, n_rows: int) -> IntArray:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and len(ids)):
        raise DataError(f"row ids must be a list of integers, found shape {ids.shape} of {ids.dtype}")
    ids = ids.astype(np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < n_rows:
        raise DataError(f"row ids must lie in 0..{n_rows - 1}, found {ids.min()}..{ids.max()}")
    return ids
