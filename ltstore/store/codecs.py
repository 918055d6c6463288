"""Codecs of arrays that another program laid out: those that are safe to run, and how much each may give out.

Zarr runs whatever codec an array names, to any size: a chunk of a few kilobytes can fill the memory, and some
codecs run code (numcodecs' "pickle"). So a document is rewritten before zarr-python sees it: compressors are
replaced by `ltstore.bounded`, which knows how many bytes a chunk may have, and codecs not named here are refused.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numcodecs
import numcodecs.abc
import numcodecs.blosc
import numcodecs.lz4
import numcodecs.registry
import numpy as np
from zarr.abc.codec import BytesBytesCodec
from zarr.registry import register_codec

from ltstore.store.bounds import FREE_CHUNK_BYTES, LARGEST_RATIO
from ltstore.store.format import shown

BOUNDED = "ltstore.bounded"
COMPRESSORS = ("zstd", "gzip", "zlib", "blosc", "lz4", "bz2", "lzma")
PLAIN = ("bytes", "crc32c", "transpose", "vlen-utf8")
PLAIN_FILTERS = (
    *("shuffle", "delta", "fixedscaleoffset", "bitround", "quantize"),
    *("crc32", "crc32c", "adler32", "vlen-utf8"),
)
_LIMIT_CHUNK_BYTES = 1 << 31
_LIMIT_INNER_CHUNKS = 1 << 20
_LIMIT_CODECS = 16
_BLOCK_BYTES = 1 << 20


def decompress(kind: str, data: bytes, limit: int) -> bytes:
    """Return the content of a compressed chunk.

    Parameters
    ----------
    kind : str
        One of `COMPRESSORS`.
    data : bytes
    limit : int
        Bytes that the chunk may have.

    Raises
    ------
    ValueError
        It is damaged, longer than `limit`, or both above 64 MiB and more than 64 times `data`.
    """
    limit = min(limit, max(FREE_CHUNK_BYTES, LARGEST_RATIO * len(data)))
    if kind in ("blosc", "lz4"):  # the length stands in the head, and is what gets allocated
        if len(data) < (16 if kind == "blosc" else 4):
            raise ValueError(f"a {kind} chunk of {len(data)} bytes is cut short")
        n_bytes = int.from_bytes(data[4:8] if kind == "blosc" else data[:4], "little")
        _check_length(n_bytes, limit, kind)
        if kind == "blosc" and int.from_bytes(data[12:16], "little") != len(data):  # it would read past the end
            raise ValueError(f"a blosc chunk of {len(data)} bytes is not as long as it says")
        decode = numcodecs.blosc.decompress if kind == "blosc" else numcodecs.lz4.decompress
        return bytes(decode(data))
    found = bytearray()
    for block in _stream(kind, data):
        found += block
        _check_length(len(found), limit, kind)
    return bytes(found)


def _check_length(n_bytes: int, limit: int, kind: str) -> None:
    if n_bytes > limit:
        raise ValueError(f"a {kind} chunk holds more than the {limit} bytes that are expected of it")


def _stream(kind: str, data: bytes) -> Iterator[bytes]:
    """Yield the content of a compressed stream in blocks of about a megabyte."""
    if kind == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
        return
    while data:
        if kind in ("gzip", "zlib"):
            inflate = zlib.decompressobj(47)  # either head
            while not inflate.eof:
                block = inflate.decompress(data, _BLOCK_BYTES)
                data = inflate.unconsumed_tail
                if not block and not data and not inflate.eof:
                    raise ValueError(f"a {kind} chunk is cut short")
                yield block
            data = inflate.unused_data
            continue
        expand = bz2.BZ2Decompressor() if kind == "bz2" else lzma.LZMADecompressor(memlimit=1 << 28)
        while not expand.eof:
            block = expand.decompress(data if expand.needs_input else b"", _BLOCK_BYTES)
            if not block and expand.needs_input and not expand.eof:
                raise ValueError(f"a {kind} chunk is cut short")
            data = b""
            yield block
        data = expand.unused_data


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """A compressor of Zarr v3 with a limit; reads only."""

    kind: str
    limit: int
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BoundedCodec:
        """Return the codec of a document that `bounded_v3` made."""
        return cls(**data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in a document."""
        return {"name": BOUNDED, "configuration": {"kind": self.kind, "limit": self.limit}}

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        found = decompress(self.kind, chunk_bytes.to_bytes(), self.limit)
        return chunk_spec.prototype.buffer.from_bytes(found)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Unknown: the size depends on the content."""
        raise NotImplementedError


class BoundedFilter(numcodecs.abc.Codec):  # type: ignore[misc]
    """A compressor of Zarr v2 with a limit; reads only."""

    codec_id = BOUNDED

    def __init__(self, kind: str, limit: int) -> None:
        self.kind = kind
        self.limit = limit

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the content of a chunk."""
        return decompress(self.kind, bytes(buf), self.limit)

    def encode(self, buf: Any) -> Any:
        """Refuse: nothing is written."""
        raise NotImplementedError


register_codec(BOUNDED, BoundedCodec)
numcodecs.registry.register_codec(BoundedFilter)


def bounded_v3(document: dict[str, Any]) -> dict[str, Any]:
    """Return a zarr.json with bounded codecs; ValueError where it asks for what is not known to be safe."""
    if document.get("node_type") == "group":
        return {"zarr_format": 3, "node_type": "group", "attributes": {}}
    if document.get("storage_transformers"):
        raise ValueError(f"storage transformers are unknown: {shown(document['storage_transformers'])}")
    grid = document.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    if not isinstance(configuration, dict) or grid is None or grid.get("name") != "regular":
        raise ValueError(f"the chunk grid must be regular, found {shown(grid)}")
    shape = _shape(document.get("shape"), "shape", 0)
    chunks = _shape(configuration.get("chunk_shape"), "chunk_shape", 1)
    itemsize = _itemsize(document.get("data_type"))
    if len(chunks) != len(shape):
        raise ValueError(f"chunks of {len(chunks)} dimensions for an array of {len(shape)}")
    return {**document, "attributes": {}, "codecs": _codecs(document.get("codecs"), chunks, itemsize, 0)}


def bounded_v2(document: dict[str, Any]) -> dict[str, Any]:
    """Return a .zarray with bounded codecs; ValueError where it asks for what is not known to be safe."""
    chunks = _shape(document.get("chunks"), "chunks", 1)
    if len(chunks) != len(_shape(document.get("shape"), "shape", 0)):
        raise ValueError("chunks and shape must have as many dimensions")
    limit = _limit(chunks, _itemsize(document.get("dtype")))
    filters = document.get("filters")
    if filters is not None and (not isinstance(filters, list) or len(filters) > _LIMIT_CODECS):
        raise ValueError(f"filters must be a short list, found {shown(filters)}")
    return {
        **document,
        "compressor": _filter(document.get("compressor"), limit),
        "filters": filters and [_filter(entry, limit) for entry in filters],
    }


def _filter(entry: Any, limit: int) -> dict[str, Any] | None:
    if entry is None:
        return None
    kind = entry.get("id") if isinstance(entry, dict) else None
    if kind in COMPRESSORS:
        return {"id": BOUNDED, "kind": kind, "limit": limit}
    if kind in PLAIN_FILTERS:
        return dict(entry)
    raise ValueError(f"the codec {shown(kind)} is not one that is safe to run")


def _codecs(entries: Any, chunks: tuple[int, ...], itemsize: int, depth: int) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or len(entries) > _LIMIT_CODECS or depth > 2:
        raise ValueError(f"codecs must be a short list, not nested deeply, found {shown(entries)}")
    named = [_named(entry) for entry in entries]
    sharded = any(name == "sharding_indexed" for name, _ in named)
    limit = 0 if sharded and len(named) == 1 else _limit(chunks, itemsize)
    found = []
    for name, configuration in named:
        kind = name.removeprefix("numcodecs.")
        if kind in COMPRESSORS:
            found.append({"name": BOUNDED, "configuration": {"kind": kind, "limit": limit}})
        elif name == "sharding_indexed":
            inner = _shape(configuration.get("chunk_shape"), "inner chunk_shape", 1)
            if math.prod(chunks) > _LIMIT_INNER_CHUNKS * math.prod(inner):
                raise ValueError(f"a shard has at most {_LIMIT_INNER_CHUNKS} chunks")
            index = [_named(entry) for entry in configuration.get("index_codecs") or []]
            if any(name not in ("bytes", "crc32c") for name, _ in index):
                raise ValueError("the codecs of a shard's index must be bytes and crc32c")
            codecs = _codecs(configuration.get("codecs"), inner, itemsize, depth + 1)
            found.append({"name": name, "configuration": {**configuration, "codecs": codecs}})
        elif name in PLAIN:
            found.append({"name": name, "configuration": configuration} if configuration else {"name": name})
        else:
            raise ValueError(f"the codec {shown(name)} is not one that is safe to run")
    return found


def _named(entry: Any) -> tuple[str, dict[str, Any]]:
    name = entry.get("name") if isinstance(entry, dict) else entry
    configuration = entry.get("configuration") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(configuration or {}, dict):
        raise ValueError(f"a codec must have a name and a configuration, found {shown(entry)}")
    return name, configuration or {}


def _shape(value: Any, what: str, low: int) -> tuple[int, ...]:
    whole = isinstance(value, list) and len(value) <= 32
    if not whole or any(isinstance(n, bool) or not isinstance(n, int) or not low <= n < 1 << 62 for n in value):
        raise ValueError(f"{what} must be a list of integers from {low}, found {shown(value)}")
    return tuple(value)


def _itemsize(value: Any) -> int:
    try:
        return max(np.dtype(value).itemsize if isinstance(value, str) else 8, 1)
    except TypeError:
        return 8  # text of any length, or what zarr-python will refuse


def _limit(chunks: tuple[int, ...], itemsize: int) -> int:
    n_bytes = math.prod(chunks) * itemsize
    if n_bytes > _LIMIT_CHUNK_BYTES:
        raise ValueError(
            f"a chunk of {shown(n_bytes)} bytes is larger than {_LIMIT_CHUNK_BYTES}: write smaller ones"
        )
    return n_bytes + n_bytes // 8 + (1 << 16)  # checksums and what else a codec adds
