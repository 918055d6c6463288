"""What is written in a store's JSON, and the validation of what is read from it (pure).

Everything here is untrusted when read: a store may be damaged, hostile, or written by a later version.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from ltstore.errors import ConfigError, StoreFormatError
from ltstore.storage import Location
from ltstore.store.plan import LIMIT_ROWS, LIMIT_SHARD_ROWS, ShardPlan
from ltstore.types import EncoderIdentity

FORMAT_VERSION = 2
"""The greatest that is read."""
APPENDED_VERSION = 2
FIRST_VERSION = 1
"""What a new store is, until something is written into it that version 1 does not know."""
ATTRIBUTE = "ltstore"
GROUP_FILE = "zarr.json"
DTYPES = ("float16", "float32")
WRITING, COMPLETE = "writing", "complete"
ARRAYS = ("embeddings", "labels", "status")
FILES = (*ARRAYS, "rows")
RESERVED_NAMES = ("stats", "indexes", "synthetic")
UNWRITTEN = 255  # in memory only: the status of rows whose shard is not there yet

_LIMIT_FEATURES = 1 << 20
_LIMIT_CLASSES = 1 << 24
LIMIT_ROOT_BYTES = 1 << 26  # class names
_LIMIT_JSON_BYTES = 1 << 24  # every other record
_LIMIT_NAME_BYTES = 200
_LIMIT_DEPTH = 64
_SEAL = "sha256"
_STATUS_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")  # a later version may know more of them


def validate_name(name: str, what: str) -> str:
    """Return `name` if it may be a directory of the store: letters, digits, "_", "-" and "." only.

    Letters of any script are fine. ConfigError for anything that could be another path: a separator, a
    leading ".", the suffix of temporary files, more than 200 bytes, or a decomposed (non-NFC) spelling.
    """
    allowed = isinstance(name, str) and all(
        unicodedata.category(char)[0] in "LM" or unicodedata.category(char) == "Nd" or char in "_-."
        for char in name
    )
    if (
        not allowed
        or not name
        or name[0] in ".-"
        or name == GROUP_FILE
        or name.endswith(".tmp")
        or len(name.encode()) > _LIMIT_NAME_BYTES
        or unicodedata.normalize("NFC", name) != name
    ):
        raise ConfigError(f"{what} name must be letters, digits, '_', '-' or '.' (not first), found {name!r}")
    return name


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a JSON value that digests are taken of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Return "sha256:" + hex of the canonical JSON of a value."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def plain_json(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return a mapping as it will be read back (tuples become lists); ConfigError where JSON cannot hold it."""
    try:
        text = json.dumps(dict(value or {}), allow_nan=False, ensure_ascii=False)
        plain = json.loads(text.encode())
    except (TypeError, ValueError) as err:
        raise ConfigError(f"{what} must hold JSON values only: {err}") from err
    return cast(dict[str, Any], plain)


def _seal_of(document: Mapping[str, Any]) -> str:
    bare = copy.deepcopy(dict(document))
    _seal_holder(bare).pop(_SEAL, None)
    return digest_of(bare)


def _seal_holder(document: dict[str, Any]) -> dict[str, Any]:
    """Zarr forbids unknown keys at the top of a zarr.json, so there the seal lies in our own attribute."""
    if "zarr_format" not in document and "attributes" not in document:
        return document
    holder = document.get("attributes")
    holder = holder.get(ATTRIBUTE) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a JSON document with the digest of all the rest of it inside."""
    sealed = copy.deepcopy(dict(document))
    _seal_holder(sealed)[_SEAL] = _seal_of(document)
    return sealed


def seal_holds(document: dict[str, Any]) -> bool:
    """Whether a sealed document is as it was written."""
    try:
        return bool(_seal_holder(document).get(_SEAL) == _seal_of(document))
    except ValueError:  # a number that JSON cannot hold, such as 1e999
        return False


def group_document(record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the zarr.json of a group, sealed, with `record` as its "ltstore" attribute."""
    return seal({"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: dict(record or {})}})


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is no number that a float holds")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; ValueError where a key is there twice, which two readers may take for two things."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def shown(value: Any) -> str:
    """Return an untrusted value for a message: on one line, and not much of it."""
    found = repr(value)
    return found if len(found) <= 60 else found[:57] + "..."


def shown_line(message: BaseException | str) -> str:
    """Return what a foreign error or name says, on one line, and not much of it."""
    text = " ".join(str(message).split()) or type(message).__name__
    text = "".join(char if char.isprintable() else "?" for char in text[:301])
    return text if len(text) <= 300 else text[:297] + "..."


def _check_depth(document: Any) -> None:
    """Raise ValueError where values are nested deeper than any record: they would exhaust the stack later."""
    level = [document]
    for _ in range(_LIMIT_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {_LIMIT_DEPTH}")


def read_json(location: Location, limit: int = _LIMIT_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file of at most `limit` bytes; FileNotFoundError passes.

    StoreFormatError names the file where it is no regular file or no strict JSON: UTF-8, each key once, finite
    numbers, whole Unicode characters.
    """
    try:
        data = location.read(limit + 1)
        if len(data) > limit:
            raise StoreFormatError(
                f"{location} is larger than any record of its kind ({limit} bytes): it is not one"
            )
        text = data.decode()
        document = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
        _check_depth(document)
        if "\\u" in text:  # an escape may be half a character, which no terminal and no file can hold
            json.dumps(document, ensure_ascii=False).encode()
    except (StoreFormatError, FileNotFoundError):
        raise
    except (ValueError, RecursionError) as err:
        raise StoreFormatError(f"{location} is not valid JSON ({err}): the store is damaged") from err
    if not isinstance(document, dict):
        raise StoreFormatError(f"{location} must hold a JSON object, found {type(document).__name__}")
    return document


def read_attribute(location: Location, *, root: bool = False) -> dict[str, Any]:
    """Return the "ltstore" attribute of a zarr.json; that of a store (`root`) may be larger."""
    attributes = read_json(location, LIMIT_ROOT_BYTES if root else _LIMIT_JSON_BYTES).get("attributes")
    record = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(record, dict):
        raise StoreFormatError(f"{location} has no attribute '{ATTRIBUTE}': it belongs to no ltstore store")
    return record


class Fields:
    """Takes values out of an untrusted record; each is checked for type and range or StoreFormatError."""

    def __init__(self, record: Any, where: str) -> None:
        if not isinstance(record, dict):
            raise StoreFormatError(f"{where}: expected an object, found {type(record).__name__}")
        self._record = record
        self._where = where

    def _fail(self, name: str, expected: str) -> StoreFormatError:
        found = shown(self._record.get(name, "nothing"))
        return StoreFormatError(f"{self._where}: {name} must be {expected}, found {found}")

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        value = self._record.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._fail(name, f"an integer from {low} to {high}")
        return value

    def text(self, name: str, choices: tuple[str, ...] = ()) -> str:
        """Return a string, one of `choices` where there are any."""
        value = self._record.get(name)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self._fail(name, "one of " + ", ".join(choices) if choices else "a string")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """Return a JSON object."""
        value = self._record.get(name)
        if not isinstance(value, dict):
            raise self._fail(name, "an object")
        return value

    def numbers(self, name: str) -> dict[str, float]:
        """Return an object whose values are all numbers."""
        value = self.object(name)
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value.values()):
            raise self._fail(name, "an object of numbers")
        return value

    def strings(self, name: str, limit: int) -> tuple[str, ...]:
        """Return a list of at most `limit` strings."""
        value = self._record.get(name)
        if not isinstance(value, list) or len(value) > limit or not all(isinstance(v, str) for v in value):
            raise self._fail(name, "a list of strings")
        return tuple(value)


def identity_from_json(record: Any, where: str) -> EncoderIdentity:
    """Return a validated EncoderIdentity."""
    checked = Fields(record, f"{where}: encoder")
    known = {f.name for f in fields(EncoderIdentity)}
    if set(record) != known:
        raise StoreFormatError(f"{where}: encoder must have {sorted(known)}, found {shown(sorted(record))}")
    for name in ("encoder", "model", "weights", "weights_digest", "features"):
        checked.text(name)
    checked.integer("n_features", 1, _LIMIT_FEATURES)
    checked.object("preprocessing")
    if not isinstance(record["normalized"], bool):
        raise StoreFormatError(f"{where}: encoder: normalized must be true or false")
    return EncoderIdentity.from_json(record)


@dataclass(frozen=True, kw_only=True)
class RootRecord:
    """The "ltstore" attribute of a store."""

    encoder: EncoderIdentity
    class_names: tuple[str, ...]
    format_version: int = FIRST_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the attribute."""
        return {
            "format_version": self.format_version,
            "encoder": plain_json(self.encoder.to_json(), "encoder identity"),
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_json(cls, record: Any, where: str) -> RootRecord:
        """Validate the attribute; StoreFormatError for a newer version or a bad value."""
        values = Fields(record, where)
        version = values.integer("format_version", 1, 1 << 31)
        if version > FORMAT_VERSION:
            raise StoreFormatError(
                f"{where}: format version {version} is newer than the {FORMAT_VERSION} this ltstore reads: upgrade it"
            )
        return cls(
            encoder=identity_from_json(values.object("encoder"), where),
            class_names=values.strings("class_names", _LIMIT_CLASSES),
            format_version=version,
        )


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """The "ltstore" attribute of a generation of a split; `digest` is there once the state is "complete".

    `first_row` and `follows` (the digest of the split so far) are those of rows that were appended.
    """

    n_rows: int
    rows_per_shard: int
    chunk_rows: int
    dtype: str
    source_digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: str = WRITING
    digest: str = ""
    first_row: int = 0
    follows: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the attribute."""
        record = asdict(self)
        if not self.follows:
            del record["first_row"], record["follows"]
        return record

    @property
    def plan(self) -> ShardPlan:
        """The plan of its rows."""
        return ShardPlan(n_rows=self.n_rows, rows_per_shard=self.rows_per_shard, chunk_rows=self.chunk_rows)

    @classmethod
    def from_json(cls, record: Any, where: str) -> SplitRecord:
        """Validate the attribute."""
        values = Fields(record, where)
        appended: dict[str, Any] = {}
        if "follows" in record:
            appended = {
                "first_row": values.integer("first_row", 0, LIMIT_ROWS),
                "follows": values.text("follows"),
            }
        found = cls(
            n_rows=values.integer("n_rows", 0, LIMIT_ROWS),
            rows_per_shard=values.integer("rows_per_shard", 1, LIMIT_SHARD_ROWS),
            chunk_rows=values.integer("chunk_rows", 1, LIMIT_SHARD_ROWS),
            dtype=values.text("dtype", DTYPES),
            source_digest=values.text("source_digest"),
            settings=values.object("settings"),
            state=values.text("state", (WRITING, COMPLETE)),
            digest=values.text("digest"),
            **appended,
        )
        try:
            found.plan  # noqa: B018 - a plan validates itself
        except ConfigError as err:
            raise StoreFormatError(f"{where}: {err}") from err
        return found


@dataclass(frozen=True, kw_only=True)
class CommitRecord:
    """What was written for one shard: commits/NNNNN.json.

    `files` has {"sha256": hex, "n_bytes": int} for embeddings, labels, status and rows.
    """

    shard: int
    start: int
    stop: int
    files: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, int]
    zero_norm: int
    timings: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the document, sealed."""
        return seal(asdict(self))

    @classmethod
    def from_json(cls, document: Any, where: str) -> CommitRecord:
        """Validate the document."""
        values = Fields(document, where)
        files = values.object("files")
        checked = {}
        for name in FILES:
            entry = Fields(Fields(files, where).object(name), f"{where}: {name}")
            checked[name] = {"sha256": entry.text("sha256"), "n_bytes": entry.integer("n_bytes", 0, 1 << 62)}
        failures = values.object("failures")
        counts = Fields(failures, where)
        if bad := sorted(name for name in failures if not _STATUS_NAME.fullmatch(name) or name == "OK"):
            raise StoreFormatError(f"{where}: failures must be counted by status name, found {shown(bad[0])}")
        return cls(
            shard=values.integer("shard", 0, LIMIT_ROWS),
            start=values.integer("start", 0, LIMIT_ROWS),
            stop=values.integer("stop", 0, LIMIT_ROWS),
            files=checked,
            failures={name: counts.integer(name, 1, LIMIT_ROWS) for name in failures},
            zero_norm=values.integer("zero_norm", 0, LIMIT_ROWS),
            timings=values.numbers("timings"),
        )


@dataclass(frozen=True, kw_only=True)
class SubsetRecord:
    """The "ltstore" attribute of a subset: what its row ids were chosen from, and how."""

    split_digest: str
    ids_digest: str
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the attribute."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Any, where: str) -> SubsetRecord:
        """Validate the attribute."""
        values = Fields(record, where)
        return cls(
            split_digest=values.text("split_digest"),
            ids_digest=values.text("ids_digest"),
            settings=values.object("settings"),
        )
