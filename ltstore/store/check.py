"""Whether every byte of a store is what was written: `verify`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ltstore.atomic import TEMPORARY_SUFFIX
from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.storage import Location, ObjectLocation, Place
from ltstore.store import subsets
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    FILES,
    GROUP_FILE,
    RESERVED_NAMES,
    CommitRecord,
    SplitRecord,
    read_attribute,
    read_json,
    seal_holds,
)
from ltstore.store.generation import (
    GENERATIONS,
    commit_location,
    commits_digest,
    generation_location,
    later_generations,
    next_digest,
    read_commit,
)
from ltstore.store.parts import part_location
from ltstore.store.reader import shard_location, view_file
from ltstore.store.shard import bad_chunks, read_index
from ltstore.store.store import Store, open_store
from ltstore.types import ByteArray, Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it was written; what is not known is None.

    Attributes
    ----------
    split : str
        "train", or "synthetic/NAME"; "" for the store itself.
    array : str
        "embeddings", "labels", "status", "rows", "commits", "subsets/NAME", or "" for the split itself.
    shard, chunk : int or None
    rows : (start, stop) or None
        Row ids that are concerned.
    message : str
    """

    split: str
    array: str
    shard: int | None = None
    chunk: int | None = None
    rows: tuple[int, int] | None = None
    message: str


@dataclass(kw_only=True)
class VerifyReport:
    """What `verify` looked at and found."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_shards: int = 0
    n_bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


def verify(path: Place, *, progress: Progress = no_progress) -> VerifyReport:
    """Check every byte of a store against the digests it was written with.

    Finds any changed bit in embeddings, labels, status and rows, and names array, shard, chunk and rows;
    missing files and commit records; records of another plan; changed metadata. Leftovers of a killed
    writer and splits that are not complete are notes, not problems.

    Parameters
    ----------
    path : path
    progress : Progress
        Called after each shard with its rows.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        There is no store at `path` that could be looked at.

    Notes
    -----
    One pass over all bytes with SHA-256 (about 1.7 GB/s a core); chunk checksums are looked at only to say
    where in a damaged file the damage lies. Memory: nothing is copied.
    """
    began = time.perf_counter()
    store = open_store(path)
    report = VerifyReport()
    _check_seal(report, "", "", store.location / GROUP_FILE)
    paths = list(_split_locations(store))
    if any(label.startswith("synthetic/") for label, _ in paths):
        _check_seal(report, "", "", store.location / "synthetic" / GROUP_FILE)
    for label, location in paths:
        try:
            where = location / GROUP_FILE
            record = SplitRecord.from_json(read_attribute(where), str(where))
        except (LtstoreError, OSError) as err:
            report.problems.append(Problem(split=label, array="", message=str(err)))
            continue
        _Checker(report, label, location, record, progress).run()
        n_rows = record.n_rows
        if later := later_generations(location):
            _check_seal(report, label, GENERATIONS, location / GENERATIONS / GROUP_FILE)
            n_rows = _check_generations(report, label, location, record, later, progress)
        _check_subsets(report, label, location, n_rows)
    report.notes += [
        f"{leftover} was left by a writer that was killed; nothing reads it"
        for leftover in store.location.leftovers()
    ]
    report.seconds = time.perf_counter() - began
    return report


def _split_locations(store: Store) -> Iterator[tuple[str, Location]]:
    """Every directory that is or was a split: a damaged zarr.json must not hide one."""
    for prefix in ("", "synthetic"):
        parent = store.location / prefix if prefix else store.location
        for name in parent.child_names():
            if name.endswith(TEMPORARY_SUFFIX) or (not prefix and name in RESERVED_NAMES):
                continue
            entry = parent / name
            commits = (entry / "commits").child_names()
            if (entry / GROUP_FILE).exists() or any(commit.endswith(".json") for commit in commits):
                yield f"{prefix}/{name}" if prefix else name, entry


def _check_seal(report: VerifyReport, split: str, array: str, location: Location) -> None:
    try:
        if seal_holds(read_json(location)):
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
        self, report: VerifyReport, label: str, location: Location, record: SplitRecord, progress: Progress
    ) -> None:
        self._report = report
        self._label = label
        self._location = location
        self._record = record
        self._plan = record.plan
        self._progress = progress

    def _problem(
        self,
        array: str,
        message: str,
        shard: int | None = None,
        rows: tuple[int, int] | None = None,
        chunk: int | None = None,
    ) -> None:
        problem = Problem(split=self._label, array=array, shard=shard, chunk=chunk, rows=rows, message=message)
        self._report.problems.append(problem)

    def run(self) -> None:
        _check_seal(self._report, self._label, "", self._location / GROUP_FILE)
        for array in ARRAYS:
            _check_seal(self._report, self._label, array, self._location / array / GROUP_FILE)
        commits = []
        for shard in range(self._plan.n_shards):
            if (commit := self._commit(shard)) is not None:
                commits.append(commit)
                self._shard(commit)
        planned = {commit_location(self._location, shard).name for shard in range(self._plan.n_shards)}
        for name in (self._location / "commits").child_names():
            if name.endswith(".json") and name not in planned:
                self._problem(
                    "commits", f"{self._location / 'commits' / name} is of a shard that the plan has not"
                )
        if self._record.state != COMPLETE:
            self._report.notes.append(
                f"{self._label} is not complete: {len(commits)} of {self._plan.n_shards} shards are written"
            )
        elif len(commits) == self._plan.n_shards and commits_digest(commits) != self._record.digest:
            self._problem(
                "commits", f"the commit records of {self._location} are not those it was finished with"
            )

    def _commit(self, shard: int) -> CommitRecord | None:
        location, rows = commit_location(self._location, shard), self._plan.shard_range(shard)
        try:
            commit = read_commit(self._location, self._plan, shard)
            if not seal_holds(read_json(location)):
                self._problem("commits", f"{location} is not as it was written", shard, rows)
        except FileNotFoundError:
            if self._record.state == COMPLETE:
                self._problem("commits", f"{location} is missing though the split is complete", shard, rows)
            return None
        except (StoreFormatError, OSError) as err:
            self._problem("commits", str(err), shard, rows)
            return None
        return commit

    def _shard(self, commit: CommitRecord) -> None:
        began = time.perf_counter()
        for name in FILES:
            self._file(name, commit)
        self._report.n_shards += 1
        self._progress(commit.stop - commit.start, {"read": time.perf_counter() - began})

    def _file(self, name: str, commit: CommitRecord) -> None:
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


def _check_generations(
    report: VerifyReport,
    label: str,
    location: Location,
    first: SplitRecord,
    numbers: list[int],
    progress: Progress,
) -> int:
    """Check the rows that were appended to a split; return the rows of all that is complete."""
    digest, n_rows, expected = first.digest, first.n_rows, 1
    for number in numbers:
        place = generation_location(location, number)
        name = f"{label}/{GENERATIONS}/{place.name}"
        where = place / GROUP_FILE
        try:
            record = SplitRecord.from_json(read_attribute(where), str(where))
        except FileNotFoundError:
            if (place / "commits").child_names():
                report.problems.append(Problem(split=name, array="", message=f"{where} is missing"))
            else:
                report.notes.append(f"{name} was left by a writer that was killed; nothing reads it")
            continue
        except LtstoreError as err:
            report.problems.append(Problem(split=name, array="", message=str(err)))
            continue
        if (number, record.first_row, record.follows, record.dtype) != (expected, n_rows, digest, first.dtype):
            message = (
                f"{place} does not follow the {n_rows} rows before it: nothing reads it, or what comes after"
            )
            report.problems.append(Problem(split=name, array="", message=message))
        _Checker(report, name, place, record, progress).run()
        if record.state == COMPLETE and number == expected:
            digest, n_rows = next_digest(digest, record.digest), n_rows + record.n_rows
            expected += 1
    return n_rows


def _check_subsets(report: VerifyReport, label: str, location: Location, n_rows: int) -> None:
    directory = location / "subsets"
    found = [
        directory / name
        for name in directory.child_names()
        if name != GROUP_FILE and not name.startswith(".") and not name.endswith(TEMPORARY_SUFFIX)
    ]
    if found:
        _check_seal(report, label, "subsets", directory / GROUP_FILE)
    for entry in found:
        array = f"subsets/{entry.name}"
        if isinstance(entry, ObjectLocation) and not (entry / GROUP_FILE).exists():
            report.notes.append(f"{array} of {label} was left by a writer that was killed")
            continue
        _check_seal(report, label, array, entry / GROUP_FILE)
        try:
            subsets.read(location, entry.name, n_rows)
        except (LtstoreError, OSError) as err:
            report.problems.append(Problem(split=label, array=array, message=str(err)))
