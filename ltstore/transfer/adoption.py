"""A foreign Zarr array of embeddings, read in place as rows: nothing is copied or written."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import DataError, LabelError, SourceError, SourceNotFoundError, StoreFormatError
from ltstore.rows import BLOCK_ROWS, normalize_rows
from ltstore.storage import FileLocation
from ltstore.transfer.columns import label_values, resolve_labels
from ltstore.types import EncoderIdentity, FloatArray, IntArray

_log = logging.getLogger(__name__)


class AdoptedRows:
    """The finite rows of a Zarr array, as `ltstore.types.Rows`. Made by `adopt`; picklable.

    Attributes
    ----------
    n_failed : int
        Rows of the array that are left out because they hold NaN, infinity, or what float32 does not.
    """

    def __init__(
        self, array: Any, labels: IntArray, class_names: tuple[str, ...], normalize: bool, where: str
    ) -> None:
        self._array = array
        self._class_names = class_names
        self._normalize = normalize
        self._where = where
        finite, content = self._scan()
        self._row_ids = np.flatnonzero(finite).astype(np.int64)
        self._labels = labels[self._row_ids]
        self.n_failed = int((~finite).sum())
        facts = repr((content, array.shape, class_names, normalize))
        self._digest = "sha256:" + hashlib.sha256(facts.encode() + labels.astype("<i8").tobytes()).hexdigest()
        for column in (self._labels, self._row_ids):
            column.flags.writeable = False

    def _scan(self) -> tuple[NDArray[np.bool_], str]:
        """One pass over the array: which rows are finite, and the digest of all of them."""
        state = hashlib.sha256()
        finite = np.zeros(self._array.shape[0], bool)
        step = max(BLOCK_ROWS // self._array.chunks[0], 1) * self._array.chunks[0]  # no chunk is decoded twice
        for start in range(0, len(finite), step):
            X = self._load(slice(start, min(start + step, len(finite))))
            finite[start : start + step] = np.isfinite(X).all(axis=1)
            state.update(np.ascontiguousarray(X, "<f4").data)
        return finite, state.hexdigest()

    def _load(self, selection: slice | IntArray) -> FloatArray:
        """Rows of the array as new float32; SourceError where they cannot be decoded."""
        from ltstore.store.format import shown_line

        try:
            found = self._array[selection] if isinstance(selection, slice) else self._array.oindex[selection]
        except Exception as err:
            raise SourceError(f"cannot read {self._where}: {shown_line(err)}") from err
        with np.errstate(over="ignore"):
            return np.array(found, np.float32, order="C")

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self._row_ids)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self._array.shape[1])

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._class_names

    @property
    def labels(self) -> IntArray:
        """(N,) int64, read-only."""
        return self._labels

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 positions in the array, ascending. Read-only."""
        return self._row_ids

    @property
    def normalized(self) -> bool:
        """Whether rows have unit norm."""
        return self._normalize

    @property
    def encoder(self) -> EncoderIdentity:
        """An identity that says only where the rows come from."""
        return EncoderIdentity(
            encoder="import", model=self._where, n_features=self.n_features, normalized=self._normalize
        )

    @property
    def digest(self) -> str:
        """ "sha256:..." over all rows of the array and their labels, as they were at adoption."""
        return self._digest

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return rows [start, stop) as (stop - start, D) float32, in `out` if given."""
        if not 0 <= start <= stop <= self.n_samples:
            raise IndexError(f"rows [{start}, {stop}) of {self.n_samples}")
        if start == stop:
            return np.empty((0, self.n_features), np.float32) if out is None else out
        ids = self._row_ids[start:stop]
        X = self._load(slice(int(ids[0]), int(ids[-1]) + 1))
        if len(X) != len(ids):
            X = X[ids - ids[0]]
        if self._normalize:
            normalize_rows(X)
        if out is None:
            return X
        if out.shape != X.shape or out.dtype != np.float32:
            raise DataError(f"out must be float32 {X.shape}, found {out.dtype} {out.shape}")
        np.copyto(out, X)
        return out

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return the rows at `positions` (0..N-1, any order, repeats allowed) as (n, D) float32, in `out` if given."""
        chosen = np.asarray(positions, np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.n_samples):
            raise IndexError(
                f"positions must lie in 0..{self.n_samples - 1}, found {chosen.min()}..{chosen.max()}"
            )
        if not len(chosen):
            return np.empty((0, self.n_features), np.float32) if out is None else out
        ids, back = np.unique(self._row_ids[chosen], return_inverse=True)  # each chunk is decoded once
        X = self._load(ids)
        X = (normalize_rows(X) if self._normalize else X)[back]
        if out is None:
            return X
        np.copyto(out, X)
        return out


def adopt(
    path: str | Path,
    *,
    array: str | None = None,
    labels: ArrayLike | str | None = None,
    class_names: Sequence[str] | None = None,
    normalize: bool = True,
) -> AdoptedRows:
    """Read a foreign Zarr array of embeddings in place, as rows that moments, indexes and training take.

    Parameters
    ----------
    path : path
        A Zarr array, or a group that holds it; format 2 or 3, any chunks; zstd, gzip, zlib, blosc, lz4, bz2, lzma
        or no compressor, and filters that only rearrange numbers.
    array : str, optional
        Path of the array in the group; default the only matrix of floats in it.
    labels : (N,) array of ints or class names, or str, optional
        The labels, or the path of their array in the group.
    class_names : sequence of str, optional
        Default: the names found, sorted, or "0", "1", ... up to the largest label.
    normalize : bool
        Give rows out with unit norm.

    Returns
    -------
    AdoptedRows

    Raises
    ------
    SourceNotFoundError
        There is nothing at `path`.
    SourceError
        It is no Zarr array or group, or holds none or several matrices of floats: names them. It asks for a codec
        that is not known to be safe (numcodecs' "pickle" runs code), or for far more memory than it has bytes.
    DataError, LabelError
        The array is not a matrix of floats; labels do not fit.

    Notes
    -----
    One pass over the array at adoption, for the digest and to find rows that are not finite: these are left out,
    counted in `n_failed` and logged. The array must not change afterwards. Reading costs decompression each time
    (0.4 GB/s with zstd); to train more than a few times, export it to `.npy` and import that.
    """
    import zarr

    root = Path(path)
    if not root.exists():
        raise SourceNotFoundError(f"there is nothing at {root}")
    from ltstore.store.format import shown_line
    from ltstore.store.zarr_arrays import GuardedStore

    try:
        if not root.is_dir():
            raise StoreFormatError("it is no directory")
        place = FileLocation(root)
        place.stored_bytes()  # no pipes among its files, which zarr would wait for
        node: Any = zarr.open(GuardedStore(place), mode="r")
        group = node if isinstance(node, zarr.Group) else None
        matrix = _member(group, array, root) if group is not None else node
    except SourceError:
        raise
    except Exception as err:
        raise SourceError(f"{root} is not a Zarr array or group that can be read: {shown_line(err)}") from err
    if group is None and array is not None:
        raise SourceError(f"{root} is an array, not a group: leave out array={array!r}")
    where = str(root) if group is None else f"{root}/{matrix.path}"
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
        raise DataError(f"{where} must be a matrix of floats, found {matrix.dtype} of shape {matrix.shape}")
    _check_room(matrix, root, where)
    column: Any = labels
    if isinstance(labels, str):
        if group is None:
            raise SourceError(f"{root} is an array, not a group: give labels as an array")
        column = _column(_get(group, labels, root), int(matrix.shape[0]), root)
    values = None if column is None else label_values(np.asarray(column), f"labels of {where}")
    y, names = resolve_labels(values, int(matrix.shape[0]), class_names, f"labels of {where}")
    rows = AdoptedRows(matrix, y, names, normalize, where)
    if rows.n_failed:
        _log.warning(
            "%d of %d rows of %s are not finite and are left out", rows.n_failed, matrix.shape[0], where
        )
    return rows


def _check_room(array: Any, root: Path, where: str) -> None:
    """Raise SourceError where an array claims far more rows than its files can hold."""
    from ltstore.store.bounds import check_room

    try:
        check_room(math.prod(array.shape) * array.dtype.itemsize, FileLocation(root / array.path), "the array")
    except StoreFormatError as err:
        raise SourceError(f"{where} cannot be read: {err}") from err


def _column(array: Any, n_rows: int, root: Path) -> NDArray[Any]:
    """Return the labels in a group, one for each row."""
    from ltstore.store.format import shown_line

    where = f"{root}/{array.path}"
    if array.shape != (n_rows,):
        raise LabelError(f"labels in {where} must be {n_rows} values, found shape {array.shape}")
    _check_room(array, root, where)
    try:
        return np.asarray(array[...])
    except Exception as err:
        raise SourceError(f"cannot read {where}: {shown_line(err)}") from err


def _get(group: Any, name: str, root: Path) -> Any:
    import zarr

    try:
        node = group.get(name)
    except StoreFormatError as err:
        raise SourceError(f"{root} has an array {name!r} that cannot be read: {err}") from err
    if not isinstance(node, zarr.Array):
        raise SourceError(
            f"{root} has no array {name!r}; it has {', '.join(sorted(group.keys())) or 'nothing'}"
        )
    return node


def _member(group: Any, name: str | None, root: Path) -> Any:
    if name is not None:
        return _get(group, name, root)
    found = {key: node for key, node in group.arrays() if node.ndim == 2 and node.dtype.kind == "f"}
    if len(found) != 1:
        what = f"several matrices of floats, {', '.join(sorted(found))}" if found else "no matrix of floats"
        raise SourceError(f"{root} has {what}: name the array (array=...)")
    return next(iter(found.values()))
