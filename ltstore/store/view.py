"""Rows of a split as `ltstore.types.Rows`: all of it, or one of its subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltstore.errors import DataError
from ltstore.store.bounds import check_room
from ltstore.store.format import digest_of
from ltstore.types import EncoderIdentity, FloatArray, IntArray

if TYPE_CHECKING:
    from ltstore.store.split import Split


class RowView:
    """The rows of a split that have an embedding, or those of a subset of it. Made by `Split.rows`.

    Notes
    -----
    Holds labels and row ids in memory (16 bytes a row); embeddings are copied out of mapped files at each
    read. Picklable, and safe to read from threads.
    """

    def __init__(self, split: Split, row_ids: IntArray, normalize: bool) -> None:
        self._split = split
        self._row_ids = row_ids
        self._labels = split.labels[row_ids]
        self._normalize = normalize
        self._digest = ""
        for array in (self._row_ids, self._labels):
            array.flags.writeable = False

    @property
    def split(self) -> Split:
        """The split the rows are of."""
        return self._split

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self._row_ids)

    @property
    def n_features(self) -> int:
        """D."""
        return self._split.n_features

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, those of the store."""
        return self._split.class_names

    @property
    def labels(self) -> IntArray:
        """(N,) int64, UNLABELLED where unknown. Read-only."""
        return self._labels

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 positions in the split, ascending. Read-only."""
        return self._row_ids

    @property
    def normalized(self) -> bool:
        """Whether rows have unit norm: scaled on reading, or as the encoder gave them (to storage precision)."""
        return self._normalize or self._split.encoder.normalized

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity."""
        return self._split.encoder

    @property
    def digest(self) -> str:
        """ "sha256:..." over split, row ids, class names and normalization; embeddings are not read for it.

        Rows that are appended to the split later do not change it."""
        if not self._digest:
            import hashlib

            ids = hashlib.sha256(np.ascontiguousarray(self._row_ids, "<i8").data).hexdigest()
            split = self._split
            last = int(self._row_ids[-1]) + 1 if len(self._row_ids) else 0
            self._digest = digest_of(
                [split.digest_of_rows(last), ids, self._normalize, self.encoder.digest, list(self.class_names)]
            )
        return self._digest

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return rows [start, stop) as (stop - start, D) float32, in `out` if given.

        Raises
        ------
        IndexError
            The range leaves [0, N).
        DataError
            `out` is not a C-contiguous float32 array of that shape.
        """
        if not 0 <= start <= stop <= self.n_samples:
            raise IndexError(f"rows [{start}, {stop}) of {self.n_samples}")
        shape = (stop - start, self.n_features)
        out = self._into(out, shape)
        if stop > start:
            ids = self._row_ids[start:stop]
            array = self._split.embeddings
            if ids[-1] - ids[0] == len(ids) - 1:
                array.read(int(ids[0]), int(ids[-1]) + 1, out, unit=self._normalize)
            else:
                array.take(ids, out, unit=self._normalize)
        return out

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return the rows at `positions` (0..N-1, any order, repeats allowed) as (n, D) float32, in `out` if given."""
        chosen = np.asarray(positions, np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.n_samples):
            raise IndexError(
                f"positions must lie in 0..{self.n_samples - 1}, found {chosen.min()}..{chosen.max()}"
            )
        out = self._into(out, (len(chosen), self.n_features))
        ids = chosen if self.n_samples == self._split.n_rows else self._row_ids[chosen]  # or they are the same
        self._split.embeddings.take(ids, out, unit=self._normalize)
        return out

    def check(self) -> None:
        """Raise ChecksumMismatchError where a stored chunk of the shards of these rows is not as it was written.

        Notes
        -----
        Goes over the files once, some 10 GB/s a core from the page cache; chunks in an object store are checked as
        they come, and cost nothing here.
        """
        for shard in sorted(self._split.embeddings.shards(self._row_ids)):
            self._split.embeddings.check_shard(*shard)

    def select(self, positions: IntArray) -> RowView:
        """Return the rows at `positions` (ascending, unique) as rows of their own, ids kept."""
        return RowView(self._split, self._row_ids[positions], self._normalize)

    def _into(self, out: FloatArray | None, shape: tuple[int, int]) -> FloatArray:
        """Return `out`, or room; StoreFormatError where rows are claimed to be far larger than the files are."""
        if out is None:
            repeated = -(-shape[0] // max(self.n_samples, 1))
            check_room(shape[0] * shape[1] * 4, self._split.location, "rows", repeated=max(repeated, 1))
            return np.empty(shape, np.float32)
        if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise DataError(f"out must be C-contiguous float32 {shape}, found {out.dtype} {out.shape}")
        return out
