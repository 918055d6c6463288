"""An index on disk: whose rows it is of, that its bytes are those written, and what it finds."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import atomic_directory, write_json
from ltstore.errors import (
    ChecksumMismatchError,
    IndexNotFoundError,
    IndexStaleError,
    LtstoreError,
    StoreFormatError,
)
from ltstore.neighbors.faiss_index import FaissIndex, place_index, read_index, resolve_device, to_device
from ltstore.neighbors.kinds import KINDS, IndexPlan
from ltstore.neighbors.recall import RecallReport
from ltstore.provenance import seal_holds, sealed
from ltstore.storage import open_regular, read_regular
from ltstore.types import Rows

FORMAT_VERSION = 3
INDEX_FILE = "index.faiss"
RECORD_FILE = "record.json"
INFOS_FILE = "index_infos.json"

logger = logging.getLogger(__name__)


def save_index(index: FaissIndex, directory: Path, record: Mapping[str, Any]) -> None:
    """Write an index, its record and autofaiss's `index_infos.json` into `directory`, whole or not at all.

    Parameters
    ----------
    index : FaissIndex
    directory : Path
        Replaced if it is there.
    record : mapping
        From `ltstore.provenance.record`; kept under "record".

    Raises
    ------
    StoreWriteError
        It cannot be written.
    """
    with atomic_directory(directory) as temporary:
        file = temporary / INDEX_FILE
        index.write(file)
        write_json(temporary / INFOS_FILE, _infos(index, file.stat().st_size))
        write_json(
            temporary / RECORD_FILE,
            sealed(
                {
                    "format_version": FORMAT_VERSION,
                    **_identity(index),
                    "device": index.device,
                    "parameters": index.parameters,
                    "n_added": index.n_added,
                    "rows": index.rows_digest,
                    "encoder": index.encoder.digest,
                    "report": None if index.report is None else index.report.to_json(),
                    "sha256": _file_digest(file),
                    "record": dict(record),
                }
            ),
        )


def _identity(index: FaissIndex) -> dict[str, Any]:
    """Return what two builds of the same rows must share for one to go on from the other."""
    return {
        "plan": asdict(index.plan),
        "metric": index.metric,
        "k": index.k,
        "n_samples": index.n_samples,
        "n_features": index.n_features,
        "parts": [[stop, held.tolist()] for stop, held in index.parts],
    }


def _infos(index: FaissIndex, n_bytes: int) -> dict[str, Any]:
    """Return what autofaiss writes of an index, under its names; times are n/a (null) where none were taken."""
    spent = index.report.milliseconds if index.report is not None else {}
    names = {"nprobe": "nprobe", "ef_search": "efSearch", "refine": "k_factor_rf"}
    return {
        "index_key": index.plan.factory,
        "index_param": ",".join(f"{names[name]}={value}" for name, value in index.parameters.items()),
        "index_path": INDEX_FILE,
        "size in bytes": n_bytes,
        "avg_search_speed_ms": spent.get("mean"),
        "99p_search_speed_ms": spent.get("p99"),
        "reconstruction error %": 100 * index.coding_error(),
        "nb vectors": index.n_added,
        "vectors dimension": index.n_features,
        "compression ratio": 4.0 * index.n_added * index.n_features / n_bytes,
    }


def load_index(directory: Path, *, rows: Rows, device: str = "auto") -> FaissIndex:
    """Read an index that `save_index` wrote, for the rows that it was built from.

    The digests of rows, encoder and file are checked before FAISS parses the file.

    Parameters
    ----------
    directory : Path
    rows : Rows
        The rows that answers will be looked up in.
    device : str
        As for `build_index`.

    Raises
    ------
    IndexNotFoundError
        There is no index.
    IndexStaleError
        It was built from other rows, or not to its end.
    ChecksumMismatchError
        The file's bytes are not those written.
    StoreFormatError
        The record cannot be read, or is of another format version.
    """
    record = read_record(directory)
    digest, encoder = rows.digest, rows.encoder.digest
    if record["encoder"] != encoder:
        raise IndexStaleError(f"the index at {directory} is of embeddings of another encoder: build it again")
    if record["rows"] != digest:
        raise IndexStaleError(
            f"the index at {directory} was built from rows {record['rows']}, not from {digest}: build it again"
        )
    reasons: dict[str, str] = {}
    try:
        plan = _plan_of(record["plan"])
        resolved = resolve_device("cpu" if plan.kind == "hnsw" and device == "auto" else device, reasons)
        placed, resolved = place_index(_checked(directory, record), device, resolved, reasons)
        index = FaissIndex(
            placed,
            rows,
            plan=plan,
            metric=record["metric"],
            device=resolved,
            parameters={name: int(record["parameters"][name]) for name in plan.effort},
            parts=[(int(stop), np.array(held, np.int64)) for stop, held in record["parts"]],
            rows_digest=digest,
            reasons=reasons,
            report=None if record["report"] is None else RecallReport(**record["report"]),
            k=int(record["k"]),
        )
        whole = index.n_added == rows.n_samples == index.parts[-1][0]
    except (KeyError, TypeError, ValueError, IndexError) as err:
        if isinstance(err, LtstoreError):
            raise
        raise StoreFormatError(f"the record of the index at {directory} contradicts itself: {err!r}") from err
    if not whole:
        raise IndexStaleError(
            f"the index at {directory} has {index.n_added} of {rows.n_samples} rows: build it again"
        )
    return index


def load_partial(directory: Path, index: FaissIndex) -> bool:
    """Take the rows that a killed build of the same index had added; return whether there were any to trust."""
    try:
        record = read_record(directory)
        mine = json.loads(json.dumps({**_identity(index), "rows": index.rows_digest}))
        different = [name for name, value in mine.items() if record.get(name) != value]
        if different:
            logger.info("the unfinished index at %s is of other %s", directory, ", ".join(different))
            return False
        index.take_over(to_device(_checked(directory, record), index.device))
    except (IndexNotFoundError, StoreFormatError) as err:
        logger.info("no unfinished index is gone on with: %s", err)
        return False
    return True


def read_record(directory: Path) -> dict[str, Any]:
    """Return what is written of an index: kind, rows, report, settings.

    Raises
    ------
    IndexNotFoundError, StoreFormatError
    """
    path = directory / RECORD_FILE
    try:
        record = json.loads(read_regular(path))
        version = record["format_version"]
        if version == FORMAT_VERSION:
            (
                record["rows"],
                record["sha256"],
                record["plan"],
                record["metric"],
                record["encoder"],
                record["report"],
            )
    except (FileNotFoundError, NotADirectoryError) as err:
        raise IndexNotFoundError(f"no index at {directory}: build one first") from err
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise StoreFormatError(f"{path} is not a record of an index: {err!r}; build the index again") from err
    if version != FORMAT_VERSION:
        raise StoreFormatError(
            f"{path} is of format version {version}, this release reads {FORMAT_VERSION}: build the index again"
        )
    if not seal_holds(record):
        raise StoreFormatError(f"{path} has changed since it was written: build the index again")
    return record  # type: ignore[no-any-return]


def _plan_of(data: Mapping[str, Any]) -> IndexPlan:
    effort = {name: tuple(levels) for name, levels in data["effort"].items()}
    plan = IndexPlan(**{**data, "effort": effort, "wider": tuple(data["wider"])})
    if plan.kind not in KINDS:
        raise ValueError(f"unknown kind {plan.kind!r}")
    return plan


def _checked(directory: Path, record: Mapping[str, Any]) -> Any:
    file = directory / INDEX_FILE
    try:
        found = _file_digest(file)
    except FileNotFoundError as err:
        raise IndexNotFoundError(f"{file} is missing beside its record: build the index again") from err
    if found != record["sha256"]:
        raise ChecksumMismatchError(
            f"{file} has sha256 {found}, its record says {record['sha256']}: build the index again"
        )
    return read_index(file)


def _file_digest(path: Path) -> str:
    with os.fdopen(open_regular(path), "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
