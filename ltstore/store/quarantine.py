"""Damaged shards and subsets as they were found, kept below their split: SPLIT/quarantine/NAME-N/.

NAME is the number of a shard (five digits or more), ``subset-`` and the name of a subset, or ``commit-`` and that of a
commit record without a shard. N counts from 1: nothing that was put there is ever written over. `record.json` comes
last, so an entry is there whole or not at all. Readers of a split never look here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltstore.atomic import encode_json
from ltstore.errors import StoreFormatError
from ltstore.storage import Location
from ltstore.store.format import FILES, CommitRecord, Fields, SplitRecord, read_json, seal
from ltstore.store.parts import part_location
from ltstore.store.reader import shard_location

if TYPE_CHECKING:
    from typing_extensions import Buffer

DIRECTORY = "quarantine"
RECORD_FILE = "record.json"
COMMIT_FILE = "commit.json"
_ENTRY = re.compile(r"(?P<name>.+)-(?P<number>[1-9][0-9]{0,8})")
_SHARD = re.compile(r"[0-9]{5,}")


def kept_name(name: str) -> str:
    """Return how a file of a shard ("embeddings", ..., "rows") is called in quarantine."""
    return "rows.parquet" if name == "rows" else name


def file_location(split: Location, name: str, shard: int) -> Location:
    """Return where a file of a shard lies: "embeddings", "labels", "status" or "rows"."""
    if name == "rows":
        return part_location(split, shard)
    return shard_location(split / name, shard, 2 if name == "embeddings" else 1)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A shard in quarantine.

    Attributes
    ----------
    location : Location
    where : str
        Its place as seen from the split: what the error text of a lost row says.
    start, stop : int
        Its rows.
    split_digest : str
        Of the split when it was last complete; "" where it never was.
    source_digest : str
    files : mapping of str to {"sha256", "n_bytes"}
        What is kept, under the names of quarantine.
    """

    location: Location
    where: str
    start: int
    stop: int
    split_digest: str
    source_digest: str
    files: Mapping[str, Mapping[str, Any]]

    def commit(self) -> CommitRecord | None:
        """Return the commit record that is kept with it; None where that is damaged too."""
        with suppress(StoreFormatError, FileNotFoundError):
            document = read_json(self.location / COMMIT_FILE)
            commit = CommitRecord.from_json(document, str(self.location))
            if (commit.start, commit.stop) == (self.start, self.stop) and commit.to_json() == document:
                return commit
        return None


def names(split: Location) -> list[str]:
    """Return the names of the entries, sorted; those without a record were never finished."""
    directory = split / DIRECTORY
    return [
        name
        for name in directory.child_names()
        if _ENTRY.fullmatch(name) and (directory / name / RECORD_FILE).exists()
    ]


def _numbered(split: Location, stem: str) -> list[int]:
    """Return the numbers of the entries of that name, ascending."""
    parts = [_ENTRY.fullmatch(name) for name in names(split)]
    return sorted(int(part["number"]) for part in parts if part and part["name"] == stem)


def shard_entries(split: Location) -> dict[int, Entry]:
    """Return the newest entry of every shard that has one; an entry whose record is damaged is passed over."""
    parts = [
        part for name in names(split) if (part := _ENTRY.fullmatch(name)) and _SHARD.fullmatch(part["name"])
    ]
    found = {}
    for part in sorted(parts, key=lambda part: int(part["number"])):
        with suppress(StoreFormatError):
            found[int(part["name"])] = _read(split, part[0])
    return dict(sorted(found.items()))


def _read(split: Location, name: str) -> Entry:
    location = split / DIRECTORY / name
    where = location / RECORD_FILE
    document = read_json(where)
    values = Fields(document, str(where))
    files = values.object("files")
    for file in files:
        entry = Fields(Fields(files, str(where)).object(file), f"{where}: {file}")
        entry.text("sha256")
        entry.integer("n_bytes", 0, 1 << 62)
    return Entry(
        location=location,
        where=f"{DIRECTORY}/{name}",
        start=values.integer("start", 0, 1 << 62),
        stop=values.integer("stop", 0, 1 << 62),
        split_digest=values.text("split_digest"),
        source_digest=values.text("source_digest"),
        files=files,
    )


def put_shard(
    split: Location, record: SplitRecord, shard: int, *, split_digest: str, problems: Sequence[str]
) -> Entry:
    """Copy the files of a shard as they are; nothing is copied where the newest entry holds just these.

    Parameters
    ----------
    split : Location
    record : SplitRecord
    shard : int
    split_digest : str
        Of the split when it was last complete.
    problems : sequence of str
        What is wrong with the shard.
    """
    start, stop = record.plan.shard_range(shard)
    places = {kept_name(name): file_location(split, name, shard) for name in FILES}
    places[COMMIT_FILE] = split / "commits" / f"{shard:05d}.json"
    about = {
        "shard": shard,
        "start": start,
        "stop": stop,
        "source_digest": record.source_digest,
        "split_digest": split_digest,
    }
    name = _put(split, f"{shard:05d}", places, about, problems)
    return _read(split, name)


def put_files(split: Location, stem: str, places: Mapping[str, Location], problems: Sequence[str]) -> str:
    """Copy files as they are and return the name of the entry."""
    return _put(split, stem, places, {}, problems)


def _put(
    split: Location,
    stem: str,
    places: Mapping[str, Location],
    about: Mapping[str, Any],
    problems: Sequence[str],
) -> str:
    contents: dict[str, Sequence[Buffer]] = {}
    files = {}
    for name, place in places.items():
        with suppress(FileNotFoundError):
            data = place.view()
            contents[name] = [data.data]
            files[name] = {"sha256": hashlib.sha256(data.data).hexdigest(), "n_bytes": len(data)}
    numbers = _numbered(split, stem)
    if numbers:
        newest = f"{stem}-{numbers[-1]}"
        with suppress(StoreFormatError):
            kept = read_json(split / DIRECTORY / newest / RECORD_FILE)
            same = isinstance(kept.get("files"), dict) and files.items() <= kept["files"].items()
            if same and about.items() <= kept.items():
                return newest
    name = f"{stem}-{numbers[-1] + 1 if numbers else 1}"
    texts = [text.replace(f"{split}/", "") for text in problems]  # a store may be moved
    record = seal({**about, "files": files, "problems": texts})
    (split / DIRECTORY / name).write_group({**contents, RECORD_FILE: [encode_json(record)]})
    return name
