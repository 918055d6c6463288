"""Which files make a source: one function per layout, from a path to parts, labels and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError, SourceError, SourceNotFoundError
from ltstore.sources.parquet_file import open_parquet, read_columns
from ltstore.transfer.columns import (
    KEY_NAMES,
    LabelValues,
    choose_column,
    choose_label,
    join_labels,
    key_column,
    label_values,
    read_keys,
    read_labels,
)
from ltstore.transfer.npy import NpzMember, npy_part, npz_members
from ltstore.transfer.numbering import by_number, check_contiguous, in_order
from ltstore.transfer.parquet import ParquetPart, list_columns
from ltstore.transfer.parts import JoinedParts, Part
from ltstore.transfer.sidecar import ExportRecord, labels_path, read_record, rows_path
from ltstore.transfer.tensors import Tensor, read_tensors

IMPORT_FORMATS = ("npy", "npz", "parquet", "clip-retrieval", "datacomp", "safetensors")
EMBEDDING_NAMES = ("X", "x", "embeddings", "embedding", "features", "emb", "image_embeddings", "img_emb")
_OWN = ("row_id", "row_ids", "class_name")  # of an export: they say where rows were, and are not needed again
_SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".safetensors": "safetensors",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a caller asked for by name; None: choose where there is no doubt."""

    array: str | None = None
    label_array: str | None = None
    key_array: str | None = None
    labels: Path | None = None
    keys: Path | None = None


@dataclass(kw_only=True)
class Foreign:
    """Embeddings as they were found.

    Attributes
    ----------
    format, array : str
    rows : JoinedParts
    labels : LabelValues or None
    keys : pyarrow column of strings, or None
    labels_from, keys_from : str
        Where they were found, "" where nowhere.
    files : list of Path
        Everything that was read, in order, for the digest.
    ignored : list of str
        Arrays and columns beside them that an import does not take.
    record : ExportRecord or None
    """

    format: str
    array: str
    rows: JoinedParts
    labels: LabelValues | None = None
    keys: Any = None
    labels_from: str = ""
    keys_from: str = ""
    files: list[Path] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    record: ExportRecord | None = None


def resolve_format(path: Path, wanted: str) -> str:
    """Return the layout at a path: `wanted`, or what "auto" finds.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing, or nothing that one layout alone would have.
    """
    if not path.exists():
        raise SourceNotFoundError(f"there is nothing at {path}")
    if wanted != "auto":
        if wanted not in IMPORT_FORMATS:
            raise ConfigError(f"format must be auto or one of {', '.join(IMPORT_FORMATS)}, found {wanted!r}")
        return wanted
    if path.is_file():
        if path.suffix in _SUFFIXES:
            return _SUFFIXES[path.suffix]
        raise SourceError(f"{path} has none of the suffixes {', '.join(_SUFFIXES)}: say what it is by --format")
    if (path / "img_emb").is_dir():
        return "clip-retrieval"
    found = {_SUFFIXES[entry.suffix] for entry in path.iterdir() if entry.suffix in _SUFFIXES}
    if "npz" in found and found <= {"npz", "parquet"}:
        return "datacomp"
    if len(found) == 1:
        return found.pop()
    what = f"files of {', '.join(sorted(found))}" if found else "no file of embeddings and no img_emb/"
    raise SourceError(f"{path} has {what}: give one file, or say what it is by --format")


def open_foreign(path: Path, layout: str, wanted: Wanted) -> Foreign:
    """Return the embeddings at a path; headers and columns are read, embeddings are not.

    Raises
    ------
    SourceError, SourceNotFoundError, DataError, LabelError
        Files are missing, damaged or do not agree; each names the file.
    """
    kind = resolve_format(path, layout)
    found = _LAYOUTS[kind](path, wanted)
    if not found.rows.n_rows:
        raise DataError(f"{path} has no rows")
    found.record = read_record(path)
    if wanted.labels is not None:
        found.labels, found.labels_from = read_labels(wanted.labels, wanted.label_array), str(wanted.labels)
        found.files.append(wanted.labels)
    if wanted.keys is not None:
        found.keys, found.keys_from = read_keys(wanted.keys, wanted.key_array), str(wanted.keys)
        found.files.append(wanted.keys)
    if found.keys is not None and len(found.keys) != found.rows.n_rows:
        raise DataError(
            f"{found.keys_from} must hold a key for each of {found.rows.n_rows} rows, found {len(found.keys)}"
        )
    return found


def _files(path: Path, *suffixes: str) -> list[Path]:
    if path.is_file():
        return [path]
    found = [entry for entry in path.iterdir() if entry.suffix in suffixes and entry.is_file()]
    if not found:
        raise SourceError(f"{path} has no {' or '.join(suffixes)} file")
    return in_order(found)


def _no_names(wanted: Wanted, what: str) -> None:
    if wanted.array is not None:
        raise ConfigError(f"{what} holds one array without a name: leave out --array")


def _beside(path: Path, found: Foreign, wanted: Wanted) -> Foreign:
    """Take labels and keys from the files that an export writes beside a single file."""
    if path.is_dir():
        return found
    if found.labels is None and wanted.labels is None and (labels := labels_path(path)).exists():
        found.labels, found.labels_from = read_labels(labels), str(labels)
        found.files.append(labels)
    if found.keys is None and wanted.keys is None and (keys := rows_path(path)).exists():
        found.keys, found.keys_from = read_keys(keys), str(keys)
        found.files.append(keys)
    return found


def _open_npy(path: Path, wanted: Wanted) -> Foreign:
    _no_names(wanted, "a .npy")
    files = _files(path, ".npy")
    rows = JoinedParts([npy_part(file) for file in files])
    return _beside(path, Foreign(format="npy", array="", rows=rows, files=files), wanted)


NamedArray = NpzMember | Tensor


def _shape(entry: NamedArray) -> tuple[tuple[int, ...], np.dtype[Any] | None]:
    if isinstance(entry, NpzMember):
        return entry.header.shape, entry.header.dtype
    return entry.shape, entry.dtype


def choose_array(entries: Mapping[str, NamedArray], wanted: str | None, where: str) -> str:
    """Return the name of the embeddings: the wanted one, the only matrix of floats, or the only one of a usual name.

    Raises
    ------
    SourceError
        There is none, or several could be meant: names them.
    """
    described = ", ".join(
        f"{name} {dtype if dtype is not None else getattr(entry, 'kind', '')} {shape}"
        for name, entry in list(entries.items())[:20]
        for shape, dtype in [_shape(entry)]
    )
    if wanted is not None:
        if wanted not in entries:
            raise SourceError(f"{where} has no array {wanted!r}; it has {described}")
        return wanted
    found = []
    for name, entry in entries.items():
        shape, dtype = _shape(entry)
        if len(shape) == 2 and (dtype is None or dtype.kind == "f"):
            found.append(name)
    usual = [name for name in found if name in EMBEDDING_NAMES]
    for candidates in (found, usual):
        if len(candidates) == 1:
            return candidates[0]
    if not found:
        raise SourceError(f"{where} has no matrix of floats; it has {described}")
    raise SourceError(f"{where} has several matrices of floats, {', '.join(found)}: name one (--array)")


def _label_name(entries: Mapping[str, NamedArray], array: str, wanted: str | None, where: str) -> str | None:
    """The label array: the wanted one, that of the pair NAME_x, NAME_y, or one of a usual name."""
    n_rows = _shape(entries[array])[0][0]
    fitting = [name for name, entry in entries.items() if _shape(entry)[0] == (n_rows,)]
    if wanted is None and array.endswith(("_x", "_X")):
        pair = array[:-1] + ("y" if array.endswith("x") else "Y")
        if pair in fitting:
            return pair
    return choose_label(list(entries) if wanted else fitting, wanted, where)


def _open_named(
    path: Path, wanted: Wanted, kind: str, suffix: str, read: Callable[[Path], Mapping[str, NamedArray]]
) -> Foreign:
    """Files of named arrays: `.npz`, safetensors."""
    files = _files(path, suffix)
    parts: list[Part] = []
    labels: list[LabelValues] = []
    keys: list[Any] = []
    array = label = key = None
    ignored: list[str] = []
    for number, file in enumerate(files):
        entries = read(file)
        if number == 0:
            array = choose_array(entries, wanted.array, str(file))
            if wanted.labels is None:
                label = _label_name(entries, array, wanted.label_array, str(file))
            if wanted.keys is None and wanted.key_array is not None:
                key = choose_column(list(entries), (), wanted.key_array, str(file))
            ignored = [name for name in entries if name not in (array, label, key, *_OWN)]
        for name in (array, label, key):
            if name is not None and name not in entries:
                raise SourceError(f"{file} has no array {name!r}, which {files[0].name} has")
        assert array is not None
        parts.append(entries[array].part())
        if label is not None:
            values = label_values(entries[label].array(), f"{file} [{label}]")
            _same_length(parts[-1], len(values), f"{file} [{label}]")
            labels.append(values)
        if key is not None:
            keys.append(key_column(entries[key].array(), f"{file} [{key}]"))
    found = Foreign(format=kind, array=array or "", rows=JoinedParts(parts), files=files, ignored=ignored)
    if label is not None:
        found.labels, found.labels_from = join_labels(labels, str(path)), f"{path} [{label}]"
    if key is not None:
        found.keys, found.keys_from = _concat(keys), f"{path} [{key}]"
    return _beside(path, found, wanted)


def _same_length(part: Part, length: int, where: str) -> None:
    if part.n_rows != length:
        raise DataError(
            f"{part.where} has {part.n_rows} rows, but {where} has {length}: they do not belong together"
        )


def _concat(columns: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.large_string())


def _open_npz(path: Path, wanted: Wanted) -> Foreign:
    return _open_named(path, wanted, "npz", ".npz", npz_members)


def _open_safetensors(path: Path, wanted: Wanted) -> Foreign:
    return _open_named(path, wanted, "safetensors", ".safetensors", read_tensors)


def _take_tables(found: Foreign, tables: Sequence[Path], wanted: Wanted, skip: Sequence[str] = ()) -> None:
    """Take labels and keys from the Parquet table of each part."""
    with open_parquet(tables[0]) as file:
        names = [name for name in file.schema_arrow.names if name not in skip]
    where = str(tables[0])
    label = None
    if wanted.labels is None and found.labels is None:
        label = choose_label(names, wanted.label_array, where)
    key = None
    if wanted.keys is None and found.keys is None:
        key = choose_column(names, KEY_NAMES, wanted.key_array, where)
    labels: list[LabelValues] = []
    keys: list[Any] = []
    for part, table_path in zip(found.rows.parts, tables, strict=True):
        with open_parquet(table_path) as file:
            _same_length(part, file.metadata.num_rows, str(table_path))
        chosen = list(dict.fromkeys(name for name in (label, key) if name is not None))
        if not chosen:
            continue
        table = read_columns(table_path, chosen)
        if label is not None:
            labels.append(label_values(table.column(label).combine_chunks(), f"{table_path} [{label}]"))
        if key is not None:
            keys.append(key_column(table.column(key), f"{table_path} [{key}]"))
    at = str(tables[0].parent if len(tables) > 1 else tables[0])
    if label is not None:
        found.labels, found.labels_from = join_labels(labels, at), f"{at} [{label}]"
    if key is not None:
        found.keys, found.keys_from = _concat(keys), f"{at} [{key}]"
    found.ignored += [name for name in names if name not in (label, key, *_OWN)]
    found.files += [table for table in tables if table not in found.files]


def _open_parquet(path: Path, wanted: Wanted) -> Foreign:
    files = _files(path, ".parquet", ".pq")
    with open_parquet(files[0]) as file:
        names, lists = file.schema_arrow.names, list_columns(file.schema_arrow)
    if wanted.array is not None and wanted.array not in lists:
        raise SourceError(
            f"{files[0]} has no list column of floats {wanted.array!r}; it has {', '.join(names)}"
        )
    usual = [name for name in lists if name in EMBEDDING_NAMES]
    if wanted.array is not None:
        column = wanted.array
    elif len(lists) == 1 or len(usual) == 1:
        column = lists[0] if len(lists) == 1 else usual[0]
    elif not lists:
        raise SourceError(f"{files[0]} has no list column of floats; it has {', '.join(names)}")
    else:
        raise SourceError(
            f"{files[0]} has several list columns of floats, {', '.join(lists)}: name one (--array)"
        )
    parts = []
    for file_path in files:
        with open_parquet(file_path) as file:
            if column not in list_columns(file.schema_arrow):
                raise SourceError(
                    f"{file_path} has no list column of floats {column!r}, which {files[0].name} has"
                )
        parts.append(ParquetPart(file_path, column))
    found = Foreign(format="parquet", array=column, rows=JoinedParts(parts), files=list(files))
    _take_tables(found, files, wanted, skip=(column,))
    return found


def _open_clip_retrieval(path: Path, wanted: Wanted) -> Foreign:
    array = wanted.array or "img_emb"
    if array not in ("img_emb", "text_emb"):
        raise ConfigError(f"the arrays of clip-retrieval are img_emb and text_emb, found {array!r}")
    numbers = _numbered(path / array, f"{array}_*.npy")
    found = Foreign(
        format="clip-retrieval",
        array=array,
        rows=JoinedParts([npy_part(file) for file in numbers.values()]),
        files=list(numbers.values()),
    )
    if (path / "metadata").is_dir():
        tables = _numbered(path / "metadata", "metadata_*.parquet")
        if odd := sorted(set(tables) ^ set(numbers)):
            have, lack = ("metadata", array) if odd[0] in tables else (array, "metadata")
            raise SourceError(f"{path} has a part {odd[0]} of {have} but none of {lack}: files are missing")
        _take_tables(found, list(tables.values()), wanted)
    other = "text_emb" if array == "img_emb" else "img_emb"
    found.ignored += [other] if (path / other).is_dir() else []
    return found


def _numbered(directory: Path, pattern: str) -> dict[int, Path]:
    if not directory.is_dir():
        raise SourceNotFoundError(f"there is no directory {directory}")
    files = sorted(directory.glob(pattern))
    numbers = by_number(files) if files else None
    if numbers is None:
        raise SourceError(f"{directory} must hold {pattern} with numbers, found {len(files)} such files")
    check_contiguous(numbers, 0)
    return numbers


def _open_datacomp(path: Path, wanted: Wanted) -> Foreign:
    found = _open_named(path, wanted, "datacomp", ".npz", npz_members)
    archives = [part.path for part in found.rows.parts]
    tables = [file.with_suffix(".parquet") for file in archives]
    present = [table for table in tables if table.exists()]
    if present and len(present) < len(tables):
        absent = next(table for table in tables if not table.exists())
        raise SourceError(f"{absent} is missing, though other parts have their table: files are missing")
    orphans = sorted(set(path.glob("*.parquet")) - set(tables)) if path.is_dir() else []
    if orphans:
        raise SourceError(f"{orphans[0]} has no .npz of the same name: files are missing")
    if present:
        _take_tables(found, tables, wanted)
    return found


_LAYOUTS: Mapping[str, Callable[[Path, Wanted], Foreign]] = {
    "npy": _open_npy,
    "npz": _open_npz,
    "parquet": _open_parquet,
    "clip-retrieval": _open_clip_retrieval,
    "datacomp": _open_datacomp,
    "safetensors": _open_safetensors,
}
