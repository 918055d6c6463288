"""The bytes of each layout that an export writes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltstore.atomic import atomic_file
from ltstore.transfer.sidecar import labels_path, record_path, rows_path

if TYPE_CHECKING:
    from ltstore.transfer.exporting import Selection

ARRAYS = {
    "npy": "",
    "npz": "X",
    "parquet": "embedding",
    "safetensors": "X",
    "clip-retrieval": "img_emb",
    "datacomp": "img",
}
TAKEN = ("y", "row_ids", "row_id", "key", "uid", "label", "class_name")
_SAFETENSORS = {"float16": "F16", "float32": "F32", "int64": "I64"}


def targets(path: Path, layout: str) -> list[Path]:
    """Return every file of a single-file export, the file itself first."""
    beside = {"npy": [labels_path(path), rows_path(path)], "parquet": []}.get(layout, [rows_path(path)])
    return [path, *beside, record_path(path)]


def _npy_header(handle: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(handle, {"descr": descr, "fortran_order": False, "shape": shape})


def _write_column(handle: IO[bytes], column: NDArray[Any]) -> None:
    _npy_header(handle, column.shape, column.dtype)
    handle.write(np.ascontiguousarray(column).data)


def _write_matrix(handle: IO[bytes], rows: Selection, start: int, stop: int) -> None:
    _npy_header(handle, (stop - start, rows.n_features), rows.dtype)
    for block in rows.blocks(start, stop):
        handle.write(block.data)


def _table(rows: Selection, start: int, stop: int, key: str, *, named: bool) -> dict[str, Any]:
    """Columns of a table: row_id, key, label, and the name of the class where `named`."""
    import pyarrow as pa

    labels = rows.labels[start:stop]
    columns = {
        "row_id": pa.array(rows.row_ids[start:stop]),
        key: rows.keys(start, stop),
        "label": pa.array(labels),
    }
    if named:
        names = [rows.class_names[label] if label >= 0 else None for label in labels.tolist()]
        columns["class_name"] = pa.array(names, pa.string()).dictionary_encode()
    return columns


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as handle:
        pq.write_table(pa.table(dict(columns)), handle, compression="zstd")


def _write_npy(path: Path, rows: Selection, array: str) -> None:  # noqa: ARG001 - it has no name
    with atomic_file(labels_path(path)) as handle:
        _write_column(handle, rows.labels)
    _write_table(rows_path(path), _table(rows, 0, len(rows), "key", named=True))
    with atomic_file(path) as handle:
        _write_matrix(handle, rows, 0, len(rows))


def _write_archive(path: Path, rows: Selection, array: str, start: int, stop: int) -> None:
    """An uncompressed `.npz`, as numpy.savez writes it, block by block."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, column in (("y", rows.labels[start:stop]), ("row_ids", rows.row_ids[start:stop])):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as handle:
                _write_column(handle, column)
        with archive.open(zipfile.ZipInfo(f"{array}.npy"), "w", force_zip64=True) as handle:
            _write_matrix(handle, rows, start, stop)


def _write_npz(path: Path, rows: Selection, array: str) -> None:
    _write_table(rows_path(path), _table(rows, 0, len(rows), "key", named=True))
    _write_archive(path, rows, array, 0, len(rows))


def _write_safetensors(path: Path, rows: Selection, array: str) -> None:
    """Eight bytes of length, a JSON header padded to eight, then the tensors end to end."""
    _write_table(rows_path(path), _table(rows, 0, len(rows), "key", named=True))
    header: dict[str, Any] = {}
    offset = 0
    for name, shape, dtype in (
        (array, (len(rows), rows.n_features), rows.dtype),
        ("y", (len(rows),), rows.labels.dtype),
        ("row_ids", (len(rows),), rows.row_ids.dtype),
    ):
        end = offset + int(np.prod(shape)) * dtype.itemsize
        header[name] = {"dtype": _SAFETENSORS[dtype.name], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for block in rows.blocks(0, len(rows)):
            handle.write(block.data)
        for column in (rows.labels, rows.row_ids):
            handle.write(np.ascontiguousarray(column, "<i8").data)


def _write_parquet(path: Path, rows: Selection, array: str) -> None:
    """One file; embeddings as fixed-size lists, neither compressed nor in a dictionary, 8,192 rows to a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.from_numpy_dtype(rows.dtype), rows.n_features)
    columns = {**_table(rows, 0, len(rows), "key", named=True)}
    schema = pa.schema([*((name, column.type) for name, column in columns.items()), (array, kind)])
    beside = pa.table(columns)
    start = 0
    with (
        atomic_file(path) as handle,
        pq.ParquetWriter(handle, schema, compression="none", use_dictionary=["class_name"]) as writer,
    ):
        for block in rows.blocks(0, len(rows)):
            flat = pa.array(block.reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, type=kind)
            table = beside.slice(start, len(block)).append_column(pa.field(array, kind), lists)
            writer.write_table(table, row_group_size=len(block))
            start += len(block)


def _write_clip_retrieval(directory: Path, rows: Selection, array: str, part_rows: int) -> int:  # noqa: ARG001
    spans = rows.spans(part_rows)
    width = len(str(len(spans) - 1))
    for number, (start, stop) in enumerate(spans):
        with atomic_file(directory / "img_emb" / f"img_emb_{number:0{width}d}.npy") as handle:
            _write_matrix(handle, rows, start, stop)
        columns = _table(rows, start, stop, "image_path", named=True)
        _write_table(directory / "metadata" / f"metadata_{number:0{width}d}.parquet", columns)
    return len(spans)


def _write_datacomp(directory: Path, rows: Selection, array: str, part_rows: int) -> int:
    spans = rows.spans(part_rows)
    for number, (start, stop) in enumerate(spans):
        _write_archive(directory / f"{number:08d}.npz", rows, array, start, stop)
        _write_table(directory / f"{number:08d}.parquet", _table(rows, start, stop, "uid", named=True))
    return len(spans)


FILES: Mapping[str, Callable[[Path, Selection, str], None]] = {
    "npy": _write_npy,
    "npz": _write_npz,
    "parquet": _write_parquet,
    "safetensors": _write_safetensors,
}
DIRECTORIES: Mapping[str, Callable[[Path, Selection, str, int], int]] = {
    "clip-retrieval": _write_clip_retrieval,
    "datacomp": _write_datacomp,
}
