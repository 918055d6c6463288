"""Tables of images: CSV, TSV or Parquet with a column of paths and one of labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.sources.files import FileSource
from ltstore.sources.keys import key_of
from ltstore.sources.labels import LABEL_COLUMNS, choose_column, resolve_labels
from ltstore.sources.lines import bounded_lines
from ltstore.sources.parquet_file import PARQUET_SUFFIXES, open_parquet, read_columns

PATH_COLUMNS = ("path", "image_path", "filepath", "file_name", "filename", "file", "image", "img")
TABLE_SUFFIXES = (".csv", ".tsv")


class ManifestSource(FileSource):
    """Images named by a table, a row each, in its order; one that is not there is that row's MISSING.

    Parameters
    ----------
    path : path
        ``.csv`` (commas) or ``.tsv`` (tabs) with a line of column names, UTF-8 (other bytes in paths survive), or
        Parquet.
    root : path, optional
        Where relative paths start; default the directory of the table.
    path_column, label_column : str, optional
        Default the first of the usual names (path, file, image, ...; label, class, target, ...). Without a column of
        labels, and where one is empty, rows are unlabelled.
    class_names : sequence of str, optional
        What whole numbers are positions in; default "0", "1", ...

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        No such column, no rows, a row without a path or of another number of fields: names the line.
    LabelError
        A number is outside the class names.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        root: str | Path | None = None,
        path_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        path = Path(path)
        read = _read_parquet if path.suffix.lower() in PARQUET_SUFFIXES else _read_text
        paths, column = read(path, path_column, label_column)
        if not paths:
            raise SourceError(f"{path} lists no images: expected rows below its column names")
        labels, names = resolve_labels(column, class_names, lambda row: f"{path}, {key_of(paths[row])}")
        super().__init__(Path(root) if root is not None else path.parent, paths, labels, names)


def _chosen(names: Sequence[str], path_column: str | None, label_column: str | None, path: Path) -> list[str]:
    """Return the column of paths and, where there is one, that of labels."""
    images = choose_column(names, PATH_COLUMNS, path_column, str(path))
    if images is None:
        raise SourceError(
            f"{path} has no column of paths: name it (--path-column); it has {key_of(', '.join(names)[:200])}"
        )
    label = choose_column(names, LABEL_COLUMNS, label_column, str(path))
    return [images] if label is None else [images, label]


def _read_text(path: Path, path_column: str | None, label_column: str | None) -> tuple[list[str], Any]:
    import pyarrow as pa

    paths: list[str] = []
    labels: list[str | None] = []
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            lines = bounded_lines(handle, path)
            rows = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            try:
                header = next(rows, [])
                chosen = [header.index(name) for name in _chosen(header, path_column, label_column, path)]
                for row in rows:
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise SourceError(
                            f"{path}, line {rows.line_num}: expected {len(header)} fields, found {len(row)}"
                        )
                    name, *label = (row[i] for i in chosen)
                    if not name:
                        raise SourceError(f"{path}, line {rows.line_num}: a row without a path")
                    paths.append(name)
                    text = label[0].strip().encode("utf-8", "backslashreplace").decode() if label else ""
                    labels.append(text or None)
            except csv.Error as err:
                raise SourceError(f"{path}, line {rows.line_num}: {err}") from err
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except OSError as err:
        if isinstance(err, SourceError):
            raise
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err
    return paths, pa.array(labels, pa.string())


def _read_parquet(path: Path, path_column: str | None, label_column: str | None) -> tuple[list[str], Any]:
    import pyarrow as pa

    with open_parquet(path) as file:
        chosen = _chosen(file.schema_arrow.names, path_column, label_column, path)
    table = read_columns(path, chosen)
    paths = table.column(chosen[0])
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)) or paths.null_count:
        raise SourceError(
            f"{path}: column {chosen[0]!r} must hold a path in every row, found {paths.type} with "
            f"{paths.null_count} nulls"
        )
    labels = table.column(chosen[1]) if len(chosen) > 1 else pa.nulls(len(paths), pa.int64())
    return paths.to_pylist(), labels
