"""From one word to many files: a file, a directory, a glob, or braces as the shell expands them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MOST_FILES = 1_000_000


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what a pattern stands for: ``{00..12}`` counts and keeps leading zeros, ``{a,b}`` chooses; no nesting.

    Raises
    ------
    ConfigError
        More than a million names.
    """
    parts = _BRACES.split(pattern)
    choices: list[Sequence[str]] = [(part,) if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    n_names = 1
    for each in choices:
        n_names *= len(each)
        if n_names > _MOST_FILES:
            raise ConfigError(f"{pattern} stands for more than {_MOST_FILES:,} names: is a number wrong?")
    return map("".join, itertools.product(*choices))


def _choices(inside: str) -> Sequence[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",") if "," in inside else ("{" + inside + "}",)
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= _MOST_FILES:
        raise ConfigError(f"{{{inside}}} stands for more than {_MOST_FILES:,} names: is a number wrong?")
    padded = any(text.startswith("0") and len(text) > 1 for text in numbers.groups())
    width = max(map(len, numbers.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def is_pattern(spec: str | Path) -> bool:
    """Whether a word has braces or a wildcard, and is not the name of something that is there."""
    text = str(spec)
    return (glob.has_magic(text) or _BRACES.search(text) is not None) and not os.path.lexists(text)


def expand_files(spec: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files that a word stands for.

    Parameters
    ----------
    spec : str or path
        A file; a directory: those of its files that end in one of `suffixes` (any case) and are not hidden; or a
        pattern: braces in the order written, each a path or a wildcard. What a directory or wildcard gives is
        sorted by bytes.
    suffixes : sequence of str
        ".tar", ...

    Raises
    ------
    SourceNotFoundError
        Nothing there, or some of the names that braces stand for are not: names the first.
    SourceError
        The directory holds no such file.
    ConfigError
        As in `expand_braces`.
    """
    path = Path(spec)
    if path.is_dir():
        try:
            found = [entry for entry in path.iterdir() if has_suffix(entry.name, suffixes)]
        except OSError as err:
            raise SourceError(f"cannot list {path}: {err.strerror or err}") from err
        if not found:
            raise SourceError(f"{path} holds no file that ends in {' or '.join(suffixes)}")
        return sorted(found, key=os.fsencode)
    if not is_pattern(spec):
        if not path.exists():
            raise SourceNotFoundError(f"no file or directory {path}")
        return [path]
    files: list[str] = []
    absent: list[str] = []
    names = list(expand_braces(str(spec)))
    for name in names:
        if os.path.lexists(name):
            files.append(name)
        elif glob.has_magic(name) and (matches := glob.glob(name)):  # noqa: PTH207 - may be absolute
            files += sorted(matches, key=os.fsencode)
        else:
            absent.append(name)
    if absent:
        which = (
            absent[0] if len(names) == 1 else f"{len(absent):,} of the {len(names):,} of {spec}: {absent[0]}"
        )
        raise SourceNotFoundError(f"no file {which}{', ...' if len(absent) > 1 else ''}")
    return list(map(Path, files))


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file name ends in one of the suffixes, in any case, and is not hidden."""
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")


def short_names(files: Sequence[Path]) -> list[str]:
    """Return the names that tell files apart: their paths from the directory that holds them all."""
    root = os.path.commonpath([file.absolute().parent for file in files])
    return [os.path.relpath(file, root) for file in files]
