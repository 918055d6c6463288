"""Page headers of a Parquet file, read before anything is decompressed (pure).

A page says how many bytes it decompresses to and how many values it holds, and a Parquet reader allocates that;
the totals in the file's footer need not agree. Headers are Thrift structs in compact protocol.

References
----------
https://parquet.apache.org/docs/file-format/data-pages/,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LIMIT_PAGES = 1 << 16
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # fields of a page header that hold the header of its kind
_DELTA_BYTE_ARRAY = 7  # each value repeats the one before: a page of it has no length that could be known


@dataclass(frozen=True)
class PageTotals:
    """What the pages of one column chunk claim."""

    n_bytes: int
    n_values: int
    dictionary_bytes: int


def page_totals(data: memoryview, start: int, stop: int) -> PageTotals:
    """Add up the page headers in bytes [start, stop) of a file; ValueError where they are damaged."""
    if not 0 <= start <= stop <= len(data):
        raise ValueError(f"pages at bytes {start}..{stop} of {len(data)}")
    n_bytes = n_values = dictionary_bytes = 0
    for _ in range(LIMIT_PAGES):
        if start == stop:
            return PageTotals(n_bytes, n_values, dictionary_bytes)
        reader = _Compact(data[start:stop])
        header = reader.struct(0)
        size, room = header.get(2), header.get(3)
        if not isinstance(size, int) or not isinstance(room, int) or size < 0 or room < 0:
            raise ValueError(f"the page at byte {start} has no size")
        n_bytes += size
        for kind, encoding in ((_DATA, 2), (_DATA_V2, 4)):
            if isinstance(inner := header.get(kind), dict):
                count = inner.get(1)
                if not isinstance(count, int) or count < 0:
                    raise ValueError(f"the page at byte {start} has {count!r} values")
                n_values += count
                if inner.get(encoding) == _DELTA_BYTE_ARRAY:
                    raise ValueError("values are stored as changes of the one before (DELTA_BYTE_ARRAY)")
        if isinstance(header.get(_DICTIONARY), dict):
            dictionary_bytes += size
        start += reader.position + room
        if start > stop:
            raise ValueError(f"a page ends at byte {start}, after its column ({stop})")
    raise ValueError(f"a column has more than {LIMIT_PAGES} pages")


class _Compact:
    """Reads one struct of Thrift's compact protocol: {field: int, bool, None or struct}; the rest is passed over."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("a page header is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a page header holds a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the fields of a struct."""
        if depth > 8:
            raise ValueError("a page header is nested deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            found[field] = self._value(head & 0xF, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            n_bytes = 8 if kind == 7 else self._varint()
            self.position += n_bytes
            return None
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            if count > len(self._data):
                raise ValueError("a page header is cut short")
            for _ in range(count):
                self._byte() if head & 0xF in (1, 2) else self._value(head & 0xF, depth + 1)
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"a page header has a field of kind {kind}")
