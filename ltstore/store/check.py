"""Whether every byte of a store is what was written: `verify`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass

import numpy as np

from ltstore.atomic import TEMPORARY_SUFFIX
from ltstore.engine import Crew, Engine
from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.storage import Location, ObjectLocation, Place, parallel_map
from ltstore.store import quarantine, subsets
from ltstore.store.findings import Problem, VerifyReport
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    FILES,
    GROUP_FILE,
    LIMIT_ROOT_BYTES,
    RESERVED_NAMES,
    CommitRecord,
    SplitRecord,
    read_attribute,
    read_json,
    seal_holds,
    shown_line,
    validate_name,
)
from ltstore.store.generation import (
    GENERATIONS,
    commit_location,
    commit_shards,
    commits_digest,
    generation_location,
    later_generations,
    next_digest,
    read_commit,
)
from ltstore.store.parts import part_location
from ltstore.store.plan import ShardPlan
from ltstore.store.reader import open_array, shard_location, view_file
from ltstore.store.shard import bad_chunks, read_index
from ltstore.store.store import Store, open_store
from ltstore.types import ByteArray, Progress, RowStatus, no_progress

SHOWN_ENTRIES = 5
SHOWN_MISSING = 1000
MOST_BYTES = 256 << 20
"""Most memory that shards which are fetched at once may take."""


def verify(path: Place, *, engine: Engine | None = None, progress: Progress = no_progress) -> VerifyReport:
    """Check every byte of a store against the digests it was written with.

    Finds any changed bit in embeddings, labels, status and rows, and names array, shard, chunk and rows;
    missing files and commit records; records of another plan; changed metadata. Leftovers of a killed
    writer and splits that are not complete are notes, not problems.

    Parameters
    ----------
    path : path
    engine : Engine, optional
        Workers that look at a shard at a time; the same report as without.
    progress : Progress
        Called after each shard with its rows.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        There is no store at `path` that could be looked at.
    WorkerLostError
        A worker of the engine was lost more often than it is replaced.

    Notes
    -----
    One pass over all bytes with SHA-256 (about 1.7 GB/s a core); chunk checksums are looked at only to say
    where in a damaged file the damage lies. Memory: nothing is copied of files; of an object store, shards are
    fetched at once up to 256 MiB.
    """
    began = time.perf_counter()
    store = open_store(path)
    with nullcontext() if engine is None else engine.start(_no_state, None) as crew:
        report = join_reports(store, check_splits(store, progress, crew))
    report.seconds = time.perf_counter() - began
    return report


def check_splits(
    store: Store, progress: Progress = no_progress, crew: Crew | None = None
) -> dict[str, VerifyReport]:
    """Return what there is to say of each split."""
    return {
        label: check_split(store, label, location, progress, crew) for label, location in split_locations(store)
    }


def join_reports(store: Store, splits: Mapping[str, VerifyReport]) -> VerifyReport:
    """Return the report of a store from those of its splits."""
    report = VerifyReport()
    _check_seal(report, "", "", store.location / GROUP_FILE)
    if any(label.startswith("synthetic/") for label in splits):
        _check_seal(report, "", "", store.location / "synthetic" / GROUP_FILE)
    for found in splits.values():
        report.add(found)
    report.notes += [
        f"{_one_line(leftover)} was left by a writer that was killed; nothing reads it"
        for leftover in store.location.leftovers()
    ]
    return report


def check_split(
    store: Store,
    label: str,
    location: Location,
    progress: Progress = no_progress,
    crew: Crew | None = None,
) -> VerifyReport:
    """Return what there is to say of one split, or of any directory that is laid out as one."""
    report = VerifyReport()
    try:
        where = location / GROUP_FILE
        record = SplitRecord.from_json(read_attribute(where), str(where))
        validate_name(location.name, "split")
    except (LtstoreError, OSError) as err:
        report.problems.append(Problem(split=shown_line(label), array="", message=shown_line(err)))
        return report
    _Checker(report, label, location, record, store.encoder.n_features, progress, crew).run()
    if not record.follows:
        _check_subsets(report, label, location, _check_generations(report, label, location, record))
    return report


def split_locations(store: Store) -> Iterator[tuple[str, Location]]:
    """Every directory that is or was a split: a damaged zarr.json must not hide one."""
    for prefix in ("", "synthetic"):
        parent = store.location / prefix if prefix else store.location
        for name in parent.child_names():
            if name.endswith(TEMPORARY_SUFFIX) or (not prefix and name in RESERVED_NAMES):
                continue
            entry = parent / name
            commits = (entry / "commits").child_names()
            if (entry / GROUP_FILE).exists() or any(commit.endswith(".json") for commit in commits):
                label = f"{prefix}/{name}" if prefix else name
                yield label, entry
                for number in later_generations(entry):
                    later = generation_location(entry, number)
                    if (later / GROUP_FILE).exists() or (later / "commits").child_names():
                        yield f"{label}/{GENERATIONS}/{later.name}", later


def _one_line(message: str) -> str:
    """Return a message as it is unless a file name in it breaks the line."""
    return message if message.isprintable() else shown_line(message)


def _check_seal(report: VerifyReport, split: str, array: str, location: Location) -> None:
    try:
        if seal_holds(read_json(location, LIMIT_ROOT_BYTES)):
            return
        message = f"{location} is not as it was written"
    except FileNotFoundError:
        message = f"{location} is missing"
    except (StoreFormatError, OSError) as err:
        message = str(err)
    report.problems.append(Problem(split=split, array=array, message=message))


class _Checker:
    """Looks at one split and adds to the report."""

    def __init__(
        self,
        report: VerifyReport,
        label: str,
        location: Location,
        record: SplitRecord,
        n_features: int,
        progress: Progress,
        crew: Crew | None,
    ) -> None:
        self._report = report
        self._label = label
        self._location = location
        self._record = record
        self._plan = record.plan
        self._n_features = n_features
        self._progress = progress
        self._crew = crew

    def _problem(
        self, array: str, message: str, shard: int | None = None, rows: tuple[int, int] | None = None
    ) -> None:
        problem = Problem(
            split=self._label, array=shown_line(array), shard=shard, rows=rows, message=_one_line(message)
        )
        self._report.problems.append(problem)

    def run(self) -> None:
        _check_seal(self._report, self._label, "", self._location / GROUP_FILE)
        for array in ARRAYS:
            _check_seal(self._report, self._label, array, self._location / array / GROUP_FILE)
            self._layout(array)
        commits = []
        shards, others = commit_shards(self._location, self._plan)
        for found in self._shards(shards):
            self._report.add(found.report)
            if found.commit is not None:
                commits.append(found.commit)
                self._progress(found.commit.stop - found.commit.start, {"read": found.report.seconds})
        if self._record.state == COMPLETE:
            self._missing(set(shards))
        for location in others:
            self._problem("commits", f"{location} is of a shard that the plan has not")
        if self._record.state != COMPLETE:
            self._report.notes.append(
                f"{self._label} is not complete: {len(commits)} of {self._plan.n_shards} shards are written"
            )
        elif len(commits) == self._plan.n_shards and commits_digest(commits) != self._record.digest:
            self._problem(
                "commits", f"the commit records of {self._location} are not those it was finished with"
            )
        self._quarantine(commits)

    def _layout(self, array: str) -> None:
        """Whether an array is the one of the plan, laid out as it was written, whatever its seal says."""
        dtype = {"embeddings": self._record.dtype, "labels": "int64", "status": "uint8"}[array]
        row_shape = (self._n_features,) if array == "embeddings" else ()
        try:
            own = open_array(self._location / array, self._plan, dtype, row_shape).own_layout
        except LtstoreError as err:
            self._problem(array, str(err))
            return
        if not own:
            self._problem(array, f"{self._location / array} is laid out otherwise than it was written")

    def _missing(self, there: set[int]) -> None:
        """Name the first shards of a complete split that have no commit record, and count the rest."""
        shown = 0
        for shard in range(self._plan.n_shards):
            if shard in there:
                continue
            if shown == SHOWN_MISSING:
                n_more = self._plan.n_shards - len(there) - shown
                self._problem("commits", f"{n_more} more shards of {self._location} have no commit record")
                return
            location = commit_location(self._location, shard)
            message = f"{location} is missing though the split is complete"
            self._problem("commits", message, shard, self._plan.shard_range(shard))
            shown += 1

    def _quarantine(self, commits: list[CommitRecord]) -> None:
        if n_lost := sum(commit.failures.get(RowStatus.LOST.name, 0) for commit in commits):
            self._report.notes.append(
                f"{self._label} has lost {n_lost} embeddings that were damaged: a repair that has their source makes "
                "them again"
            )
        if kept := quarantine.names(self._location):
            self._report.notes.append(
                f"{self._label} keeps {len(kept)} damaged things aside, which nothing reads: "
                f"{', '.join(kept[:SHOWN_ENTRIES])}{', ...' if len(kept) > SHOWN_ENTRIES else ''} in "
                f"{self._location / quarantine.DIRECTORY}"
            )

    def _shards(self, shards: Sequence[int]) -> Iterator[CheckedShard]:
        """Look at shards, in order; by workers, or several at once where they come over a network."""
        if self._crew is not None:
            yield from self._shared(self._crew, shards)
            return
        at_once = self._location.n_parallel
        if at_once > 1:
            at_once = max(min(at_once, MOST_BYTES // max(_shard_bytes(self._location, self._plan), 1)), 1)
        for start in range(0, len(shards), at_once):
            yield from parallel_map(self._location, self._shard, shards[start : start + at_once])

    def _shared(self, crew: Crew, shards: Sequence[int]) -> Iterator[CheckedShard]:
        items = [
            (number, self._label, self._location, self._record, shard) for number, shard in enumerate(shards)
        ]
        early: dict[int, CheckedShard] = {}
        following = 0
        with closing(crew.iter_items(_check_item, items)) as found:
            for number, checked in found:
                early[number] = checked
                while following in early:
                    yield early.pop(following)
                    following += 1

    def _shard(self, shard: int) -> CheckedShard:
        return check_shard(self._label, self._location, self._record, shard)


def _check_generations(report: VerifyReport, label: str, location: Location, first: SplitRecord) -> int:
    """Check how the rows that were appended to a split follow each other; return the rows of all that is complete."""
    digest, n_rows, expected = first.digest, first.n_rows, 1
    numbers = later_generations(location)
    if numbers:
        _check_seal(report, label, GENERATIONS, location / GENERATIONS / GROUP_FILE)
    for number in numbers:
        place = generation_location(location, number)
        name = f"{label}/{GENERATIONS}/{place.name}"
        where = place / GROUP_FILE
        try:
            record = SplitRecord.from_json(read_attribute(where), str(where))
        except FileNotFoundError:
            if not (place / "commits").child_names():
                report.notes.append(f"{name} was left by a writer that was killed; nothing reads it")
            continue
        except LtstoreError:  # said where the generation itself is looked at
            continue
        if (number, record.first_row, record.follows, record.dtype) != (expected, n_rows, digest, first.dtype):
            message = (
                f"{place} does not follow the {n_rows} rows before it: nothing reads it, or what comes after"
            )
            report.problems.append(Problem(split=name, array="", message=message))
        if record.state == COMPLETE and number == expected:
            digest, n_rows = next_digest(digest, record.digest), n_rows + record.n_rows
            expected += 1
    return n_rows


def _check_subsets(report: VerifyReport, label: str, location: Location, n_rows: int) -> None:
    directory = location / "subsets"
    found = [directory / name for name in subsets.directories(location)]
    if found:
        _check_seal(report, label, "subsets", directory / GROUP_FILE)
    for entry in found:
        array = f"subsets/{shown_line(entry.name)}"
        if isinstance(entry, ObjectLocation) and not (entry / GROUP_FILE).exists():
            report.notes.append(f"{array} of {label} was left by a writer that was killed")
            continue
        _check_seal(report, label, array, entry / GROUP_FILE)
        try:
            subsets.read(location, entry.name, n_rows)
        except (LtstoreError, OSError) as err:
            report.problems.append(Problem(split=label, array=array, message=_one_line(str(err))))


def _shard_bytes(location: Location, plan: ShardPlan) -> int:
    """Return what a shard takes in memory where it is fetched, from the first commit record that says so."""
    for shard in commit_shards(location, plan)[0]:
        with suppress(LtstoreError, OSError):
            return sum(int(entry["n_bytes"]) for entry in read_commit(location, plan, shard).files.values())
    return 0


@dataclass(kw_only=True)
class CheckedShard:
    """What was found of one shard; `commit` is None where there is none to go by."""

    report: VerifyReport
    commit: CommitRecord | None = None


def check_shard(label: str, location: Location, record: SplitRecord, shard: int) -> CheckedShard:
    """Look at the commit record of a shard of a split and at the files that it names."""
    began = time.perf_counter()
    found = CheckedShard(report=VerifyReport())
    checker = _ShardChecker(found.report, label, location, record.plan)
    found.commit = checker.commit(shard, complete=record.state == COMPLETE)
    if found.commit is not None:
        for name in FILES:
            checker.file(name, found.commit)
        if not found.report.problems:
            checker.failures(found.commit)
        found.report.n_shards = 1
    found.report.seconds = time.perf_counter() - began
    return found


def _no_state(source: None, number: int, n_workers: int) -> None:
    """Keep nothing in a worker."""


def _check_item(_: None, item: tuple[int, str, Location, SplitRecord, int]) -> tuple[int, CheckedShard]:
    number, label, location, record, shard = item
    return number, check_shard(label, location, record, shard)


class _ShardChecker:
    def __init__(self, report: VerifyReport, label: str, location: Location, plan: ShardPlan) -> None:
        self._report = report
        self._label = label
        self._location = location
        self._plan = plan

    def _problem(
        self, array: str, message: str, shard: int, rows: tuple[int, int], chunk: int | None = None
    ) -> None:
        problem = Problem(
            split=self._label, array=array, shard=shard, chunk=chunk, rows=rows, message=_one_line(message)
        )
        self._report.problems.append(problem)

    def failures(self, commit: CommitRecord) -> None:
        """Whether a shard has as many failed rows as its record says."""
        rows = (commit.start, commit.stop)
        status = np.empty(commit.stop - commit.start, np.uint8)
        try:
            open_array(self._location / "status", self._plan, "uint8", ()).read(*rows, status)
        except LtstoreError as err:
            self._problem("status", str(err), commit.shard, rows)
            return
        counts = np.bincount(status, minlength=256)
        known = [s for s in RowStatus if s is not RowStatus.OK]  # a later version may know more
        same = all(commit.failures.get(s.name, 0) == counts[s] for s in known)
        if not same or sum(commit.failures.values()) != counts[1:].sum():
            message = f"{commit_location(self._location, commit.shard)} counts other failures than status holds"
            self._problem("commits", message, commit.shard, rows)

    def commit(self, shard: int, *, complete: bool) -> CommitRecord | None:
        location, rows = commit_location(self._location, shard), self._plan.shard_range(shard)
        try:
            commit = read_commit(self._location, self._plan, shard)
            if not seal_holds(read_json(location)):
                self._problem("commits", f"{location} is not as it was written", shard, rows)
        except FileNotFoundError:
            if complete:
                self._problem("commits", f"{location} is missing though the split is complete", shard, rows)
            return None
        except (StoreFormatError, OSError) as err:
            self._problem("commits", str(err), shard, rows)
            return None
        return commit

    def file(self, name: str, commit: CommitRecord) -> None:
        split, rows = self._location, (commit.start, commit.stop)
        if name == "rows":
            location = part_location(split, commit.shard)
        else:
            location = shard_location(split / name, commit.shard, 2 if name == "embeddings" else 1)
        try:
            data = view_file(location)
        except (StoreFormatError, OSError) as err:
            self._problem(name, str(err), commit.shard, rows)
            return
        self._report.n_bytes += len(data)
        expected = commit.files[name]
        if hashlib.sha256(data.data).hexdigest() == expected["sha256"]:
            return
        if len(data) != expected["n_bytes"]:
            message = f"{location} must have {expected['n_bytes']} bytes, found {len(data)}"
            self._problem(name, message, commit.shard, rows)
        elif name == "rows":
            self._problem(name, f"{location} does not match its digest", commit.shard, rows)
        else:
            self._locate(name, commit, location, data)

    def _locate(self, name: str, commit: CommitRecord, location: Location, data: ByteArray) -> None:
        """Say which chunks of a damaged shard file are bad, and so which rows."""
        plan, rows = self._plan, (commit.start, commit.stop)
        try:
            bad = bad_chunks(data, read_index(data, plan.chunks_per_shard, str(location)))
        except StoreFormatError as err:
            self._problem(name, str(err), commit.shard, rows)
            return
        for chunk in bad:
            start = commit.start + chunk * plan.chunk_rows
            stop = min(start + plan.chunk_rows, commit.stop)
            message = (
                f"chunk {chunk} of {location} does not match its checksum: rows {start}..{stop - 1} are damaged"
            )
            self._problem(name, message, commit.shard, (start, stop), chunk)
        if not bad:
            self._problem(name, f"{location} is whole but not the file that was written", commit.shard, rows)
