"""Text by the million: strings packed into one block of bytes, and keys made only when they are asked for."""

from __future__ import annotations

import bisect
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from ltstore.types import ByteArray, IntArray


class LazyTexts(Sequence[str]):
    """A sequence of strings that makes each one when it is asked for; a subclass says how."""

    @abstractmethod
    def text(self, position: int) -> str:
        """Return string `position`, 0 <= position < len."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one string, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self.text(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        return self.text(index % len(self))


class PackedTexts(LazyTexts):
    """Strings as UTF-8 in one block: 8 bytes each beside their own, where a Python string takes 49 more.

    Parameters
    ----------
    data : (n_bytes,) uint8
        All strings, one after the other; undecodable bytes of file names stand as they are.
    ends : (N,) int64
        Where each ends.
    """

    def __init__(self, data: ByteArray, ends: IntArray) -> None:
        self._data, self._ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> PackedTexts:
        """Pack strings; UnicodeEncodeError for a surrogate that stands for no byte of a file name."""
        data = bytearray()
        ends = []
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        return cls(np.frombuffer(data, np.uint8), np.array(ends, np.int64))

    @classmethod
    def of_arrow(cls, column: Any) -> PackedTexts:
        """Pack a pyarrow column of strings without nulls; no Python string is made."""
        import pyarrow as pa

        column = column.cast(pa.large_string())
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        blocks, ends, before = [], [], 0
        for chunk in chunks:
            _, offsets, data = chunk.buffers()
            if not len(chunk):
                continue
            bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            held = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
            blocks.append(held[bounds[0] : bounds[-1]])
            ends.append(bounds[1:] - bounds[0] + before)
            before += len(blocks[-1])
        empty = np.empty(0, np.int64)
        return cls(np.concatenate([empty.astype(np.uint8), *blocks]), np.concatenate([empty, *ends]))

    def __len__(self) -> int:
        """N."""
        return len(self._ends)

    def text(self, position: int) -> str:
        """Return one string."""
        start = self._ends[position - 1] if position else 0
        return self._data[start : self._ends[position]].tobytes().decode("utf-8", "surrogateescape")


class PartKeys(LazyTexts):
    """Keys of rows that lie in parts: "part/text", or "part/number" with the row's number in its part.

    Parameters
    ----------
    names : sequence of str
        Of the parts.
    n_rows : sequence of int
        Of each part.
    texts : sequence of str, optional
        One a row; an empty one leaves the name of its part.
    """

    def __init__(self, names: Sequence[str], n_rows: Sequence[int], texts: Sequence[str] | None = None) -> None:
        self._names, self._texts = tuple(names), texts
        self._starts = [0, *itertools.accumulate(n_rows)]

    def __len__(self) -> int:
        """N."""
        return self._starts[-1]

    @property
    def starts(self) -> list[int]:
        """The first row of each part, and N."""
        return self._starts

    def part(self, position: int) -> int:
        """Return which part a row lies in."""
        return bisect.bisect_right(self._starts, position) - 1

    def text(self, position: int) -> str:
        """Return one key."""
        part = self.part(position)
        row = position - self._starts[part] if self._texts is None else self._texts[position]
        return self._names[part] if row == "" else f"{self._names[part]}/{row}"
