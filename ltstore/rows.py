"""Rows held in memory, and the way every room walks over rows: in blocks.

`ArrayRows` and the store's `RowView` obey one Protocol, `ltstore.types.Rows`; what takes rows takes either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import DataError, LabelError
from ltstore.types import UNLABELLED, EncoderIdentity, FloatArray, IntArray, Rows

BLOCK_ROWS = 8192
_LANES = 32  # running sums of a squared norm
_NORM_ROWS = 64  # normalised together: their squares stay in a cache
_SQUARES_LOW, _SQUARES_HIGH = 1e-70, 1e70  # squared norms whose root and its inverse are normal float32


def normalize_rows(X: FloatArray) -> FloatArray:
    """Scale each row to unit L2 norm in place and return it; all-zero rows stay zero.

    Parameters
    ----------
    X : (n, D) float32, C-contiguous
        Modified; finite.

    Notes
    -----
    x * float32(1 / sqrt(s)), with s the sum of squares in float64: 32 running sums over the features, then halves added
    up, then the features beyond the last multiple of 32 one by one. The products are exact and the order is fixed, so a
    row's bits depend on the row alone; `ltstore.kernels.rows` computes the same ones. About 1 us for 768 features.
    """
    for start in range(0, len(X), _NORM_ROWS):
        block = X[start : start + _NORM_ROWS]
        squares = _squared_norms(block)
        usual = (squares > _SQUARES_LOW) & (squares < _SQUARES_HIGH)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            factors = np.where(usual, 1.0 / np.sqrt(squares), 1.0).astype(np.float32)
        unsure = np.flatnonzero(~usual & (squares != 0))
        divided = block[unsure] / np.sqrt(squares[unsure])[:, None]  # 1 / norm would not be a normal float32
        block *= factors[:, None]
        block[unsure] = divided
    return X


def _squared_norms(X: FloatArray) -> NDArray[np.float64]:
    """Return (n,) float64 sums of squares, added in the order that `normalize_rows` says."""
    wide = X.astype(np.float64)
    whole = X.shape[1] - X.shape[1] % _LANES
    lanes = wide[:, :whole].reshape(len(X), whole // _LANES, _LANES)
    sums = np.einsum(
        "ijk,ijk->ik", lanes, lanes
    )  # adds along j in order; the tests compare it with a loop that must
    while sums.shape[1] > 1:
        sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
    total: NDArray[np.float64] = sums[:, 0]
    for column in range(whole, X.shape[1]):
        total += wide[:, column] ** 2
    return total


def iter_blocks(
    rows: Rows, block_rows: int = BLOCK_ROWS, *, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, FloatArray, IntArray]]:
    """Yield (start, X, labels) over rows first..last-1 (all) in order; X is a buffer that the next step overwrites."""
    end = rows.n_samples if last is None else last
    buffer = np.empty((min(block_rows, max(end - first, 1)), rows.n_features), np.float32)
    labels = rows.labels
    for start in range(first, end, block_rows):
        stop = min(start + block_rows, end)
        yield start, rows.read(start, stop, out=buffer[: stop - start]), labels[start:stop]


def class_counts(rows: Rows) -> IntArray:
    """Return (C,) int64: how many rows each class has; unlabelled rows are not counted."""
    labels = rows.labels
    return np.bincount(labels[labels != UNLABELLED], minlength=len(rows.class_names)).astype(np.int64)


class ArrayRows:
    """Labelled embeddings in memory, as `ltstore.types.Rows`.

    Parameters
    ----------
    X : (N, D) array of floats
        Copied to float32 unless it is that already; never modified.
    labels : (N,) array of ints, optional
        Positions in `class_names`, -1 where unknown; all unlabelled if left out.
    class_names : sequence of str, optional
        Default: "0", "1", ... up to the largest label.
    row_ids : (N,) array of ints, optional
        Ascending and unique; default 0..N-1.
    normalize : bool
        Give rows out with unit norm.
    encoder : EncoderIdentity, optional
        Default: an identity that says only "arrays" and D.

    Raises
    ------
    DataError
        X is not two-dimensional, is not finite, or lengths differ.
    LabelError
        A label is outside the classes.
    """

    def __init__(
        self,
        X: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        class_names: Sequence[str] | None = None,
        row_ids: ArrayLike | None = None,
        normalize: bool = False,
        encoder: EncoderIdentity | None = None,
    ) -> None:
        matrix = np.ascontiguousarray(X, dtype=np.float32)
        if matrix.ndim != 2:
            raise DataError(f"X must have shape (n_samples, n_features), found {matrix.shape}")
        n = len(matrix)
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if len(bad):
            raise DataError(
                f"X has NaN or Inf in {len(bad)} of {n} rows, first in row {bad[0]}: remove or repair them"
            )
        self._labels = _int_column(labels, n, "labels", UNLABELLED)
        n_classes = int(self._labels.max(initial=-1)) + 1
        self._class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(n_classes)))
        outside = (self._labels < UNLABELLED) | (self._labels >= len(self._class_names))
        if outside.any():
            where = int(np.argmax(outside))
            raise LabelError(
                f"label {self._labels[where]} of row {where} is outside the {len(self._class_names)} classes: "
                "give class_names for every label"
            )
        self._row_ids = np.arange(n) if row_ids is None else _int_column(row_ids, n, "row_ids", 0)
        if n and (np.diff(self._row_ids) <= 0).any():
            raise DataError("row_ids must be ascending and unique")
        self._normalized = normalize or (encoder is not None and encoder.normalized)
        self._X = normalize_rows(matrix.copy()) if normalize else matrix
        self._encoder = encoder or EncoderIdentity(
            encoder="import", model="arrays", n_features=matrix.shape[1], normalized=normalize
        )
        for array in (self._labels, self._row_ids):
            array.flags.writeable = False

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self._X)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self._X.shape[1])

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
        """(N,) int64, read-only."""
        return self._row_ids

    @property
    def normalized(self) -> bool:
        """Whether rows have unit norm."""
        return self._normalized

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity."""
        return self._encoder

    @property
    def digest(self) -> str:
        """ "sha256:..." over rows, labels and ids; one pass over the data at each call."""
        state = hashlib.sha256(repr((self._X.shape, self._class_names, self._normalized)).encode())
        for array in (self._X, self._labels, self._row_ids):
            state.update(np.ascontiguousarray(array).data)
        return "sha256:" + state.hexdigest()

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return a copy of rows [start, stop), in `out` if given."""
        if out is None:
            return self._X[start:stop].copy()
        np.copyto(out, self._X[start:stop])
        return out

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return a copy of the rows at `positions`, in `out` if given."""
        if out is None:
            return self._X.take(positions, axis=0)
        np.copyto(out, self._X.take(positions, axis=0))
        return out

    def select(self, positions: IntArray) -> ArrayRows:
        """Return the rows at `positions` (ascending, unique) as rows of their own, ids kept."""
        chosen = ArrayRows(
            self._X[positions],
            self._labels[positions],
            class_names=self._class_names,
            row_ids=self._row_ids[positions],
            encoder=replace(self._encoder),
        )
        chosen._normalized = self._normalized
        return chosen


def copy_rows_at(rows: Rows, positions: IntArray) -> ArrayRows:
    """Return the rows at `positions` (n of them, in any order) in memory, numbered 0 to n - 1."""
    return ArrayRows(
        rows.take(positions),
        rows.labels[positions],
        class_names=rows.class_names,
        encoder=rows.encoder,
        normalize=rows.normalized,
    )


class TailRows:
    """The rows of others from a position on, as `ltstore.types.Rows`; nothing is copied.

    Parameters
    ----------
    rows : Rows
    start : int
        0..N.
    """

    def __init__(self, rows: Rows, start: int) -> None:
        if not 0 <= start <= rows.n_samples:
            raise IndexError(f"row {start} of {rows.n_samples}")
        self._rows, self._start = rows, start

    @property
    def n_samples(self) -> int:
        """N less the rows before the first."""
        return self._rows.n_samples - self._start

    @property
    def n_features(self) -> int:
        """D."""
        return self._rows.n_features

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._rows.class_names

    @property
    def labels(self) -> IntArray:
        """(n,) int64, read-only."""
        return self._rows.labels[self._start :]

    @property
    def row_ids(self) -> IntArray:
        """(n,) int64, read-only."""
        return self._rows.row_ids[self._start :]

    @property
    def normalized(self) -> bool:
        """Whether rows have unit norm."""
        return self._rows.normalized

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity."""
        return self._rows.encoder

    @property
    def digest(self) -> str:
        """ "sha256:..." over the digest of all rows and the first position."""
        return "sha256:" + hashlib.sha256(f"{self._rows.digest} from {self._start}".encode()).hexdigest()

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return rows [start, stop), in `out` if given."""
        return self._rows.read(self._start + start, self._start + stop, out)

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return the rows at `positions`, 0..n-1, in `out` if given."""
        chosen = np.asarray(positions, np.int64)
        if len(chosen) and chosen.min() < 0:
            raise IndexError(f"positions must not be negative, found {chosen.min()}")
        return self._rows.take(chosen + self._start, out)


def _int_column(values: ArrayLike | None, n: int, name: str, default: int) -> IntArray:
    if values is None:
        return np.full(n, default, np.int64)
    column = np.asarray(values)
    if column.shape != (n,) or column.dtype.kind not in "iu":
        raise DataError(f"{name} must be {n} integers, found shape {column.shape} of {column.dtype}")
    return column.astype(np.int64)
