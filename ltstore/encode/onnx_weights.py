"""What an ONNX file's weights are: the file itself and the files beside it that it names."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from ltstore.errors import EncoderUnavailableError

_Nested = Mapping[int, "_Nested | None"]
_ENTRY = 13
_TENSOR: dict[int, _Nested | None] = {_ENTRY: None}
_SPARSE: dict[int, _Nested | None] = {1: _TENSOR, 2: _TENSOR}
_GRAPH: dict[int, _Nested | None] = {5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE: dict[int, _Nested | None] = {
    5: _TENSOR,
    6: _GRAPH,
    10: _TENSOR,
    11: _GRAPH,
    22: _SPARSE,
    23: _SPARSE,
}
_NODE: dict[int, _Nested | None] = {5: _ATTRIBUTE}
_GRAPH[1] = _NODE
_MODEL: dict[int, _Nested | None] = {7: _GRAPH, 25: {7: _NODE}}
"""Field numbers of onnx.proto on the way to TensorProto.external_data: they never change."""


def weights_digest(path: Path) -> str:
    """Return "sha256:..." of an ONNX file, or of it and of the files with external data that it names.

    Raises
    ------
    EncoderUnavailableError
        A file that it names is not there, or it cannot be read as ONNX.

    Notes
    -----
    Cost: every byte is read once; nothing is held in memory.
    """
    own = _sha256(path)
    locations = external_files(path)
    if not locations:
        return "sha256:" + own
    whole = hashlib.sha256(own.encode())
    for location in locations:
        beside = path.parent / location
        if not beside.is_file():
            raise EncoderUnavailableError(f"{path} keeps weights in {location}, and {beside} is not there")
        whole.update(f"\n{_sha256(beside)}".encode())
    return "sha256:" + whole.hexdigest()


def external_files(path: Path) -> list[str]:
    """Return the names of the files that an ONNX file's tensors lie in, relative to its folder, sorted.

    Raises
    ------
    EncoderUnavailableError
        The file cannot be read as ONNX.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            entries = [dict(_strings(data, *span)) for span in _found(data, 0, len(data), _MODEL)]
        except (IndexError, ValueError, RecursionError) as err:
            raise EncoderUnavailableError(f"cannot load {path}: it is not ONNX ({err})") from err
    return sorted({each[2].decode() for each in entries if each.get(1) == b"location" and 2 in each})


def _found(data: mmap.mmap, start: int, stop: int, wanted: _Nested) -> Iterator[tuple[int, int]]:
    for field, low, high in _fields(data, start, stop):
        if field in wanted:
            inner = wanted[field]
            if inner is None:
                yield low, high
            else:
                yield from _found(data, low, high, inner)


def _strings(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    for field, low, high in _fields(data, start, stop):
        yield field, data[low:high]


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) of the length-delimited fields of a protobuf message."""
    while at < stop:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > stop:
                raise ValueError(f"a field at byte {at} ends beyond its message")
            yield key >> 3, at, at + size
            at += size
        else:
            raise ValueError(f"wire type {kind} before byte {at}")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
