"""Which rows make up which block of a pass. Pure: needs numbers of rows, no rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltstore.errors import ConfigError
from ltstore.types import UNLABELLED, IntArray


@dataclass(frozen=True)
class RealBlock:
    """Rows [start, stop) of the real rows."""

    start: int
    stop: int


@dataclass(frozen=True)
class SyntheticPiece:
    """Rows [start, stop) of one class's endless synthetic sequence."""

    class_id: int
    start: int
    stop: int


@dataclass(frozen=True)
class SyntheticBlock:
    """Pieces that together fill one block: many tail classes share one."""

    pieces: tuple[SyntheticPiece, ...]

    @property
    def n_rows(self) -> int:
        """Rows in all pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces)


class Part(NamedTuple):
    """One of several parts of a pass.

    Attributes
    ----------
    start, stop : int
        Its real rows.
    first, last : (C,) int64
        Its synthetic rows: first[c] to last[c] - 1 of class c.
    """

    start: int
    stop: int
    first: IntArray
    last: IntArray

    @property
    def n_synthetic(self) -> int:
        """Its synthetic rows."""
        return int((self.last - self.first).sum())


def plan_part(labels: IntArray, targets: IntArray, number: int, n_parts: int) -> Part:
    """Return part `number` of `n_parts`: each row of a pass is in exactly one, and their sizes differ by one at most.

    Real rows are cut in their order so that parts have as many labelled ones; synthetic rows class after class.

    Raises
    ------
    ConfigError
        There is no part of that number.
    """
    if not 0 <= number < n_parts:
        raise ConfigError(f"part {number} of {n_parts}: parts are numbered from 0")
    known = np.flatnonzero(labels != UNLABELLED) if n_parts > 1 else labels

    def cut(at: int) -> int:
        if at in (0, n_parts):
            return 0 if at == 0 else len(labels)
        place = len(known) * at // n_parts
        return int(known[place]) if place < len(known) else len(labels)

    ends = np.cumsum(targets)
    n_synthetic = int(targets.sum())
    first, last = (
        np.clip(n_synthetic * at // n_parts - (ends - targets), 0, targets) for at in (number, number + 1)
    )
    return Part(cut(number), cut(number + 1), first, last)


def plan_real(stop: int, block_rows: int, *, start: int = 0) -> tuple[RealBlock, ...]:
    """Cut rows start..stop-1 into consecutive blocks of at most `block_rows`, each row in exactly one."""
    _check_block_rows(block_rows)
    return tuple(RealBlock(low, min(low + block_rows, stop)) for low in range(start, stop, block_rows))


def plan_synthetic(
    targets: IntArray, block_rows: int, *, first: IntArray | None = None
) -> tuple[SyntheticBlock, ...]:
    """Cut rows first[c]..targets[c]-1 of every class c, classes in order, into blocks of at most `block_rows`.

    Every block but the last is full; each row is in exactly one. `first` is 0 unless given.
    """
    _check_block_rows(block_rows)
    blocks: list[SyntheticBlock] = []
    pieces: list[SyntheticPiece] = []
    room = block_rows
    starts = np.zeros_like(targets) if first is None else first
    for class_id, (start, target) in enumerate(zip(starts.tolist(), targets.tolist(), strict=True)):
        while start < target:
            stop = min(target, start + room)
            pieces.append(SyntheticPiece(class_id, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                blocks.append(SyntheticBlock(tuple(pieces)))
                pieces, room = [], block_rows
    if pieces:
        blocks.append(SyntheticBlock(tuple(pieces)))
    return tuple(blocks)


def _check_block_rows(block_rows: int) -> None:
    if block_rows < 1:
        raise ConfigError(f"block_rows must be at least 1, found {block_rows}")
