"""One generation of a split: rows that were written together, in a directory of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import IncompleteStoreError, StoreFormatError
from ltstore.storage import Location, parallel_map, write_json
from ltstore.store.bounds import check_room
from ltstore.store.format import (
    COMPLETE,
    FILES,
    GROUP_FILE,
    CommitRecord,
    SplitRecord,
    digest_of,
    group_document,
    read_attribute,
    read_json,
)
from ltstore.store.parts import read_parts
from ltstore.store.plan import ShardPlan
from ltstore.store.reader import StoredArray, open_array
from ltstore.types import IntArray

GENERATIONS = "generations"


def generation_location(split: Location, number: int) -> Location:
    """Return where a generation lies: the first in the split's own directory, later ones below it."""
    return split / GENERATIONS / f"{number:05d}" if number else split


def split_of(location: Location) -> Location:
    """Return the split that a generation is of, whose lock its writers take."""
    return location.parent.parent if location.parent.name == GENERATIONS else location


def later_generations(split: Location) -> list[int]:
    """Return the numbers of the generations beside the first, complete or not, ascending."""
    names = (split / GENERATIONS).child_names()
    found = {int(name) for name in names if name.isdecimal() and name.isascii() and len(name) < 10}
    return sorted(n for n in found if generation_location(split, n).name in names)


def next_digest(before: str, digest: str) -> str:
    """Return the digest of a split with one more generation of that digest."""
    return digest_of([before, digest])


def relink(split: Location) -> list[str]:
    """Have each generation follow the digest that the one before it has, where a repair changed that.

    Returns the names of those that were told. Only generations whose rows begin where those before them end.
    """
    told: list[str] = []
    try:
        first = SplitRecord.from_json(read_attribute(split / GROUP_FILE), str(split))
        digest, n_rows = first.digest, first.n_rows
        for number in later_generations(split):
            where = generation_location(split, number) / GROUP_FILE
            record = SplitRecord.from_json(read_attribute(where), str(where))
            if not digest or record.first_row != n_rows or record.state != COMPLETE:
                break
            if record.follows != digest:
                record = replace(record, follows=digest)
                write_json(where, group_document(record.to_json()))
                told.append(where.parent.name)
            digest, n_rows = next_digest(digest, record.digest), n_rows + record.n_rows
    except (StoreFormatError, FileNotFoundError):  # said where it is looked at
        pass
    return told


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


def commit_shards(split: Location, plan: ShardPlan) -> tuple[list[int], list[Location]]:
    """Return the shards that have a commit record, ascending, and the files that are of no shard of the plan.

    One listing: a plan may claim a million shards of which there are none.
    """
    shards, others = [], []
    for name in (split / "commits").child_names():
        stem, dot, ending = name.rpartition(".")
        if dot + ending != ".json":
            continue
        number = int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 12 else -1
        if 0 <= number < plan.n_shards and commit_location(split, number).name == name:
            shards.append(number)
        else:
            others.append(split / "commits" / name)
    return sorted(shards), others


def read_commits(split: Location, plan: ShardPlan) -> dict[int, CommitRecord]:
    """Return the commit records that are there, by shard."""

    def read(shard: int) -> CommitRecord | None:
        try:
            return read_commit(split, plan, shard)
        except FileNotFoundError:  # a link to nothing, or withdrawn in this moment
            return None

    shards, _ = commit_shards(split, plan)
    found = zip(shards, parallel_map(split, read, shards), strict=True)
    return {shard: commit for shard, commit in found if commit is not None}


def commits_digest(commits: Sequence[CommitRecord]) -> str:
    """Return the digest of a split: of the digests of its files, shard by shard."""
    return digest_of([[commit.files[name]["sha256"] for name in FILES] for commit in commits])


def count_failures(commits: Iterable[CommitRecord]) -> dict[str, int]:
    """Return how many rows of shards have no embedding, by the name of the reason."""
    total: Counter[str] = Counter()
    for commit in commits:
        total.update(commit.failures)
    return dict(sorted(total.items()))


class Generation:
    """Rows [first_row, first_row + n_rows) of a split, as they were when it was opened. Row ids here count from 0.

    Notes
    -----
    Which shards are there is settled at opening. Picklable.
    """

    def __init__(self, location: Location, n_features: int) -> None:
        self.location = location
        where = location / GROUP_FILE
        self.record = SplitRecord.from_json(read_attribute(where), str(where))
        self.plan: ShardPlan = self.record.plan
        self.first_row = self.record.first_row
        self.n_rows = self.record.n_rows
        self.commits = tuple(read_commits(location, self.plan).values())
        self._n_features = n_features

    @property
    def complete(self) -> bool:
        """Whether it was written to its end."""
        return self.record.state == COMPLETE

    def failures(self) -> dict[str, int]:
        """Return how many rows have no embedding, by the name of the reason."""
        return count_failures(self.commits)

    @property
    def zero_norm(self) -> int:
        """How many rows with status OK are all zeros."""
        return sum(commit.zero_norm for commit in self.commits)

    @cached_property
    def digest(self) -> str:
        """ "sha256:..." over the digests of all its files, shard by shard.

        Raises
        ------
        IncompleteStoreError
            It has not been written to its end.
        StoreFormatError
            Commit records are missing or not those it was finished with.
        """
        if not self.complete:
            raise IncompleteStoreError(
                f"{self.location} is not complete: it has no digest yet; run the ingest again"
            )
        found = commits_digest(self.commits)
        if len(self.commits) != self.plan.n_shards or found != self.record.digest:
            raise StoreFormatError(
                f"the commit records of {self.location} ({len(self.commits)} of {self.plan.n_shards}) are not those "
                "it was finished with: run verify"
            )
        return found

    @cached_property
    def embeddings(self) -> StoredArray:
        """The stored embeddings, failed rows included."""
        return open_array(self.location / "embeddings", self.plan, self.record.dtype, (self._n_features,))

    def column(self, name: str, dtype: str, missing: int) -> NDArray[Any]:
        """Return a whole column, checked against its checksums, with `missing` where a shard is not written yet."""
        if self.complete and len(self.commits) != self.plan.n_shards:
            raise StoreFormatError(
                f"{self.location} is complete but has {len(self.commits)} of {self.plan.n_shards} commit records: "
                "run verify"
            )
        check_room(self.n_rows * np.dtype(dtype).itemsize, self.location, name)
        array = open_array(self.location / name, self.plan, dtype, ())
        column = np.full(self.n_rows, missing, dtype)

        def read(commit: CommitRecord) -> None:
            array.check_shard(commit.shard)
            array.read(commit.start, commit.stop, column[commit.start : commit.stop])

        parallel_map(self.location, read, self.commits)
        return column

    def written(self, name: str, dtype: str) -> NDArray[Any]:
        """Return a column of the rows whose shards are there: what is not written takes no memory."""
        n_rows = sum(commit.stop - commit.start for commit in self.commits)
        check_room(n_rows * np.dtype(dtype).itemsize, self.location, name)
        column = np.empty(n_rows, dtype)
        array, row = open_array(self.location / name, self.plan, dtype, ()), 0
        for commit in self.commits:
            array.check_shard(commit.shard)
            array.read(commit.start, commit.stop, column[row : row + commit.stop - commit.start])
            row += commit.stop - commit.start
        return column

    def table(self, row_ids: IntArray, columns: Sequence[str]) -> Any:
        """Return a pyarrow Table of `columns`, one row per row id in the order given.

        Raises
        ------
        IncompleteStoreError
            A row's shard has not been written yet.
        """
        written = {commit.shard for commit in self.commits}
        if absent := sorted(set((row_ids // self.plan.rows_per_shard).tolist()) - written):
            raise IncompleteStoreError(f"shard {absent[0]} of {self.location} is not written yet")
        return read_parts(self.location, self.plan, row_ids, columns)


def by_generation(
    generations: Sequence[Generation], row_ids: IntArray
) -> Iterator[tuple[Generation, IntArray]]:
    """Yield each generation that has some of the rows, and their places in `row_ids`."""
    owner = np.searchsorted([each.first_row for each in generations], row_ids, side="right") - 1
    for number in np.unique(owner).tolist():
        yield generations[number], np.flatnonzero(owner == number)


class JoinedArray:
    """The embeddings of all generations of a split, as one array; safe to use from threads, picklable."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = tuple(generations)

    def read(self, start: int, stop: int, out: NDArray[Any], *, unit: bool = False) -> None:
        """Copy rows [start, stop) into `out` (stop - start, D), converting the dtype; `unit` scales them."""
        for generation in self._generations:
            first = generation.first_row
            low, high = max(start, first), min(stop, first + generation.n_rows)
            if low < high:
                generation.embeddings.read(
                    low - first, high - first, out[low - start : high - start], unit=unit
                )

    def take(self, row_ids: IntArray, out: NDArray[Any], *, unit: bool = False) -> None:
        """Copy rows by id, in any order, repeats allowed, into `out`, converting the dtype; `unit` scales them."""
        if len(self._generations) == 1:
            self._generations[0].embeddings.take(row_ids, out, unit=unit)
            return
        for generation, where in by_generation(self._generations, row_ids):
            block = np.empty((len(where), out.shape[1]), out.dtype)
            generation.embeddings.take(row_ids[where] - generation.first_row, block, unit=unit)
            out[where] = block

    def iter_chunks(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (row, rows from it on) over rows [start, stop), failed ones included, chunk by chunk, as stored.

        Float16 or float32 as the split is, not scaled, read-only. Where the files are mapped they are views of them:
        nothing is copied, and what is not touched is not read.
        """
        for generation in self._generations:
            first = generation.first_row
            low, high = max(start, first), min(stop, first + generation.n_rows)
            if low < high:
                for row, rows in generation.embeddings.iter_chunks(low - first, high - first):
                    yield first + row, rows

    def shards(self, row_ids: IntArray) -> set[tuple[int, int]]:
        """Return the (generation, shard) that rows lie in."""
        found = set()
        for generation, where in by_generation(self._generations, row_ids):
            shards = (row_ids[where] - generation.first_row) // generation.plan.rows_per_shard
            found |= {(self._generations.index(generation), shard) for shard in np.unique(shards).tolist()}
        return found

    def check_shard(self, generation: int, shard: int) -> None:
        """Raise ChecksumMismatchError where a chunk of the shard does not match its checksum."""
        self._generations[generation].embeddings.check_shard(shard)
