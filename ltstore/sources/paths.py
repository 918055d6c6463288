"""Paths as other programs write them: one a line, or ended by a NUL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from ltstore.errors import SourceError

_READ_BYTES = 1 << 16
_MOST_BYTES = 1 << 20


class RawStream(Protocol):
    """What gives bytes as they come: ``sys.stdin.buffer.raw``, or a file that was opened unbuffered."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes, as soon as there are some; none at the end."""


def iter_paths(stream: RawStream, end: bytes = b"\n") -> Iterator[str]:
    """Yield paths as they come.

    Parameters
    ----------
    stream : RawStream
        Read no further than what is there.
    end : bytes
        What ends a path: a newline, or a NUL for names that may hold anything. Empty ones are left out; the last may
        lack it.

    Yields
    ------
    str
        As the operating system's functions take it (bytes that are not UTF-8 as surrogates); not changed otherwise.

    Raises
    ------
    SourceError
        A path is longer than a megabyte: it is not a list of paths, or it has another end.
    """
    rest = b""
    while data := stream.read(_READ_BYTES):
        *whole, rest = (rest + data).split(end)
        yield from (os.fsdecode(path) for path in whole if path)
        if len(rest) > _MOST_BYTES:
            other = "NUL (--null)" if end == b"\n" else "newlines (no --null)"
            raise SourceError(f"a path of over {_MOST_BYTES:,} bytes: are the paths ended by {other}?")
    if rest:
        yield os.fsdecode(rest)
