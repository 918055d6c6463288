"""Parquet files that hold the images themselves, as the Hugging Face hub has them: a row group is read at a time."""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ltstore.cores import resolve_n_workers
from ltstore.errors import ImageError, SourceError
from ltstore.sources.base import LabelledSource, Parts
from ltstore.sources.decode import file_size
from ltstore.sources.keys import key_of
from ltstore.sources.labels import LABEL_COLUMNS, choose_column, resolve_labels
from ltstore.sources.parquet_file import PARQUET_SUFFIXES, open_parquet, read_columns
from ltstore.sources.patterns import expand_files, short_names
from ltstore.sources.texts import PartKeys
from ltstore.types import IntArray, Progress, RowStatus, no_progress

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_SPLIT = re.compile(r"(train|validation|valid|val|test)[-_.]")
_LARGEST_GROUP_BYTES = 1 << 32
_HELD_BYTES = 1 << 29
_MIXED_BYTES = 1 << 28  # part of every shuffled order: changing it makes other orders of the same seeds


class ParquetSource(LabelledSource):
    """Rows of Parquet files in the order of the files; keys are "train-00000-of-00005.parquet/17", the row there.

    A row group of images is read whole, and the last ones are held (512 MiB, or one): reading in order costs each group
    once, reading in random order a group a row. A row without bytes is MISSING; the rows of a group that cannot be
    decompressed are CORRUPT.

    Parameters
    ----------
    spec : str or path
        A file, a directory, a wildcard or braces, as `ltstore.sources.patterns.expand_files` has them.
    split : str
        Which files of a directory, or of a pattern that takes several splits, where all names begin with one.
    image_column : str, optional
        Of bytes, or of structs with a field "bytes"; default a usual name, or the only such column.
    label_column : str, optional
        Integers or class names; default a usual name. Without one, rows are unlabelled. Class names of the hub's
        ClassLabel are taken from the file.
    class_names : sequence of str, optional
        What integers are positions in where the file does not say.
    n_workers : int or "auto"
        Files looked through at once.
    progress : callable
        Called with 1 after every file.

    Raises
    ------
    SourceNotFoundError
        A file is not there.
    SourceError
        No Parquet, no column of images, a row group of more than 4 GiB, no such split; files that differ.
    LabelError
        A label is outside the classes.

    Notes
    -----
    Memory: 8 bytes a row beside the groups held. Opening reads footers and labels.
    """

    def __init__(
        self,
        spec: str | Path,
        *,
        split: str = "train",
        image_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        n_workers: int | str = "auto",
        progress: Progress = no_progress,
    ) -> None:
        import pyarrow as pa

        self._files = _of_split(expand_files(spec, PARQUET_SUFFIXES), split, spec)
        self._image, label, known = _columns(self._files[0], image_column, label_column)
        found = []
        with ThreadPoolExecutor(resolve_n_workers(n_workers), thread_name_prefix="ltstore-parquet") as pool:
            for one in pool.map(lambda file: _facts(file, self._image, label), self._files):
                found.append(one)
                progress(1, {})
        groups = [(i, group, *fact) for i, (facts, _) in enumerate(found) for group, fact in enumerate(facts)]
        self._groups: IntArray = np.array(groups, np.int64).reshape(-1, 4)  # file, group in it, rows, bytes
        self._starts = [0, *itertools.accumulate(self._groups[:, 2].tolist())]
        n_rows = [sum(rows for rows, _ in facts) for facts, _ in found]
        self._sizes = [file_size(file) for file in self._files]
        keys = PartKeys(short_names(self._files), n_rows)
        if not len(keys):
            raise SourceError(f"{spec} holds no rows")
        try:
            column = pa.chunked_array([labels for _, labels in found])
        except pa.ArrowException as err:
            raise SourceError(f"{spec}: labels are of several kinds: {str(err).splitlines()[0]}") from err
        labels, names = resolve_labels(column, class_names if known is None else known, keys.__getitem__)
        super().__init__(keys, labels, names)
        self._lock = Lock()
        self._held: dict[int, Future[Any]] = {}

    @property
    def parts(self) -> Parts:
        """The row groups, as many at once as fit into half of what is held."""
        largest = int(self._groups[:, 3].max())
        return Parts(np.array(self._starts), max(1, _MIXED_BYTES // max(largest, 1)))

    @property
    def knows_missing(self) -> bool:
        """Yes: the files say which rows have no image."""
        return True

    def content(self, positions: IntArray) -> bytes:
        """Return the sizes of the files and rows of their groups, whichever rows are asked for."""
        return np.array([*self._sizes, *self._groups[:, 2]], "<i8").tobytes()

    def place(self, position: int) -> str:
        """Return the file and the key."""
        group = bisect.bisect_right(self._starts, position) - 1
        return f"{self._files[self._groups[group, 0]].absolute()} ({self._keys[position]})"

    def fetch(self, position: int) -> bytes:
        """Return the image's bytes."""
        group = bisect.bisect_right(self._starts, position) - 1
        column = self._group(group)
        if isinstance(column, str):
            raise ImageError(f"{self._keys[position]}: {column}", RowStatus.CORRUPT)
        data = column[position - self._starts[group]].as_py()
        if data is None:
            raise ImageError(f"{self._keys[position]}: the row holds no bytes of an image", RowStatus.MISSING)
        return bytes(data)

    def _group(self, group: int) -> Any:
        """Return the images of a row group, or why it cannot be decoded; of threads that want it, one reads it."""
        with self._lock:
            future = self._held.pop(group, None)
            mine = future is None
            self._held[group] = future = future or Future()  # the last one used is the last one let go
            while len(self._held) > 1 and self._groups[list(self._held), 3].sum() > _HELD_BYTES:
                del self._held[next(iter(self._held))]
        if mine:
            try:
                future.set_result(self._read_group(group))
            except BaseException as err:  # noqa: BLE001 - whatever it is, all who wait for it get it
                future.set_exception(err)
                with self._lock:  # it may go well the next time
                    self._held.pop(group, None)
        return future.result()

    def _read_group(self, group: int) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        file, number, n_rows, _ = self._groups[group].tolist()
        try:
            with open_parquet(
                self._files[file], [self._image], group=number, room=_LARGEST_GROUP_BYTES
            ) as opened:
                struct = pa.types.is_struct(opened.schema_arrow.field(self._image).type)
                wanted = f"{self._image}.bytes" if struct else self._image
                column = opened.read_row_group(number, columns=[wanted], use_threads=False).column(0)
        except SourceError as err:
            if isinstance(err.__cause__, OSError) and err.__cause__.errno:
                raise  # the disk, not the data
            return str(err)
        if len(column) != n_rows:
            return f"row group {number} has {len(column)} rows where its file says {n_rows}"
        return pc.struct_field(column, "bytes") if struct else column

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())


def holds_images(path: Path) -> bool:
    """Tell whether a Parquet file has a column of images as bytes."""
    with open_parquet(path) as opened:
        return image_column(opened.schema_arrow) is not None


def image_column(schema: Any, wanted: str | None = None) -> str | None:
    """Return the column that holds images as bytes: the wanted one, one of a usual name, or the only one; else None."""
    found = [entry.name for entry in schema if _holds_bytes(entry.type)]
    if wanted is not None:
        return wanted if wanted in found else None
    return choose_column(found, IMAGE_COLUMNS, None, "") or (found[0] if len(found) == 1 else None)


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and not pa.types.is_struct(kind.field(at).type) and _holds_bytes(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _of_split(files: Sequence[Path], split: str, spec: str | Path) -> list[Path]:
    named = [match[1] if (match := _SPLIT.match(file.name)) else None for file in files]
    splits = sorted({name for name in named if name is not None})
    if None in named or (len(splits) == 1 and not Path(spec).is_dir()):
        return list(files)
    if split not in splits:
        raise SourceError(f"{spec} holds the splits {', '.join(splits)} and no {split!r}: name one of them")
    return [file for file, name in zip(files, named, strict=True) if name == split]


def _columns(
    file: Path, image: str | None, label: str | None
) -> tuple[str, str | None, tuple[str, ...] | None]:
    """Return the columns of images and labels, and the class names that the schema holds."""
    with open_parquet(file) as opened:
        schema = opened.schema_arrow
    found = image_column(schema, image)
    if found is None:
        columns = key_of(", ".join(f"{entry.name}: {entry.type}" for entry in schema)[:300])
        raise SourceError(
            f"{file} has no column {'of images' if image is None else repr(image)} as bytes: name it "
            f"(--path-column); it has {columns}"
        )
    label = choose_column(schema.names, LABEL_COLUMNS, label, str(file))
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about.get("info", {}).get("features", {}).get(label, {}).get("names")
    except (ValueError, AttributeError, RecursionError) as err:
        raise SourceError(f"{file}: the schema's huggingface entry cannot be read: {err}") from err
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise SourceError(f"{file}: the schema's class names of {label!r} are no list of strings")
    return found, label, None if names is None else tuple(names)


def _facts(file: Path, image: str, label: str | None) -> tuple[list[tuple[int, int]], Any]:
    """Return (rows, bytes of the images) of each row group, and the labels."""
    import pyarrow as pa

    with open_parquet(file) as opened:
        names, metadata = opened.schema_arrow.names, opened.metadata
        if image_column(opened.schema_arrow, image) is None or (label is not None and label not in names):
            raise SourceError(f"{file} lacks the columns that the first file has: {image}, {label}")
        groups = [_group_facts(metadata.row_group(number), image) for number in range(metadata.num_row_groups)]
    for number, (rows, size) in enumerate(groups):
        if not 0 <= size <= _LARGEST_GROUP_BYTES or rows < 0:
            raise SourceError(
                f"row group {number} of {file} says it holds {size} bytes of images in {rows} rows: "
                "write row groups of less than 4 GiB"
            )
    n_rows = sum(rows for rows, _ in groups)
    if n_rows != metadata.num_rows:
        raise SourceError(f"{file} declares {metadata.num_rows} rows, its row groups {n_rows}")
    if label is None:
        return groups, pa.nulls(n_rows, pa.int64())
    labels = read_columns(file, [label]).column(0)
    if len(labels) != n_rows:
        raise SourceError(f"{file} declares {n_rows} rows, found {len(labels)} labels")
    if pa.types.is_integer(labels.type):
        labels = labels.cast(pa.int64(), safe=False)
    return groups, labels.combine_chunks()


def _group_facts(about: Any, image: str) -> tuple[int, int]:
    columns = [about.column(i) for i in range(about.num_columns)]
    return about.num_rows, sum(
        c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == image
    )
