"""Moments on disk: one safetensors file, and beside it a JSON record with what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import write_bytes, write_json
from ltstore.errors import ChecksumMismatchError, DataError, StoreFormatError, StoreNotFoundError
from ltstore.provenance import seal_holds, sealed
from ltstore.stats.moments import ClassMoments
from ltstore.storage import read_regular
from ltstore.types import Moments


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def save_moments(moments: Moments, path: Path, record: Mapping[str, Any]) -> None:
    """Write moments and their record atomically, replacing what was there.

    Parameters
    ----------
    moments : Moments
    path : Path
        The safetensors file; the record goes to the same name with ".json" added.
    record : mapping
        From `ltstore.provenance.record`; ``record["made_from"]["rows"]`` is the digest of the rows.

    Raises
    ------
    DataError
        The record does not name the rows it was made from.
    StoreWriteError
        The files cannot be written.
    """
    from safetensors.numpy import save

    if not record.get("made_from", {}).get("rows"):
        raise DataError('the record of moments needs made_from["rows"], the digest of the rows they describe')
    data = save({f.name: np.ascontiguousarray(getattr(moments, f.name)) for f in fields(ClassMoments)})
    # The record is written last and carries the checksum: a crash between the two is seen as a mismatch.
    write_bytes(path, data)
    write_json(_record_path(path), sealed({**record, "sha256": hashlib.sha256(data).hexdigest()}))


def load_moments(path: Path, *, rows_digest: str) -> ClassMoments:
    """Read moments and refuse those of other rows.

    Parameters
    ----------
    path : Path
        As given to `save_moments`.
    rows_digest : str
        ``rows.digest`` of the rows that the moments will be used with.

    Raises
    ------
    StoreNotFoundError
        A file is missing.
    StoreFormatError
        The record or the arrays cannot be understood.
    DataError
        The moments are of other rows.
    ChecksumMismatchError
        The bytes are not those the record was written for.
    """
    try:
        record = json.loads(read_regular(_record_path(path)))
        found, expected = record["made_from"]["rows"], record["sha256"]
        data = read_regular(path)
    except FileNotFoundError as err:
        raise StoreNotFoundError(f"no moments at {path}: compute them from the rows first") from err
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise StoreFormatError(f"{_record_path(path)} is not a record of moments: {err!r}") from err
    if not seal_holds(record):
        raise StoreFormatError(
            f"{_record_path(path)} has changed since it was written: compute the moments again"
        )
    if found != rows_digest:
        raise DataError(
            f"the moments at {path} were made from rows {found}, not from {rows_digest}: compute them again"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise ChecksumMismatchError(
            f"{path} has sha256 {digest}, its record says {expected}: compute the moments again"
        )
    return _parse(path, data)


def _parse(path: Path, data: bytes) -> ClassMoments:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    names = [f.name for f in fields(ClassMoments)]
    try:
        arrays = load(data)
        return ClassMoments(**{name: arrays[name] for name in names})
    except (SafetensorError, KeyError) as err:
        raise StoreFormatError(f"{path} does not hold the arrays {', '.join(names)}: {err}") from err
