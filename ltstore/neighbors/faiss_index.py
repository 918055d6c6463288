"""Nearest rows by FAISS, on a CPU or a GPU: the one module that imports it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ltstore.atomic import atomic_directory, write_json
from ltstore.errors import (
    BackendUnavailableError,
    ChecksumMismatchError,
    ConfigError,
    IndexNotFoundError,
    IndexStaleError,
    StoreFormatError,
)
from ltstore.neighbors.metric import resolve_positions, unit_queries, validate_metric, validate_queries
from ltstore.rows import iter_blocks
from ltstore.types import BoolArray, FloatArray, IntArray, Progress, Rows, no_progress

FORMAT_VERSION = 1
_INDEX_FILE = "index.faiss"
_RECORD_FILE = "record.json"
_GPU_MAX_K = 2048
_FAISS: Any = faiss  # its stubs know neither keyword arguments nor return types


def _flat(n_features: int, metric: str) -> Any:
    return _FAISS.IndexFlatL2(n_features) if metric == "l2" else _FAISS.IndexFlatIP(n_features)


KINDS: dict[str, Callable[[int, str], Any]] = {"flat": _flat}


class FaissIndex:
    """A FAISS index over a fixed set of rows, as `ltstore.types.NeighborIndex`. Made by `build_index`.

    Attributes
    ----------
    kind : str
        Resolved: never "auto".
    device : str
        "cpu" or "cuda:0".
    reasons : dict of str to str
        Why each "auto" was resolved as it was.
    n_features : int
    rows_digest : str
        Digest of the rows it was built from.
    """

    def __init__(
        self,
        index: Any,
        row_ids: IntArray,
        *,
        kind: str,
        metric: str,
        device: str,
        reasons: Mapping[str, str],
        rows_digest: str,
    ) -> None:
        self._index = index
        self._row_ids = row_ids
        self.kind = kind
        self._metric = metric
        self.device = device
        self.reasons = dict(reasons)
        self.rows_digest = rows_digest
        self.n_features = int(index.d)
        self._on_cpu = index if device == "cpu" else None

    @property
    def metric(self) -> str:
        """ "cosine", "inner_product" or "l2"."""
        return self._metric

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 ids of the indexed rows."""
        return self._row_ids

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self._row_ids)

    def search(
        self,
        X: FloatArray,
        k: int,
        *,
        exclude: IntArray | None = None,
        among: BoolArray | IntArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Nearest k of each of (n, D) queries, see `ltstore.types.NeighborIndex.search`.

        Parameters
        ----------
        X : (n, D) float32
            Not modified; need not have unit norm.
        k : int
            At least 1.
        exclude : (n,) int64, optional
            One row id per query that is not an answer to it.
        among : (N,) bool or (m,) int64, optional
            Search only these rows: a mask in the order of `row_ids`, or row ids.

        Returns
        -------
        neighbor_ids : (n, k) int64
        distances : (n, k) float32

        Raises
        ------
        DataError, ConfigError
            Queries, k or `among` do not fit.

        Notes
        -----
        One more neighbour than asked for is fetched where `exclude` is given. Rows whose float32 distances are
        equal come in order of row id, but which of several equal rows make the k-th place is FAISS's choice.
        A restricted search runs on the CPU copy of a GPU index, which is made once.
        """
        queries = unit_queries(validate_queries(X, k, exclude, self.n_features), self._metric)
        positions = resolve_positions(among, self._row_ids)
        n_rows = self.n_samples if positions is None else len(positions)
        fetch = min(k + (exclude is not None), n_rows)
        ids = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.nan, np.float32)
        if not fetch or not len(queries):
            return ids, distances
        found_distances, found = self._search(queries, fetch, positions)
        found_ids = np.where(found < 0, -1, self._row_ids[np.maximum(found, 0)])
        worse = np.where(found < 0, np.inf, found_distances if self._metric == "l2" else -found_distances)
        if exclude is not None:
            worse[found_ids == np.asarray(exclude)[:, None]] = np.inf
        order = np.lexsort((found_ids, worse), axis=1)[:, :k]
        missing = np.isinf(np.take_along_axis(worse, order, axis=1))
        width = order.shape[1]
        ids[:, :width] = np.where(missing, -1, np.take_along_axis(found_ids, order, axis=1))
        distances[:, :width] = np.where(missing, np.nan, np.take_along_axis(found_distances, order, axis=1))
        return ids, distances

    def _search(self, queries: FloatArray, fetch: int, positions: IntArray | None) -> tuple[Any, Any]:
        index = self._index if fetch <= _GPU_MAX_K and positions is None else self._cpu()
        options = {}
        if positions is not None:
            options["params"] = _FAISS.SearchParameters(sel=_FAISS.IDSelectorBatch(positions))
        distances, found = index.search(queries, fetch, **options)
        return distances, found

    def _cpu(self) -> Any:
        if self._on_cpu is None:
            self._on_cpu = _FAISS.index_gpu_to_cpu(self._index)
        return self._on_cpu

    def save(self, directory: Path, record: Mapping[str, Any]) -> None:
        """Write the index and its record into `directory`, whole or not at all, replacing what was there.

        Parameters
        ----------
        directory : Path
        record : mapping
            From `ltstore.provenance.record`; kept under "record".

        Raises
        ------
        StoreWriteError
            It cannot be written.
        """
        with atomic_directory(directory) as temporary:
            file = temporary / _INDEX_FILE
            _FAISS.write_index(self._cpu(), str(file))
            write_json(
                temporary / _RECORD_FILE,
                {
                    "format_version": FORMAT_VERSION,
                    "kind": self.kind,
                    "metric": self._metric,
                    "n_samples": self.n_samples,
                    "n_features": self.n_features,
                    "rows": self.rows_digest,
                    "sha256": _file_digest(file),
                    "record": dict(record),
                },
            )


def build_index(
    rows: Rows,
    *,
    kind: str = "flat",
    metric: str = "cosine",
    device: str = "auto",
    progress: Progress = no_progress,
) -> FaissIndex:
    """Build an index, reading the rows in blocks.

    Parameters
    ----------
    rows : Rows
    kind : "flat" or "auto"
        "auto" resolves to "flat"; the reason is in ``reasons["kind"]``.
    metric : "cosine", "inner_product" or "l2"
    device : "auto", "cpu", "cuda" or "cuda:N"
        "auto" is the first GPU that FAISS sees, else the CPU; the reason is in ``reasons["device"]``.
    progress : Progress

    Raises
    ------
    ConfigError
        Unknown kind, metric or device.
    BackendUnavailableError
        A GPU was asked for by name and FAISS sees none.

    Notes
    -----
    Flat: 4 N D bytes, exact, 2 n N D flops a search.
    """
    validate_metric(metric)
    reasons: dict[str, str] = {}
    if kind == "auto":
        kind, reasons["kind"] = "flat", f"exact, and {rows.n_samples} rows are searched by one matrix product"
    if kind not in KINDS:
        raise ConfigError(f"unknown index kind {kind!r}; known: auto, {', '.join(KINDS)}")
    resolved = _resolve_device(device, reasons)
    index = _to_device(KINDS[kind](rows.n_features, metric), resolved)
    for _, X, _ in iter_blocks(rows):
        index.add(unit_queries(X, metric))
        progress(len(X), {})
    return FaissIndex(
        index,
        rows.row_ids,
        kind=kind,
        metric=metric,
        device=resolved,
        reasons=reasons,
        rows_digest=rows.digest,
    )


def load_index(directory: Path, *, rows: Rows, device: str = "auto") -> FaissIndex:
    """Read an index that `FaissIndex.save` wrote, for the rows that it was built from.

    Both digests are checked before FAISS parses the file.

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
        It was built from other rows.
    ChecksumMismatchError
        The file's bytes are not those written.
    StoreFormatError
        The record cannot be read, or is of another format version.
    """
    record = _read_record(directory)
    digest = rows.digest
    if record["rows"] != digest:
        raise IndexStaleError(
            f"the index at {directory} was built from rows {record['rows']}, not from {digest}: build it again"
        )
    file = directory / _INDEX_FILE
    try:
        found = _file_digest(file)
    except FileNotFoundError as err:
        raise IndexNotFoundError(f"{file} is missing beside its record: build the index again") from err
    if found != record["sha256"]:
        raise ChecksumMismatchError(
            f"{file} has sha256 {found}, its record says {record['sha256']}: build the index again"
        )
    reasons: dict[str, str] = {}
    resolved = _resolve_device(device, reasons)
    index = _to_device(_FAISS.read_index(str(file)), resolved)
    return FaissIndex(
        index,
        rows.row_ids,
        kind=record["kind"],
        metric=record["metric"],
        device=resolved,
        reasons=reasons,
        rows_digest=digest,
    )


def _read_record(directory: Path) -> dict[str, Any]:
    path = directory / _RECORD_FILE
    try:
        record = json.loads(path.read_bytes())
        version = record["format_version"]
        record["rows"], record["sha256"], record["kind"], record["metric"]
    except (FileNotFoundError, NotADirectoryError) as err:
        raise IndexNotFoundError(f"no index at {directory}: build one first") from err
    except (ValueError, KeyError, TypeError) as err:
        raise StoreFormatError(f"{path} is not a record of an index: {err!r}; build the index again") from err
    if version != FORMAT_VERSION:
        raise StoreFormatError(
            f"{path} is of format version {version}, this release reads {FORMAT_VERSION}: build the index again"
        )
    return record  # type: ignore[no-any-return]


def _file_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _resolve_device(device: str, reasons: dict[str, str]) -> str:
    n_gpus = int(_FAISS.get_num_gpus())
    if device == "auto":
        reasons["device"] = f"FAISS sees {n_gpus} GPUs"
        return "cuda:0" if n_gpus else "cpu"
    if device == "cpu":
        return device
    name, _, number = device.partition(":")
    if name != "cuda" or not (number or "0").isdigit():
        raise ConfigError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= n_gpus:
        raise BackendUnavailableError(
            f"device {device} was asked for, FAISS sees {n_gpus} GPUs: use device auto"
        )
    return f"cuda:{int(number or 0)}"


def _to_device(index: Any, device: str) -> Any:
    if device == "cpu":
        return index
    return _FAISS.index_cpu_to_gpu(_FAISS.StandardGpuResources(), int(device.partition(":")[2]), index)
