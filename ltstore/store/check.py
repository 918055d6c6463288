"""Whether every byte of a store is what was written: `verify`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import TEMPORARY_SUFFIX
from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.store import subsets
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    FILES,
    GROUP_FILE,
    LIMIT_ROOT_BYTES,
    CommitRecord,
    SplitRecord,
    read_attribute,
    read_json,
    seal_holds,
    shown_line,
    validate_name,
)
from ltstore.store.parts import part_path
from ltstore.store.reader import StoredArray, map_file, shard_path
from ltstore.store.shard import bad_chunks, read_index
from ltstore.store.split import commit_path, commit_shards, commits_digest, read_commit
from ltstore.store.store import Store, open_store
from ltstore.types import Progress, RowStatus, no_progress

SHOWN_MISSING = 1000


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


def verify(path: str | Path, *, progress: Progress = no_progress) -> VerifyReport:
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
    _check_seal(report, "", "", store.path / GROUP_FILE)
    paths = list(_split_paths(store))
    if any(label.startswith("synthetic/") for label, _ in paths):
        _check_seal(report, "", "", store.path / "synthetic" / GROUP_FILE)
    for label, directory in paths:
        try:
            validate_name(directory.name, "split")
            where = directory / GROUP_FILE
            record = SplitRecord.from_json(read_attribute(where), str(where))
        except (LtstoreError, OSError) as err:
            report.problems.append(Problem(split=shown_line(label), array="", message=shown_line(err)))
            continue
        _Checker(report, label, directory, record, store.encoder.n_features, progress).run()
    report.notes += [
        f"{_one_line(str(leftover.relative_to(store.path)))} was left by a writer that was killed; nothing reads it"
        for leftover in sorted(store.path.rglob("*" + TEMPORARY_SUFFIX))
    ]
    report.seconds = time.perf_counter() - began
    return report


def _split_paths(store: Store) -> Iterator[tuple[str, Path]]:
    """Every directory that is or was a split: a damaged zarr.json must not hide one."""
    for prefix, parent in (("", store.path), ("synthetic/", store.path / "synthetic")):
        for entry in sorted(parent.glob("*/")):
            whole = (entry / GROUP_FILE).exists() or any((entry / "commits").glob("*.json"))
            if whole and not entry.name.endswith(TEMPORARY_SUFFIX) and entry != store.path / "synthetic":
                yield prefix + entry.name, entry


def _one_line(message: str) -> str:
    """Return a message as it is unless a file name in it breaks the line."""
    return message if message.isprintable() else shown_line(message)


def _check_seal(report: VerifyReport, split: str, array: str, path: Path) -> None:
    try:
        if seal_holds(read_json(path, LIMIT_ROOT_BYTES)):
            return
        message = f"{path} is not as it was written"
    except FileNotFoundError:
        message = f"{path} is missing"
    except (StoreFormatError, OSError) as err:
        message = str(err)
    report.problems.append(Problem(split=split, array=array, message=message))


class _Checker:
    """Looks at one split and adds to the report."""

    def __init__(
        self,
        report: VerifyReport,
        label: str,
        path: Path,
        record: SplitRecord,
        n_features: int,
        progress: Progress,
    ) -> None:
        self._report = report
        self._label = label
        self._path = path
        self._record = record
        self._plan = record.plan
        self._n_features = n_features
        self._progress = progress

    def _problem(
        self,
        array: str,
        message: str,
        shard: int | None = None,
        rows: tuple[int, int] | None = None,
        chunk: int | None = None,
    ) -> None:
        problem = Problem(
            split=self._label,
            array=shown_line(array),
            shard=shard,
            chunk=chunk,
            rows=rows,
            message=_one_line(message),
        )
        self._report.problems.append(problem)

    def run(self) -> None:
        _check_seal(self._report, self._label, "", self._path / GROUP_FILE)
        for array in ARRAYS:
            _check_seal(self._report, self._label, array, self._path / array / GROUP_FILE)
            self._layout(array)
        commits = []
        shards, others = commit_shards(self._path, self._plan)
        for shard in shards:
            if (commit := self._commit(shard)) is not None:
                commits.append(commit)
                self._shard(commit)
        if self._record.state == COMPLETE:
            self._missing(set(shards))
        for path in others:
            self._problem("commits", f"{path} is of a shard that the plan has not")
        if self._record.state != COMPLETE:
            self._report.notes.append(
                f"{self._label} is not complete: {len(commits)} of {self._plan.n_shards} shards are written"
            )
        elif len(commits) == self._plan.n_shards and commits_digest(commits) != self._record.digest:
            self._problem("commits", f"the commit records of {self._path} are not those it was finished with")
        self._subsets()

    def _layout(self, array: str) -> None:
        """Whether an array is the one of the plan, laid out as it was written, whatever its seal says."""
        dtype = {"embeddings": self._record.dtype, "labels": "int64", "status": "uint8"}[array]
        row_shape = (self._n_features,) if array == "embeddings" else ()
        try:
            own = StoredArray(self._path / array, self._plan, dtype, row_shape).own_layout
        except StoreFormatError as err:
            self._problem(array, str(err))
            return
        if not own:
            self._problem(array, f"{self._path / array} is laid out otherwise than it was written")

    def _missing(self, there: set[int]) -> None:
        """Name the first shards of a complete split that have no commit record, and count the rest."""
        shown = 0
        for shard in range(self._plan.n_shards):
            if shard in there:
                continue
            if shown == SHOWN_MISSING:
                n_more = self._plan.n_shards - len(there) - shown
                self._problem("commits", f"{n_more} more shards of {self._path} have no commit record")
                return
            path = commit_path(self._path, shard)
            message = f"{path} is missing though the split is complete"
            self._problem("commits", message, shard, self._plan.shard_range(shard))
            shown += 1

    def _commit(self, shard: int) -> CommitRecord | None:
        path, rows = commit_path(self._path, shard), self._plan.shard_range(shard)
        try:
            commit = read_commit(self._path, self._plan, shard)
            if not seal_holds(read_json(path)):
                self._problem("commits", f"{path} is not as it was written", shard, rows)
        except FileNotFoundError as err:
            self._problem("commits", str(err), shard, rows)
            return None
        except (StoreFormatError, OSError) as err:
            self._problem("commits", str(err), shard, rows)
            return None
        return commit

    def _shard(self, commit: CommitRecord) -> None:
        began = time.perf_counter()
        before = len(self._report.problems)
        for name in FILES:
            self._file(name, commit)
        if len(self._report.problems) == before:
            self._failures(commit)
        self._report.n_shards += 1
        self._progress(commit.stop - commit.start, {"read": time.perf_counter() - began})

    def _failures(self, commit: CommitRecord) -> None:
        """Whether a shard has as many failed rows as its record says."""
        rows = (commit.start, commit.stop)
        status = np.empty(commit.stop - commit.start, np.uint8)
        try:
            StoredArray(self._path / "status", self._plan, "uint8", ()).read(*rows, status)
        except StoreFormatError as err:
            self._problem("status", str(err), commit.shard, rows)
            return
        counts = np.bincount(status, minlength=256)
        if commit.failures != {
            s.name: int(counts[s]) for s in RowStatus if s is not RowStatus.OK and counts[s]
        }:
            message = f"{commit_path(self._path, commit.shard)} counts other failures than status holds"
            self._problem("commits", message, commit.shard, rows)

    def _file(self, name: str, commit: CommitRecord) -> None:
        split, rows = self._path, (commit.start, commit.stop)
        if name == "rows":
            path = part_path(split, commit.shard)
        else:
            path = shard_path(split / name, commit.shard, 2 if name == "embeddings" else 1)
        try:
            data = map_file(path)
        except (StoreFormatError, OSError) as err:
            self._problem(name, str(err), commit.shard, rows)
            return
        self._report.n_bytes += len(data)
        expected = commit.files[name]
        if hashlib.sha256(data.data).hexdigest() == expected["sha256"]:
            return
        if len(data) != expected["n_bytes"]:
            message = f"{path} must have {expected['n_bytes']} bytes, found {len(data)}"
            self._problem(name, message, commit.shard, rows)
        elif name == "rows":
            self._problem(name, f"{path} does not match its digest", commit.shard, rows)
        else:
            self._locate(name, commit, path)

    def _locate(self, name: str, commit: CommitRecord, path: Path) -> None:
        """Say which chunks of a damaged shard file are bad, and so which rows."""
        plan, rows = self._plan, (commit.start, commit.stop)
        data = map_file(path)
        try:
            bad = bad_chunks(data, read_index(data, plan.chunks_per_shard, str(path)))
        except StoreFormatError as err:
            self._problem(name, str(err), commit.shard, rows)
            return
        for chunk in bad:
            start = commit.start + chunk * plan.chunk_rows
            stop = min(start + plan.chunk_rows, commit.stop)
            message = (
                f"chunk {chunk} of {path} does not match its checksum: rows {start}..{stop - 1} are damaged"
            )
            self._problem(name, message, commit.shard, (start, stop), chunk)
        if not bad:
            self._problem(name, f"{path} is whole but not the file that was written", commit.shard, rows)

    def _subsets(self) -> None:
        directory = self._path / "subsets"
        found = [entry for entry in sorted(directory.glob("*/")) if not entry.name.endswith(TEMPORARY_SUFFIX)]
        if found:
            _check_seal(self._report, self._label, "subsets", directory / GROUP_FILE)
        for entry in found:
            array = f"subsets/{entry.name}"
            _check_seal(self._report, self._label, array, entry / GROUP_FILE)
            try:
                subsets.read(self._path, entry.name, self._plan.n_rows)
            except (LtstoreError, OSError) as err:
                self._problem(array, str(err))
