"""Named subsets of a split: arrays of row ids with the settings they were chosen by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from ltstore.atomic import TEMPORARY_SUFFIX, encode_json
from ltstore.errors import ConfigError, StoreExistsError, StoreFormatError, StoreNotFoundError
from ltstore.storage import Location, write_json
from ltstore.store.format import (
    ATTRIBUTE,
    GROUP_FILE,
    SubsetRecord,
    group_document,
    plain_json,
    read_attribute,
    seal,
    validate_name,
)
from ltstore.store.shard import as_bytes, crc32c
from ltstore.types import IntArray


def subset_location(split: Location, name: str) -> Location:
    """Return where a subset lies."""
    return split / "subsets" / validate_name(name, "subset")


def names(split: Location) -> tuple[str, ...]:
    """Return the names of the subsets of a split, sorted; what no subset can be called is passed over."""
    directory, found = split / "subsets", []
    for name in directory.child_names():
        with suppress(ConfigError):
            if (directory / validate_name(name, "subset") / GROUP_FILE).exists():
                found.append(name)
    return tuple(found)


def directories(split: Location) -> list[str]:
    """Return what lies below subsets/ and is or was a subset: a missing zarr.json must not hide one."""
    return [
        name
        for name in (split / "subsets").child_names()
        if name != GROUP_FILE and not name.startswith(".") and not name.endswith(TEMPORARY_SUFFIX)
    ]


def ids_digest(ids: IntArray) -> str:
    """Return "sha256:..." of row ids as little-endian int64."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(ids, "<i8").data).hexdigest()


def read_record(split: Location, name: str) -> SubsetRecord:
    """Return how a subset was made; StoreNotFoundError lists those that are there."""
    where = subset_location(split, name) / GROUP_FILE
    try:
        return SubsetRecord.from_json(read_attribute(where), str(where))
    except FileNotFoundError as err:
        known = ", ".join(names(split)) or "none"
        raise StoreNotFoundError(f"{split} has no subset {name!r}; there are: {known}") from err


def read(split: Location, name: str, n_rows: int) -> IntArray:
    """Return the row ids of a subset, validated: int64, ascending, unique, in 0..n_rows-1."""
    from ltstore.store.zarr_arrays import read_array

    record = read_record(split, name)
    location = subset_location(split, name)
    ids = read_array(location, slice(None))
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise StoreFormatError(f"{location} must be int64 row ids, found {ids.dtype} of shape {ids.shape}")
    if len(ids) and ids[-1] >= n_rows > 0 and ids_digest(ids) == record.ids_digest:
        raise StoreFormatError(
            f"{location} has row {ids[-1]}, and {split} had {n_rows} rows when it was opened: "
            "rows were appended since, open it anew"
        )
    if len(ids) and (ids[0] < 0 or ids[-1] >= n_rows or (np.diff(ids) <= 0).any()):
        raise StoreFormatError(
            f"{location} must be ascending row ids in 0..{n_rows - 1}: the subset is damaged"
        )
    if ids_digest(ids) != record.ids_digest:
        raise StoreFormatError(f"{location} holds other row ids than it was made with: the subset is damaged")
    return ids


def write(split: Location, name: str, ids: IntArray, settings: Mapping[str, Any], split_digest: str) -> None:
    """Store row ids under a name, whole or not at all."""
    from ltstore.store.zarr_arrays import array_document

    location = subset_location(split, name)
    record = SubsetRecord(
        split_digest=split_digest, ids_digest=ids_digest(ids), settings=plain_json(settings, "subset settings")
    )
    group = split / "subsets" / GROUP_FILE
    (split / "subsets").check_no_link(split)
    (split / "subsets").make_directory()
    lock = (split / "subsets").lock()
    try:
        if (location / GROUP_FILE).exists():
            if read_record(split, name) == record:
                location.clear_leftovers()  # of one who wrote it at the same time and was killed
                group.clear_leftovers()
                return
            raise StoreExistsError(
                f"{split} has a subset {name!r} with other rows or settings: choose another name"
            )
        if not group.exists():
            write_json(group, group_document())
        chunk = max(len(ids), 1)
        document = array_document((len(ids),), "int64", (chunk,), None)
        document["attributes"][ATTRIBUTE] = record.to_json()
        write_ids(location, ids, seal(document))
    finally:
        lock.release()


def write_ids(location: Location, ids: IntArray, document: Mapping[str, Any]) -> None:
    """Write the files of a subset, given its zarr.json."""
    files: dict[str, list[Any]] = {}
    if len(ids):
        data = as_bytes(np.ascontiguousarray(ids, "<i8"))
        files["c/0"] = [data.data, crc32c(data).to_bytes(4, "little")]
    location.write_group({**files, GROUP_FILE: [encode_json(document)]})
