"""Files of several parts in their order (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ltstore.errors import SourceError

_NUMBERED = re.compile(r"(.*?)([0-9]+)(?:-of-([0-9]+))?", re.DOTALL)


def by_number(paths: Sequence[Path]) -> dict[int, Path] | None:
    """Return files by the number at the end of their name; None where their names differ in more than that.

    ``img_emb_7.npy`` and ``img_emb_0007.npy`` are number 7; ``part-3-of-8.parquet`` is number 3.

    Raises
    ------
    SourceError
        Two files have one number.
    """
    found: dict[int, Path] = {}
    kinds = set()
    for path in paths:
        match = _NUMBERED.fullmatch(path.stem)
        if match is None:
            return None
        kinds.add((match[1], match[3]))
        number = int(match[2])
        if len(kinds) == 1 and number in found:
            raise SourceError(f"{found[number]} and {path.name} have one number: which comes first?")
        found[number] = path
    return dict(sorted(found.items())) if len(kinds) == 1 else None


def check_contiguous(numbers: dict[int, Path], first: int | None = None) -> None:
    """Raise SourceError that names the number that is missing between the first and the last."""
    expected = min(numbers) if first is None else first
    for number, path in numbers.items():
        if number != expected:
            raise SourceError(f"{path.parent} has no part {expected} before {path.name}: parts are missing")
        expected += 1
    match = _NUMBERED.fullmatch(path.stem)
    if match is not None and match[3] is not None and len(numbers) != int(match[3]):
        raise SourceError(
            f"{path.parent} has {len(numbers)} of the {match[3]} parts of {path.name}: parts are missing"
        )


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Return files in numeric order where they are numbered, else by name.

    Names of one length (padded numbers, hashes) are compared as text, others with numbers compared as numbers.
    """
    numbers = by_number(paths) if len(paths) > 1 else None
    if numbers is not None:
        check_contiguous(numbers)
        return list(numbers.values())
    if len({len(path.name) for path in paths}) == 1:
        return sorted(paths, key=lambda path: path.name)
    return sorted(paths, key=_natural)


def _natural(path: Path) -> tuple[list[str | int], str]:
    pieces = re.split(r"([0-9]+)", path.name)
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], path.name
