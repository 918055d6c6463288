"""A part: the embeddings of one file, read by rows, without holding the file in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import DataError

BLOCK_ROWS = 4096
MAX_FEATURES = 1 << 20
FLOAT_ITEMSIZES = (2, 4, 8)


class Part(ABC):
    """The embeddings of one file.

    Attributes
    ----------
    path : Path
    array : str
        Array, column or tensor inside the file; "" where a file is one array.
    n_rows, n_features : int
    dtype : numpy dtype
        Little-endian float16, float32 or float64.

    Raises
    ------
    DataError
        The array is not a matrix of floats.
    """

    def __init__(self, path: Path, array: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.path = path
        self.array = array
        if len(shape) != 2 or dtype.kind != "f" or dtype.itemsize not in FLOAT_ITEMSIZES:
            raise DataError(
                f"{self.where} must be a matrix of float16, float32 or float64 (rows, features), "
                f"found {dtype} of shape {tuple(shape)}"
            )
        if not 1 <= shape[1] <= MAX_FEATURES:
            raise DataError(f"{self.where} must have 1 to {MAX_FEATURES} features, found {shape[1]}")
        self.n_rows, self.n_features = int(shape[0]), int(shape[1])
        self.dtype = dtype.newbyteorder("<")

    @property
    def where(self) -> str:
        """File and array, for messages."""
        return f"{self.path} [{self.array}]" if self.array else str(self.path)

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) as floats, a view where the file is mapped. DataError where it is cut short."""


class StreamedPart(Part):
    """A part that can only be read from front to back; a step back begins anew."""

    def __init__(self, path: Path, array: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        super().__init__(path, array, shape, dtype)
        self._position = 0
        self._blocks: Iterator[NDArray[Any]] | None = None
        self._rest = np.empty((0, self.n_features), self.dtype)

    @abstractmethod
    def _iter_from(self, start: int) -> Iterator[NDArray[Any]]:
        """Yield (n, D) blocks from row `start` on."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) as a new array."""
        if self._blocks is None or start != self._position:
            self._blocks, self._rest = self._iter_from(start), self._rest[:0]
        out = np.empty((stop - start, self.n_features), self.dtype)
        done = 0
        while done < len(out):
            if not len(self._rest):
                block = next(self._blocks, None)
                if block is None:
                    raise DataError(
                        f"{self.where} must have {self.n_rows} rows, found {start + done}: cut short"
                    )
                self._rest = block
            n = min(len(self._rest), len(out) - done)
            out[done : done + n] = self._rest[:n]
            self._rest = self._rest[n:]
            done += n
        self._position = stop
        if stop == self.n_rows:
            if len(self._rest) or next(self._blocks, None) is not None:
                raise DataError(f"{self.where} has more rows than the {self.n_rows} it declares")
            self._blocks = None
        return out


class JoinedParts:
    """Parts one after another, as one matrix.

    Parameters
    ----------
    parts : sequence of Part
        At least one; same D and dtype.

    Raises
    ------
    DataError
        D or dtype differ: names both files.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        first = parts[0]
        for part in parts:
            if (part.n_features, part.dtype) != (first.n_features, first.dtype):
                raise DataError(
                    f"all parts must be alike: {first.where} has {first.n_features} features of {first.dtype}, "
                    f"{part.where} has {part.n_features} of {part.dtype}"
                )
        self.parts = tuple(parts)
        self.starts = np.concatenate([[0], np.cumsum([part.n_rows for part in parts], dtype=np.int64)])
        self.n_rows, self.n_features, self.dtype = int(self.starts[-1]), first.n_features, first.dtype

    def locate(self, row: int) -> tuple[Part, int]:
        """Return the part a row lies in, and its position there."""
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[at], row - int(self.starts[at])

    def spans(self, start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
        """Yield (part, first, last + 1) of the parts that rows [start, stop) lie in, in order."""
        while start < stop:
            part, first = self.locate(start)
            last = min(part.n_rows, first + stop - start)
            yield part, first, last
            start += last - first

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop): a view where they lie in one mapped part."""
        pieces = [part.read(first, last) for part, first, last in self.spans(start, stop)]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self.n_features), self.dtype)
