"""Footer and page headers of a Parquet file, read before anything is decompressed (pure).

A page says how many bytes it decompresses to and how many values it holds, and a Parquet reader allocates that;
the totals in the file's footer need not agree. Headers are Thrift structs in compact protocol.

References
----------
https://parquet.apache.org/docs/file-format/data-pages/,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT_PAGES = 1 << 16
LIMIT_FOOTER_BYTES = 1 << 24
LIMIT_FOOTER_ITEMS = 1 << 12  # columns, row groups; a schema nested deeper would exhaust the stack
LIMIT_DEPTH = 16
_BYTE_ARRAYS = (6, 7)  # physical types: of any length, of a fixed length
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
    """Reads one struct of Thrift's compact protocol: {field: int, bool, bytes, list, struct, or None for a double}."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("a page header or footer is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a page header or footer holds a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the fields of a struct."""
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            found[field] = self._value(head & 0xF, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > LIMIT_DEPTH:
            raise ValueError("a page header or footer is nested deeply")
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            n_bytes = 8 if kind == 7 else self._varint()
            start = self.position
            self.position += n_bytes
            return bytes(self._data[start : self.position]) if kind == 8 else None
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            if count > len(self._data) - self.position:
                raise ValueError("a page header or footer is cut short")
            boolean = head & 0xF in (1, 2)
            return [self._byte() if boolean else self._value(head & 0xF, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"a page header or footer has a field of kind {kind}")


@dataclass(frozen=True)
class ColumnChunk:
    """Where the pages of one column chunk lie, by the footer: bytes [start, stop)."""

    path: tuple[str, ...]
    is_bytes: bool
    start: int
    stop: int


def read_footer(data: memoryview) -> tuple[int, list[ColumnChunk]]:
    """Return a file's number of rows and its column chunks; ValueError where the footer is damaged.

    pyarrow ends the process at some damaged footers (statistics of a wrong length), so these are found here.
    """
    if len(data) < 12 or bytes(data[-4:]) != b"PAR1":
        raise ValueError("it is no Parquet file")
    length = int.from_bytes(data[-8:-4], "little")
    if not 0 < length <= min(len(data) - 8, LIMIT_FOOTER_BYTES):
        raise ValueError(f"a footer of {length} bytes in a file of {len(data)}")
    footer = _Compact(data[len(data) - 8 - length : len(data) - 8]).struct(0)
    schema, n_rows, groups = footer.get(2), footer.get(3), footer.get(4)
    if not isinstance(schema, list) or not isinstance(n_rows, int) or not isinstance(groups, list):
        raise ValueError("a footer without schema, rows or row groups")
    if len(schema) > LIMIT_FOOTER_ITEMS or len(groups) > LIMIT_FOOTER_ITEMS:
        raise ValueError(f"a footer of more than {LIMIT_FOOTER_ITEMS} columns or row groups")
    return n_rows, [_column_chunk(column) for group in groups for column in _structs(group, 1)]


def _structs(value: Any, field: int) -> list[Any]:
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, list) or len(found) > LIMIT_FOOTER_ITEMS:
        raise ValueError("a row group without columns, or with too many")
    return found


def _column_chunk(column: Any) -> ColumnChunk:
    about = column.get(3) if isinstance(column, dict) else None
    if not isinstance(about, dict):
        raise ValueError("a column without metadata")
    kind, path = about.get(1), about.get(3)
    size, first, dictionary = about.get(7), about.get(9), about.get(11)
    if not isinstance(path, list) or not all(isinstance(name, bytes) for name in path):
        raise ValueError("a column without a name")
    if not isinstance(size, int) or not isinstance(first, int):
        raise ValueError("a column without a size")
    if dictionary is not None and not isinstance(dictionary, int):
        raise ValueError("a dictionary without a place")
    start = min(first, dictionary or first)  # 0 is a writer's way to say that there is none
    names = tuple(name.decode("utf-8", "replace") for name in path)
    return ColumnChunk(path=names, is_bytes=kind in _BYTE_ARRAYS, start=start, stop=start + size)


def check_pages(
    chunks: Sequence[ColumnChunk], data: memoryview, columns: Collection[str], n_rows: int, room: int
) -> list[str]:
    """Return the columns of text that have dictionaries; ValueError where pages claim more than `room` bytes.

    A long value in a dictionary may stand in every row, so such columns are unfolded only after a look.
    """
    n_bytes, folded = 0, set()
    for chunk in chunks:
        if chunk.path[0] not in columns:
            continue
        totals = page_totals(data, chunk.start, chunk.stop)
        n_bytes += totals.n_bytes + 8 * totals.n_values
        if len(chunk.path) == 1 and totals.n_values > n_rows:
            raise ValueError(f"the pages of {chunk.path[0][:80]!r} hold {totals.n_values} values")
        if chunk.is_bytes and totals.dictionary_bytes:
            if len(chunk.path) == 1:
                folded.add(chunk.path[0])
            else:
                n_bytes += totals.n_values * totals.dictionary_bytes
        if n_bytes > room:
            raise ValueError(f"{len(data)} bytes claim to hold more than {room}")
    return sorted(folded)
