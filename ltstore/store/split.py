"""One split of a store, as a reader sees it: rows, labels, keys, subsets, and the record of its writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import DataError, StoreFormatError, StoreNotFoundError
from ltstore.storage import Location
from ltstore.store import subsets
from ltstore.store.bounds import check_room
from ltstore.store.format import UNWRITTEN, CommitRecord, RootRecord
from ltstore.store.generation import (
    Generation,
    JoinedArray,
    by_generation,
    count_failures,
    generation_location,
    later_generations,
    next_digest,
)
from ltstore.store.view import RowView
from ltstore.types import UNLABELLED, ByteArray, EncoderIdentity, IntArray, RowStatus


class Split:
    """A split as it was when it was opened. Made by `Store.split` and `Store.synthetic`.

    Parameters
    ----------
    location : Location
    name : str
    root : RootRecord
    generation : int, optional
        The last generation to show; default the last that is complete.

    Notes
    -----
    Rows that are appended later make a new generation and do not change this one. Labels and status are read when
    first asked for. Picklable.
    """

    def __init__(self, location: Location, name: str, root: RootRecord, generation: int | None = None) -> None:
        self._location = location
        self._name = name
        self._root = root
        n_features = root.encoder.n_features
        found = [Generation(location, n_features)]
        self._digests = [found[0].record.digest]
        for number in later_generations(location) if found[0].complete else ():
            if generation is not None and number > generation:
                break
            try:
                later = Generation(generation_location(location, number), n_features)
            except FileNotFoundError:  # begun by a writer that was killed
                break
            if number != len(found) or not later.complete:
                break
            self._require_follower(later, found[-1])
            found.append(later)
            self._digests.append(next_digest(self._digests[-1], later.record.digest))
        if generation is not None and generation != len(found) - 1:
            raise StoreNotFoundError(
                f"{location} has the generations 0 to {len(found) - 1}, asked for generation {generation}"
            )
        self._generations = tuple(found)

    def _require_follower(self, later: Generation, before: Generation) -> None:
        if (later.first_row, later.record.follows, later.record.dtype) != (
            before.first_row + before.n_rows,
            self._digests[-1],
            before.record.dtype,
        ):
            raise StoreFormatError(
                f"{later.location} does not follow the rows before it (first row {later.first_row}, expected "
                f"{before.first_row + before.n_rows}): the store is damaged; run verify"
            )

    @property
    def generations(self) -> tuple[Generation, ...]:
        """The rows that were written together, in order: the first, and one for each time that rows were appended."""
        return self._generations

    def generation_at(self, location: Location) -> Generation:
        """Return the generation that lies at a place; StoreNotFoundError where none does."""
        for generation in self._generations:
            if str(generation.location) == str(location):
                return generation
        raise StoreNotFoundError(f"{self._location} has no generation at {location}")

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
    def n_rows(self) -> int:
        """Rows of all generations, those without an embedding included."""
        return sum(generation.n_rows for generation in self._generations)

    @property
    def n_features(self) -> int:
        """D."""
        return self._root.encoder.n_features

    @property
    def dtype(self) -> str:
        """How embeddings are stored: "float16" or "float32"."""
        return self._generations[0].record.dtype

    @property
    def complete(self) -> bool:
        """Whether it was written to its end."""
        return self._generations[0].complete

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity of every row."""
        return self._root.encoder

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._root.class_names

    @property
    def settings(self) -> dict[str, Any]:
        """The settings its first generation was written with."""
        return dict(self._generations[0].record.settings)

    @property
    def source_digest(self) -> str:
        """The digest of what its first generation was made from."""
        return self._generations[0].record.source_digest

    @property
    def commits(self) -> tuple[CommitRecord, ...]:
        """The commit records that were there at opening, generation by generation, in order of shards."""
        return tuple(commit for generation in self._generations for commit in generation.commits)

    @property
    def digest(self) -> str:
        """ "sha256:..." over the digests of all files, shard by shard, generation by generation.

        Raises
        ------
        IncompleteStoreError
            The split has not been written to its end.
        StoreFormatError
            Commit records are missing or not those it was finished with.
        """
        for generation in self._generations:
            generation.digest  # noqa: B018 - holds the commit records against the record
        return self._digests[-1]

    def digest_of_rows(self, stop: int) -> str:
        """Return the digest of the split as it was when it first had the rows [0, stop)."""
        last = 0
        for number, generation in enumerate(self._generations):
            if generation.first_row >= stop and number:
                break
            generation.digest  # noqa: B018 - holds the commit records against the record
            last = number
        return self._digests[last]

    @cached_property
    def embeddings(self) -> JoinedArray:
        """The stored embeddings; `rows` is the way in for everything but copying bytes."""
        return JoinedArray(self._generations)

    def _column(self, name: str, dtype: str, missing: int) -> NDArray[Any]:
        columns = [generation.column(name, dtype, missing) for generation in self._generations]
        column = columns[0] if len(columns) == 1 else np.concatenate(columns)
        column.flags.writeable = False
        return column

    @cached_property
    def labels(self) -> IntArray:
        """(n_rows,) int64, UNLABELLED where unknown or not written yet. Read-only."""
        return self._checked_labels(self._column("labels", "int64", UNLABELLED))

    def _checked_labels(self, labels: IntArray) -> IntArray:
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

    def written(self) -> tuple[IntArray, IntArray, ByteArray]:
        """Return row ids, labels and status of the rows whose shards are there.

        What is not written takes no memory, however many rows the plan has.
        """
        status: ByteArray
        if self.complete:
            labels, status = self.labels, self.status  # first: they look whether there is room for so many rows
            return np.arange(self.n_rows), labels, status
        (first,) = self._generations
        labels = self._checked_labels(first.written("labels", "int64"))
        status = first.written("status", "uint8")
        ids = [np.arange(commit.start, commit.stop) for commit in first.commits]
        return np.concatenate(ids) if ids else np.empty(0, np.int64), labels, status

    def failures(self) -> dict[str, int]:
        """Return how many rows have no embedding, by the name of the reason."""
        return count_failures(self.commits)

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
        if row_ids is None:
            check_room(self.n_rows * 8, self._location, "row ids")
        ids = np.arange(self.n_rows) if row_ids is None else _row_ids(row_ids, self.n_rows)
        if len(self._generations) == 1:
            return self._generations[0].table(ids, columns)
        import pyarrow as pa

        order, tables = [], []
        for generation, where in by_generation(self._generations, ids):
            order.append(where)
            tables.append(generation.table(ids[where] - generation.first_row, columns))
        if not tables:
            return self._generations[0].table(ids, columns)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(order))))

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
        subsets.write(
            self._location, name, ids, settings, self.digest_of_rows(int(ids[-1]) + 1 if len(ids) else 0)
        )


def _row_ids(values: ArrayLike, n_rows: int) -> IntArray:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and len(ids)):
        raise DataError(f"row ids must be a list of integers, found shape {ids.shape} of {ids.dtype}")
    ids = ids.astype(np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < n_rows:
        raise DataError(f"row ids must lie in 0..{n_rows - 1}, found {ids.min()}..{ids.max()}")
    return ids
