"""Named subsets of a split: arrays of row ids with the settings they were chosen by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import atomic_directory, check_no_link, clear_leftovers, write_bytes, write_json
from ltstore.errors import ConfigError, StoreExistsError, StoreFormatError, StoreNotFoundError
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


def subset_path(split: Path, name: str) -> Path:
    """Return the directory of a subset."""
    return split / "subsets" / validate_name(name, "subset")


def names(split: Path) -> tuple[str, ...]:
    """Return the names of the subsets of a split, sorted; what no subset can be called is passed over."""
    found = []
    for entry in (split / "subsets").glob(f"*/{GROUP_FILE}"):
        with suppress(ConfigError):
            found.append(validate_name(entry.parent.name, "subset"))
    return tuple(sorted(found))


def ids_digest(ids: IntArray) -> str:
    """Return "sha256:..." of row ids as little-endian int64."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(ids, "<i8").data).hexdigest()


def read_record(split: Path, name: str) -> SubsetRecord:
    """Return how a subset was made; StoreNotFoundError lists those that are there."""
    where = subset_path(split, name) / GROUP_FILE
    try:
        return SubsetRecord.from_json(read_attribute(where), str(where))
    except FileNotFoundError as err:
        known = ", ".join(names(split)) or "none"
        raise StoreNotFoundError(f"{split} has no subset {name!r}; there are: {known}") from err


def read(split: Path, name: str, n_rows: int) -> IntArray:
    """Return the row ids of a subset, validated: int64, ascending, unique, in 0..n_rows-1."""
    from ltstore.store.zarr_arrays import read_array

    record = read_record(split, name)
    path = subset_path(split, name)
    ids = read_array(path, slice(None))
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise StoreFormatError(f"{path} must be int64 row ids, found {ids.dtype} of shape {ids.shape}")
    if len(ids) and (ids[0] < 0 or ids[-1] >= n_rows or (np.diff(ids) <= 0).any()):
        raise StoreFormatError(f"{path} must be ascending row ids in 0..{n_rows - 1}: the subset is damaged")
    if ids_digest(ids) != record.ids_digest:
        raise StoreFormatError(f"{path} holds other row ids than it was made with: the subset is damaged")
    return ids


def write(split: Path, name: str, ids: IntArray, settings: Mapping[str, Any], split_digest: str) -> None:
    """Store row ids under a name, whole or not at all."""
    from ltstore.store.zarr_arrays import array_document

    path = subset_path(split, name)
    record = SubsetRecord(
        split_digest=split_digest, ids_digest=ids_digest(ids), settings=plain_json(settings, "subset settings")
    )
    if path.exists():
        if read_record(split, name) == record:
            clear_leftovers(path)  # of one who wrote it at the same time and was killed
            clear_leftovers(path.parent / GROUP_FILE)
            return
        raise StoreExistsError(
            f"{split} has a subset {name!r} with other rows or settings: choose another name"
        )
    check_no_link(split.parent, path.parent)
    if not (path.parent / GROUP_FILE).exists():
        write_json(path.parent / GROUP_FILE, group_document())
    chunk = max(len(ids), 1)
    document = array_document((len(ids),), "int64", (chunk,), None)
    document["attributes"][ATTRIBUTE] = record.to_json()
    with atomic_directory(path) as new:
        write_json(new / GROUP_FILE, seal(document))
        if len(ids):
            data = as_bytes(np.ascontiguousarray(ids, "<i8"))
            write_bytes(new / "c" / "0", data.tobytes() + crc32c(data).to_bytes(4, "little"))
