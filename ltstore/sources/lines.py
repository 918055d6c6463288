"""Lines of text files, none longer than paths and labels are: a file without line ends is not read whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from ltstore.errors import SourceError

LONGEST_LINE = 1 << 20


def bounded_lines(handle: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    """Yield the lines of an open file, with their ends; SourceError names one that is longer than 2**20."""
    number = 0
    while line := handle.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise SourceError(
                f"{path}, line {number}: longer than {LONGEST_LINE} characters, that is no list of rows"
            )
        yield line
