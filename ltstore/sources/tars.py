"""Tars of samples, as WebDataset and img2dataset write them: images read by their place, nothing extracted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ltstore.cores import resolve_n_workers
from ltstore.errors import ImageError, SourceError
from ltstore.sources.base import LabelledSource, Parts
from ltstore.sources.decode import read_range
from ltstore.sources.labels import resolve_labels
from ltstore.sources.patterns import expand_files, short_names
from ltstore.sources.tar_index import tar_index
from ltstore.sources.texts import PackedTexts, PartKeys
from ltstore.types import ByteArray, IntArray, Progress, RowStatus, no_progress

TAR_SUFFIXES = (".tar",)
_MIXED_TARS = 8  # part of every shuffled order: changing it makes other orders of the same seeds


class TarSource(LabelledSource):
    """The samples of tars, tar after tar in the order of their first members; keys are "00012.tar/000123456".

    A sample whose image is missing, cut off, sparse or a link keeps its row with the reason, and so do downloads that
    the Parquet file beside a tar (img2dataset) lists as failed. A tar that breaks off (cut short, a damaged header)
    ends with a row of its own, named by the tar alone. A second sample of one name is told apart as "name@byte".

    Parameters
    ----------
    spec : str or path
        A tar, a directory of tars, a wildcard, or braces: ``shards/{00000..00099}.tar``.
    label_field : str, optional
        "cls" (the default, where there is one), "txt", or a field of the ``.json``: whole numbers or class names.
        Rows without are unlabelled.
    class_names : sequence of str, optional
        What whole numbers are positions in; default "0", "1", ...
    cache : path, optional
        Directory that keeps what was found in each tar, so that a stopped or later run goes on from there.
    n_workers : int or "auto"
        Tars looked through at once.
    progress : callable
        Called with 1 after every tar.

    Attributes
    ----------
    n_ignored : dict of str to int
        Members left out: "hidden", "suffix" (without one), "second_image" (of one sample); and "lone_table", Parquet
        files of a directory whose tar is not there.

    Raises
    ------
    SourceNotFoundError
        A tar is not there.
    SourceError
        A tar is compressed, or none holds an image; a label is none, or no sample has the field.
    LabelError
        A number is outside the class names.

    Notes
    -----
    Memory: 37 bytes a row and those of its key. Images are read at their offsets; threads share nothing.
    """

    def __init__(
        self,
        spec: str | Path,
        *,
        label_field: str | None = None,
        class_names: Sequence[str] | None = None,
        cache: str | Path | None = None,
        n_workers: int | str = "auto",
        progress: Progress = no_progress,
    ) -> None:
        import pyarrow as pa

        self._tars = expand_files(spec, TAR_SUFFIXES)
        kept = None if cache is None else Path(cache)
        found = []
        with ThreadPoolExecutor(resolve_n_workers(n_workers), thread_name_prefix="ltstore-tars") as pool:
            for one in pool.map(lambda tar: tar_index(tar, label_field, kept), self._tars):
                found.append(one)
                progress(1, {})
        n_ignored = sum((ignored for _, ignored in found), Counter())
        if Path(spec).is_dir():
            tables = {table.with_suffix(".tar") for table in Path(spec).glob("*.parquet")}
            n_ignored["lone_table"] += len(tables - set(self._tars))
        self.n_ignored = dict(+n_ignored)
        n_rows = [table.num_rows for table, _ in found]
        table = pa.concat_tables(table for table, _ in found)
        del found
        keys = self._rows = PartKeys(short_names(self._tars), n_rows, PackedTexts.of_arrow(table["key"]))
        if label_field is not None and table["label"].null_count == len(keys):
            raise SourceError(
                f"no sample of {spec} has a label in {label_field!r}: is the field called otherwise?"
            )
        labels, names = resolve_labels(table["label"], class_names, keys.__getitem__)
        super().__init__(keys, labels, names)
        self._offsets: IntArray = table["offset"].to_numpy()
        self._sizes: IntArray = table["size"].to_numpy()
        self._status: ByteArray = table["status"].to_numpy()
        reasons = table["reason"].combine_chunks().dictionary_encode()
        self._reasons: list[str] = reasons.dictionary.to_pylist()
        self._reason_of: IntArray = reasons.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        if not (self._sizes >= 0).any():
            raise SourceError(
                f"no image in the {len(self._tars)} tars of {spec}: expected members like 000001.jpg with 000001.cls"
                + (f"; {self._reasons[0]}" if self._reasons else "")
            )

    def content(self, positions: IntArray) -> bytes:
        """Return the sizes of the images, -1 where there is none."""
        return self._sizes[positions].astype("<i8").tobytes()

    def is_present(self, positions: IntArray) -> bool:
        """Tell whether the tars hold any of the images."""
        return bool((self._sizes[positions] >= 0).any())

    @property
    def parts(self) -> Parts:
        """The tars, eight at once."""
        return Parts(np.array(self._rows.starts), _MIXED_TARS)

    @property
    def knows_missing(self) -> bool:
        """Yes: the tars, and the Parquet files beside them, say which rows have no image."""
        return True

    def place(self, position: int) -> str:
        """Return the tar and the key."""
        return f"{self._tars[self._rows.part(position)].absolute()} ({self._keys[position]})"

    def fetch(self, position: int) -> bytes:
        """Return the image's bytes."""
        if self._status[position] != RowStatus.OK:
            reason = self._reasons[self._reason_of[position]]
            raise ImageError(f"{self._keys[position]}: {reason}", int(self._status[position]))
        tar = self._tars[self._rows.part(position)]
        return read_range(tar, int(self._offsets[position]), int(self._sizes[position]))
