"""Which rows make up which block of a pass. Pure: needs numbers of rows, no rows."""

from __future__ import annotations

from dataclasses import dataclass

from ltstore.errors import ConfigError
from ltstore.types import IntArray


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


def plan_real(n_samples: int, block_rows: int) -> tuple[RealBlock, ...]:
    """Cut rows 0..n_samples-1 into consecutive blocks of at most `block_rows`, each row in exactly one."""
    _check_block_rows(block_rows)
    return tuple(
        RealBlock(start, min(start + block_rows, n_samples)) for start in range(0, n_samples, block_rows)
    )


def plan_synthetic(targets: IntArray, block_rows: int) -> tuple[SyntheticBlock, ...]:
    """Cut rows 0..targets[c]-1 of every class c, classes in order, into blocks of at most `block_rows`.

    Every block but the last is full; each row is in exactly one.
    """
    _check_block_rows(block_rows)
    blocks: list[SyntheticBlock] = []
    pieces: list[SyntheticPiece] = []
    room = block_rows
    for class_id, target in enumerate(targets.tolist()):
        start = 0
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
