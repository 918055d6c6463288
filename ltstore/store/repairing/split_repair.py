"""Mend one split.

It is done in this order, under the split's writer's lock, so that a kill at any moment leaves a store that the same
call finishes:

1. files that can be written again byte for byte from the rest of the store are;
2. every other damaged shard is copied to quarantine, then the split goes back to "writing", then the commit records of
   these shards are removed: they are pending, as after a run that was killed;
3. the maker runs what wrote the split: it writes the pending shards. `SplitWriter` keeps the rows whose stored bytes
   are whole, so only those that were damaged come from the maker;
4. where it cannot, the same rows are salvaged from quarantine and the others get the status LOST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.storage import Location, parallel_map, write_json
from ltstore.store import quarantine
from ltstore.store.check import check_shard, check_split
from ltstore.store.findings import Problem, Repair
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    FILES,
    GROUP_FILE,
    WRITING,
    CommitRecord,
    SplitRecord,
    group_document,
    read_attribute,
    read_json,
    seal_holds,
)
from ltstore.store.generation import commit_location, commits_digest, read_commit, read_commits, split_of
from ltstore.store.held import lost_text, read_held
from ltstore.store.parts import parse_part, part_location
from ltstore.store.repairing.maker import Maker, is_outage
from ltstore.store.repairing.restoring import FLIPPED, locked, rebuild_commit, restore_file, restore_record
from ltstore.store.repairing.subset_repair import SubsetRepair
from ltstore.store.split import Split
from ltstore.store.store import Store
from ltstore.store.writer import SplitWriter, array_documents
from ltstore.types import RowStatus


class SplitRepair:
    """Mends one directory that is laid out as a split."""

    def __init__(self, store: Store, label: str, location: Location, maker: Maker, done: list[Repair]) -> None:
        self._store = store
        self._label = label
        self._location = location
        self._maker = maker
        self._done = done
        self._n_features = store.encoder.n_features
        self.notes: list[str] = []

    def _note(self, action: str, array: str, message: str, shard: int | None = None, **more: Any) -> None:
        rows = more.get("rows")
        if shard is not None and rows is None:
            rows = self._record.plan.shard_range(shard)
        self._done.append(
            Repair(split=self._label, array=array, shard=shard, rows=rows, action=action, message=message)
        )

    def run(self, problems: list[Problem]) -> None:
        """Mend what the problems name, and finish what a killed repair has begun.

        Raises
        ------
        StoreFormatError
            What the split is cannot be known: nothing of it was touched.
        LtstoreError
            The source that the user named cannot be used, or the store cannot be read or written.
        """
        entries = quarantine.shard_entries(self._location)
        if not problems and not entries and not self._has_lost():
            return
        with locked(split_of(self._location)):
            if restore_record(self._location / GROUP_FILE):
                self._done.append(
                    Repair(split=self._label, array="", action="restored", message=f"its zarr.json: {FLIPPED}")
                )
                problems = check_split(self._store, self._label, self._location).problems
            self._record = self._trusted_record()
            commits = self._commits()
            self._restore_arrays(commits)
            damaged = self._restore(problems, commits)
            before = self._digest_before(commits, damaged)
            lost = [shard for shard, commit in commits.items() if commit.failures.get(RowStatus.LOST.name)]
            waiting = [shard for shard in entries if shard not in commits and shard not in damaged]
            make, reason = None, ""
            if before and (damaged or waiting or lost):
                make, reason = self._prepare()
            if make is not None:
                damaged |= {
                    shard: ["rows were lost, and may be made again"] for shard in lost if shard not in damaged
                }
            self._withdraw(damaged, before)
        if before and self._record.state != COMPLETE:
            self._finish(make, reason, before)
        if self._trusted_record().state == COMPLETE:
            self._mend_subsets()

    def _mend_subsets(self) -> None:
        """Mend the subsets, which lie below the first generation and may be of rows of all."""
        if split_of(self._location) is not self._location:
            return
        n_rows = Split(self._location, self._label, self._store.record).n_rows
        SubsetRepair(self._store, self._label, self._location, n_rows, self._maker, self._done).run()

    def _has_lost(self) -> bool:
        with suppress(LtstoreError, OSError):
            where = self._location / GROUP_FILE
            record = SplitRecord.from_json(read_attribute(where), str(where))
            commits = read_commits(self._location, record.plan).values()
            return any(RowStatus.LOST.name in commit.failures for commit in commits)
        return False

    # -- what the split is -----------------------------------------------------------------------------------

    def _trusted_record(self) -> SplitRecord:
        """Return what the split's zarr.json says, if that is what was written: all else is judged by it."""
        where = self._location / GROUP_FILE
        try:
            document = read_json(where)
            if seal_holds(document):
                return SplitRecord.from_json(read_attribute(where), str(where))
        except FileNotFoundError:
            pass
        except StoreFormatError:
            pass
        raise StoreFormatError(
            f"{where} is not as it was written, and nothing else in the store says how many rows {self._label} has and "
            "what they were made from: put that file back from a copy and run this again; nothing of the split was "
            "touched"
        )

    def _commits(self) -> dict[int, CommitRecord]:
        """Return the commit records that are as they were written."""
        there = set((self._location / "commits").child_names())
        plan = self._record.plan

        def read(shard: int) -> CommitRecord | None:
            with suppress(StoreFormatError, FileNotFoundError):
                commit = read_commit(self._location, plan, shard)
                if seal_holds(read_json(commit_location(self._location, shard))):
                    return commit
            return None

        shards = [
            shard for shard in range(plan.n_shards) if commit_location(self._location, shard).name in there
        ]
        found = parallel_map(self._location, read, shards)
        for at, shard in enumerate(shards):
            if found[at] is None and restore_record(commit_location(self._location, shard)):
                found[at] = read(shard)
                self._note("restored", "commits", FLIPPED, shard)
        return {shard: commit for shard, commit in zip(shards, found, strict=True) if commit is not None}

    def _digest_before(self, commits: Mapping[int, CommitRecord], damaged: Mapping[int, Any]) -> str:
        """Return the digest of the split when it was last complete; "" where it never was."""
        if self._record.state == COMPLETE:
            return self._record.digest
        entries = quarantine.shard_entries(self._location)
        candidates = [entry for shard, entry in entries.items() if shard not in commits or shard in damaged]
        return next((entry.split_digest for entry in candidates or entries.values() if entry.split_digest), "")

    # -- 1. what the store knows twice -----------------------------------------------------------------------

    def _restore_arrays(self, commits: Mapping[int, CommitRecord]) -> None:
        documents = array_documents(self._record, self._n_features)
        for array in ARRAYS:
            where = self._location / array / GROUP_FILE
            try:
                document = read_json(where)
                if seal_holds(document):
                    continue
                if self._is_foreign(array, document, documents[array], commits):
                    raise StoreFormatError(
                        f"{self._location / array} was laid out anew by another program: its values can be read, but "
                        "nothing says that they are those that were written; write the split again, or leave it so"
                    )
            except FileNotFoundError:
                pass
            except StoreFormatError as err:
                if "another program" in str(err):
                    raise
            write_json(where, documents[array])
            self._note("restored", array, f"{where} follows from the record of the split")

    def _is_foreign(
        self,
        array: str,
        found: Mapping[str, Any],
        ours: Mapping[str, Any],
        commits: Mapping[int, CommitRecord],
    ) -> bool:
        """Whether the array is of another layout on purpose: its files are not ours either."""
        same = all(found.get(key) == ours[key] for key in ("chunk_grid", "chunk_key_encoding", "codecs"))
        if same or not commits or found.get("node_type") != "array":
            return False
        for shard, commit in commits.items():
            with suppress(FileNotFoundError):
                n_bytes = len(quarantine.file_location(self._location, array, shard).view())
                if n_bytes == commit.files[array]["n_bytes"]:
                    return False
        return True

    def _restore(self, problems: list[Problem], commits: dict[int, CommitRecord]) -> dict[int, list[str]]:
        """Write what can be written again; return what is wrong with the shards that are still damaged."""
        plan, record = self._record.plan, self._record
        named = {problem.shard for problem in problems if problem.shard is not None}
        there = set((self._location / "commits").child_names())
        entries = quarantine.shard_entries(self._location)
        suspects = [
            shard
            for shard in range(plan.n_shards)
            if shard not in commits
            and (record.state == COMPLETE or commit_location(self._location, shard).name in there)
        ]
        before = self._digest_before(commits, dict.fromkeys(suspects))
        if before:
            self._restore_commits(before, suspects, sorted(named), commits, entries)
        self._extra_commits(there)
        damaged: dict[int, list[str]] = {}
        for shard in sorted(named | set(suspects)):
            if shard in commits:
                if messages := self._restore_files(commits[shard]):
                    damaged[shard] = messages
            elif shard in suspects:
                found = check_shard(self._label, self._location, record, shard)
                messages = [problem.message for problem in found.report.problems]
                damaged[shard] = messages or ["its commit record is not the one that was written"]
        return damaged

    def _restore_commits(
        self,
        before: str,
        suspects: list[int],
        named: list[int],
        commits: dict[int, CommitRecord],
        entries: Mapping[int, quarantine.Entry],
    ) -> None:
        """Write commit records again from the files, if all of them together then have the digest of the split."""
        known: dict[int, CommitRecord | None] = dict(commits)
        for shard, entry in entries.items():
            if shard not in commits and shard not in suspects:
                known[shard] = entry.commit()
        if not suspects:
            if self._record.state != COMPLETE or commits_digest(_in_order(known)) == before:
                return
            suspects = named  # a record of another run may be sealed: its files then do not match it
        rebuilt = {
            shard: rebuild_commit(self._location, self._record, self._n_features, shard) for shard in suspects
        }
        together = {**known, **{shard: again.commit if again else None for shard, again in rebuilt.items()}}
        complete = len(together) == self._record.plan.n_shards and None not in together.values()
        if complete and suspects and commits_digest(_in_order(together)) == before:
            for shard, again in rebuilt.items():
                if again is None or again.commit == commits.get(shard):
                    continue
                for name, pieces in again.files.items():
                    location = quarantine.file_location(self._location, name, shard)
                    location.write(pieces)
                    self._note("restored", name, f"{location} follows from the rest of its shard", shard)
                write_json(commit_location(self._location, shard), again.commit.to_json())
                commits[shard] = again.commit
                message = (
                    "its commit record follows from its files and the digest of the split; timings are lost"
                )
                self._note("restored", "commits", message, shard)
        elif all(shard in commits for shard in suspects):
            raise StoreFormatError(
                f"the commit records of {self._location} are not those it was finished with, and which of them is "
                "wrong cannot be told: put the split back from a copy, or write it again elsewhere; none of its shards "
                "was touched"
            )

    def _extra_commits(self, there: set[str]) -> None:
        planned = {commit_location(self._location, shard).name for shard in range(self._record.plan.n_shards)}
        for name in sorted(there - planned):
            if name.endswith(".json"):
                where = self._location / "commits" / name
                stem = f"commit-{name.removesuffix('.json')}"
                kept = quarantine.put_files(
                    self._location, stem, {name: where}, ["of a shard that the plan has not"]
                )
                where.remove()
                message = f"{where} is of a shard that the plan has not; it is kept in quarantine/{kept}"
                self._note("quarantined", "commits", message)

    def _restore_files(self, commit: CommitRecord) -> list[str]:
        found = check_shard(self._label, self._location, self._record, commit.shard).report
        bad = {problem.array for problem in found.problems}
        for name in sorted(bad & set(FILES), key=("rows", *ARRAYS).index):  # others are made from the part
            location = quarantine.file_location(self._location, name, commit.shard)
            made_from = restore_file(self._location, self._record, self._n_features, name, commit)
            if made_from is not None:
                self._note("restored", name, f"{location} was written again from {made_from}", commit.shard)
                bad.discard(name)
        return [problem.message for problem in found.problems if problem.array in bad]

    # -- 2. what is damaged goes aside -----------------------------------------------------------------------

    def _withdraw(self, damaged: Mapping[int, list[str]], before: str) -> None:
        """Copy shards to quarantine and make them pending."""
        if not damaged:
            return
        for shard, messages in sorted(damaged.items()):
            entry = quarantine.put_shard(
                self._location, self._record, shard, split_digest=before, problems=messages
            )
            then = "" if before else "; the split was never complete: its own command writes the shard again"
            message = f"its files are kept as they were found in {entry.location}{then}"
            self._note("quarantined", "", message, shard)
        if self._record.state == COMPLETE:
            self._record = replace(self._record, state=WRITING, digest="")
            write_json(self._location / GROUP_FILE, group_document(self._record.to_json()))
        for shard in sorted(damaged):
            commit_location(self._location, shard).remove()

    # -- 3. what can be made again ---------------------------------------------------------------------------

    def _prepare(self) -> tuple[Callable[[], object] | None, str]:
        try:
            return self._maker.prepare(self._store, self._label, self._location, self._record), ""
        except LtstoreError as err:
            if self._maker.insists(self._label) or is_outage(err):
                raise
            return None, str(err)

    def _finish(self, make: Callable[[], object] | None, reason: str, before: str) -> None:
        entries = quarantine.shard_entries(self._location)
        there = read_commits(self._location, self._record.plan)
        waiting = [shard for shard in entries if shard not in there]
        if make is not None:
            try:
                make()
            except LtstoreError as err:
                if self._maker.insists(self._label) or is_outage(err):
                    raise
                make, reason = None, str(err)
        if make is None:
            self._salvage(reason)
        self._say_what_became(waiting, entries, before, made=make is not None)

    def _say_what_became(
        self, waiting: list[int], entries: Mapping[int, quarantine.Entry], before: str, *, made: bool
    ) -> None:
        record = self._trusted_record()
        commits = read_commits(self._location, record.plan)
        for shard in waiting:
            if shard not in commits:
                continue
            then, now = entries[shard].commit(), commits[shard]
            if then is not None and then.files == now.files:
                self._note("re-made", "", "it is bit for bit as it was", shard)
                continue
            gone = sum(now.failures.values()) - (sum(then.failures.values()) if then else 0)
            if made:
                self._note(
                    "re-made", "", "damaged rows were made again; its files differ from what they were", shard
                )
                if gone > 0:
                    message = (
                        f"{gone} rows that had an embedding have none in the source any more: {now.failures}"
                    )
                    self._note("lost", "", message, shard)
        if record.state != COMPLETE:
            raise StoreFormatError(
                f"{self._location} was complete and is not any more, and what is left of its pending shards cannot be "
                f"read in {self._location / quarantine.DIRECTORY}: name its source, or write the split again"
            )
        if record.digest != before:
            message = (
                f"{self._label} has a new digest: indexes, moments and synthetic rows that were made from it are "
                f"stale, and models name the old one ({before})"
            )
            self.notes.append(message)

    # -- 4. what is lost -------------------------------------------------------------------------------------

    def _salvage(self, reason: str) -> None:
        """Write the pending shards in quarantine from what is left of them, and finish the split."""
        entries = quarantine.shard_entries(self._location)
        split = split_of(self._location)
        lock = split.lock()
        try:
            writer = SplitWriter(
                self._location,
                self._store.record,
                self._record,
                False,
                lock,
                lambda: Split(split, self._label, self._store.record),
            )
        except BaseException:
            lock.release()
            raise
        with writer:
            for shard in writer.pending:
                entry = entries.get(shard)
                held = None if entry is None else read_held(entry, self._record, shard, self._n_features)
                if held is None or entry is None:
                    continue
                columns = held.salvage(self._schema(shard))
                writer.write_shard(shard, **columns)
                self._say_what_is_lost(shard, columns, entry, reason)
            if not writer.pending:
                writer.finish()

    def _schema(self, shard: int) -> Any:
        """Return the columns of another part of the split; None where there is none."""
        plan = self._record.plan
        for other, commit in read_commits(self._location, plan).items():
            if other != shard:
                with suppress(StoreFormatError, FileNotFoundError):
                    data = part_location(self._location, other).view()
                    return parse_part(data, commit.stop - commit.start, "the part").schema
        return None

    def _say_what_is_lost(
        self, shard: int, columns: Mapping[str, Any], entry: quarantine.Entry, reason: str
    ) -> None:
        plan = self._record.plan
        start, stop = plan.shard_range(shard)
        status = columns["status"]
        for first in range(0, stop - start, plan.chunk_rows):
            last = min(first + plan.chunk_rows, stop - start)
            n_lost = int((status[first:last] == RowStatus.LOST).sum())
            if n_lost:
                message = (
                    f"{n_lost} embeddings of chunk {first // plan.chunk_rows} are lost: they could not be re-made "
                    f"({reason}); the damaged file is {entry.location / 'embeddings'}"
                )
                self._note("lost", "embeddings", message, shard, rows=(start + first, start + last))
        for array, what in (("rows", "key"), ("labels", "label")):
            lost = [lost_text(what) in (text or "") for text in columns["errors"]]
            if any(lost):
                message = (
                    f"{sum(lost)} {what}s are lost ({reason}); what is left of them is in {entry.location}"
                )
                self._note("lost", array, message, shard)


def _in_order(commits: Mapping[int, CommitRecord | None]) -> list[CommitRecord]:
    return [commit for _, commit in sorted(commits.items()) if commit is not None]
