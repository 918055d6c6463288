"""A split, or a subset of it, into other people's layouts: the stored bits, with labels, keys and row ids."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore import provenance
from ltstore.atomic import atomic_directory, write_json
from ltstore.errors import ConfigError, DataError, StoreExistsError
from ltstore.storage import Place
from ltstore.store import Split, open_store
from ltstore.transfer import sidecar, writing
from ltstore.types import IntArray, Progress, RowStatus, no_progress

EXPORT_FORMATS = ("npy", "npz", "parquet", "clip-retrieval", "datacomp", "safetensors")
BLOCK_ROWS = 8192
DEFAULT_PART_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes
    ----------
    store, split, out, format : str
    subset : str or None
    n_rows, n_features, n_parts : int
    n_skipped : int
        Failed rows that were left out, as asked.
    dtype : str
    files : list of str
        What was written, relative to the parent of `out`.
    n_bytes : int
        Of embeddings.
    seconds, bytes_per_second : float
    """

    store: str
    split: str
    subset: str | None
    out: str
    format: str
    n_rows: int
    n_features: int
    n_parts: int
    n_skipped: int
    dtype: str
    files: list[str]
    n_bytes: int
    seconds: float
    bytes_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


class Selection:
    """The rows to write: their ids, labels and keys, and their embeddings in blocks, bits as stored."""

    def __init__(self, split: Split, row_ids: IntArray, progress: Progress) -> None:
        self.row_ids = row_ids
        self.labels: IntArray = split.labels[row_ids]
        self.class_names = split.class_names
        self.n_features = split.n_features
        self.dtype = np.dtype(split.dtype).newbyteorder("<")
        self._split = split
        self._progress = progress
        self._checked: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self.row_ids)

    def spans(self, part_rows: int) -> list[tuple[int, int]]:
        """Return [start, stop) of each part; one empty part where there are no rows."""
        starts = range(0, max(len(self), 1), part_rows)
        return [(start, min(start + part_rows, len(self))) for start in starts]

    def keys(self, start: int, stop: int) -> Any:
        """Return the keys of rows [start, stop) as a pyarrow column."""
        return self._split.table(self.row_ids[start:stop], ["key"]).column("key").combine_chunks()

    def blocks(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Yield the embeddings of rows [start, stop); a buffer that the next step overwrites."""
        buffer = np.empty((min(BLOCK_ROWS, max(stop - start, 1)), self.n_features), self.dtype)
        for first in range(start, stop, BLOCK_ROWS):
            began = time.perf_counter()
            ids = self.row_ids[first : min(first + BLOCK_ROWS, stop)]
            out = buffer[: len(ids)]
            self._check(ids)
            if ids[-1] - ids[0] == len(ids) - 1:
                self._split.embeddings.read(int(ids[0]), int(ids[-1]) + 1, out)
            else:
                self._split.embeddings.take(ids, out)
            read = time.perf_counter() - began
            yield out
            self._progress(len(ids), {"read": read, "write": time.perf_counter() - began - read})

    def _check(self, ids: IntArray) -> None:
        """Look at the checksums of a shard before its first row goes out."""
        for shard in sorted(self._split.embeddings.shards(ids) - self._checked):
            self._split.embeddings.check_shard(*shard)
            self._checked.add(shard)


def export_embeddings(
    store_path: Place,
    out: str | Path,
    split: str,
    *,
    format: str,  # noqa: A002 - the word after --format
    subset: str | None = None,
    skip_failed: bool = False,
    array: str | None = None,
    part_rows: int = DEFAULT_PART_ROWS,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write a split, or a subset of it, in another layout; `import_embeddings` reads it back bit for bit.

    Parameters
    ----------
    store_path : path, URL or Location
    out : path
        A file (npy, npz, parquet, safetensors) or a directory (clip-retrieval, datacomp) that is not there yet.
    split : str
    format : {"npy", "npz", "parquet", "clip-retrieval", "datacomp", "safetensors"}
    subset : str, optional
    skip_failed : bool
        Leave out rows without an embedding, instead of refusing.
    array : str, optional
        Name of the array, column or tensor; default "X", "embedding" (parquet), "img" (datacomp).
    part_rows : int
        Rows in a part of clip-retrieval and datacomp.
    progress : callable
        Called after every block of rows.

    Returns
    -------
    ExportReport

    Raises
    ------
    StoreNotFoundError, IncompleteStoreError, ChecksumMismatchError
        As in `ltstore.store`.
    DataError
        Rows have no embedding, and `skip_failed` was not given: says how many.
    StoreExistsError
        A file of the export is there already.
    ConfigError
        An unknown format, or a name that does not suit it.
    StoreWriteError
        The files cannot be written.

    Notes
    -----
    Row ids are exported in every layout. Embeddings are read in blocks of 8,192 rows; their checksums are checked.
    """
    began = time.perf_counter()
    path = Path(out)
    name = _check(path, format, array, part_rows)
    source = open_store(store_path).split(split)
    ids = np.arange(source.n_rows) if subset is None else source.subset(subset)
    ok = source.status[ids] == RowStatus.OK
    n_failed = int((~ok).sum())
    if n_failed and not skip_failed:
        raise DataError(
            f"{n_failed} of {len(ids)} rows of {source.location} have no embedding: leave them out with --skip-failed"
        )
    rows = Selection(source, ids[ok], progress)
    record = {
        **provenance.record(
            sidecar.KIND,
            settings={"format": format, "array": name, "skip_failed": skip_failed, "part_rows": part_rows},
            made_from={"split": split, "subset": subset, "split_digest": source.digest},
        ),
        "class_names": list(source.class_names),
        "encoder": source.encoder.to_json(),
        "dtype": source.dtype,
        "n_rows": len(rows),
        "n_skipped": n_failed,
    }
    if format in writing.DIRECTORIES:
        if path.exists():
            raise StoreExistsError(f"{path} is there already: choose another path")
        with atomic_directory(path) as directory:
            write_json(directory / "ltstore.json", record)
            n_parts = writing.DIRECTORIES[format](directory, rows, name, part_rows)
        files = sorted(str(file.relative_to(path.parent)) for file in path.rglob("*") if file.is_file())
    else:
        targets = writing.targets(path, format)
        taken = [target for target in targets if target.exists()]
        if taken and not _was_stopped(path, record):
            raise StoreExistsError(f"{taken[0]} is there already: choose another path, or remove it")
        write_json(sidecar.record_path(path), record)
        writing.FILES[format](path, rows, name)  # the file itself last: where it is, all of it is there
        n_parts, files = 1, [target.name for target in targets]
    seconds = time.perf_counter() - began
    n_bytes = len(rows) * rows.n_features * rows.dtype.itemsize
    return ExportReport(
        store=str(store_path),
        split=split,
        subset=subset,
        out=str(path),
        format=format,
        n_rows=len(rows),
        n_features=rows.n_features,
        n_parts=n_parts,
        n_skipped=n_failed,
        dtype=source.dtype,
        files=files,
        n_bytes=n_bytes,
        seconds=seconds,
        bytes_per_second=n_bytes / seconds,
    )


def _was_stopped(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether what lies beside `path`, which is written last, was left by this same export when it was stopped."""
    try:
        found = json.loads(sidecar.record_path(path).read_bytes())
    except (OSError, ValueError):
        return False
    now = json.loads(json.dumps(record))
    return not path.exists() and isinstance(found, dict) and {**found, "created": now["created"]} == now


def _check(path: Path, layout: str, array: str | None, part_rows: int) -> str:
    """Return the name of the array; refuse what could not be written before anything is."""
    if layout not in EXPORT_FORMATS:
        raise ConfigError(f"format must be one of {', '.join(EXPORT_FORMATS)}, found {layout!r}")
    if part_rows < 1:
        raise ConfigError(f"part_rows must be 1 or more, found {part_rows}")
    suffix = "" if layout in writing.DIRECTORIES else f".{layout}"
    if suffix and path.suffix != suffix:
        raise ConfigError(f"the name of a {layout} file must end in {suffix}, found {path.name}")
    if not suffix and path.suffix in (".npy", ".npz", ".parquet", ".safetensors"):
        raise ConfigError(f"{layout} is a directory of files, found the file name {path.name}")
    default = writing.ARRAYS[layout]
    if array is None or array == default:
        return default
    if layout in ("npy", "clip-retrieval"):
        raise ConfigError(f"{layout} files have no name for the array: leave out --array")
    if not array or array in writing.TAKEN or "/" in array or "." in array:
        raise ConfigError(f"an array cannot be named {array!r}")
    return array
