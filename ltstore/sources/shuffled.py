"""The rows of a source in a random order that can be made again."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError
from ltstore.rng import stream
from ltstore.rows import BLOCK_ROWS
from ltstore.sources.base import Parts
from ltstore.sources.views import SelectedSource, parts_of
from ltstore.types import ImageSource, IntArray

ORDERS = ("source", "shuffled")


class ShuffledSource(SelectedSource):
    """The rows of another source in a random order, a pure function of the seed and the sizes of its parts.

    Rows that lie in files of their own are put into any order. Of a source that is read part after part (tars, row
    groups of Parquet) the parts are, and rows are mixed among the few that follow each other: `Parts.at_once`.

    Parameters
    ----------
    source : ImageSource
    seed : int
        Non-negative.

    Notes
    -----
    Memory: 8 bytes a row for the order, and as much as any source has for labels.
    """

    def __init__(self, source: ImageSource, seed: int) -> None:
        super().__init__(source, shuffled_positions(parts_of(source), seed), copy=False)


def shuffled_positions(parts: Parts, seed: int) -> IntArray:
    """Return the order of `ShuffledSource`.

    Returns
    -------
    (N,) int64
        Each of 0..N-1 once; new.

    Raises
    ------
    ConfigError
        A negative seed.

    Notes
    -----
    Rows are sorted by random words of a counter-based generator, whose numbers no version of NumPy changes: the order
    is part of what a store was made from. Words and rows share 64 bits, so that nothing more of the size of the rows
    is held; of rows with equal words the first comes first.
    """
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, found {seed}")
    draw = stream(seed, "ingest.order").bit_generator.random_raw
    starts, at_once = parts.starts.tolist(), parts.at_once
    row_bits = np.uint64(starts[-1].bit_length())
    order, at = np.empty(starts[-1], np.uint64), 0
    mixed = np.argsort(draw(len(starts) - 1), kind="stable").tolist()
    for first in range(0, len(mixed), at_once):
        begin = at
        for part in mixed[first : first + at_once]:
            for start in range(starts[part], starts[part + 1], BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, starts[part + 1]), dtype=np.uint64)
                order[at : at + len(rows)] = draw(len(rows)) >> row_bits << row_bits | rows
                at += len(rows)
        order[begin:at].sort()
    order &= (np.uint64(1) << row_bits) - np.uint64(1)
    return order.view(np.int64)


def ordered(source: ImageSource, order: str, seed: int) -> ImageSource:
    """Return `source` itself for the order "source", or a `ShuffledSource` for "shuffled".

    Raises
    ------
    ConfigError
        Another order, or a negative seed.
    """
    if order not in ORDERS:
        raise ConfigError(f"order must be {' or '.join(ORDERS)}, found {order!r}")
    return source if order == "source" else ShuffledSource(source, seed)
