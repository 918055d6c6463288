"""The seed tree: every random number is a pure function of (seed, purpose, class, epoch, row).

Two ways in: `stream` gives an ordinary Generator for draws whose number is not known beforehand; `row_uniforms`, and
`row_key` for the normals of `ltstore.kernels.normals`, are counter-based, so that row i of a sequence is the same
whatever block it is drawn in, by whichever worker.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

from ltstore.types import DoubleArray

_DRAWS_PER_BLOCK = 4  # one Philox4x64 counter step gives four 64-bit words


def _sequence(seed: int, purpose: str, class_id: int, epoch: int) -> SeedSequence:
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return SeedSequence(seed, spawn_key=(word, class_id, epoch))


def stream(seed: int, purpose: str, class_id: int = 0, epoch: int = 0) -> Generator:
    """Return the Generator of one leaf of the seed tree.

    Parameters
    ----------
    seed : int
        The user's seed, non-negative.
    purpose : str
        What the numbers are for ("subset.exp", "bootstrap", ...): two purposes never share numbers.
    class_id, epoch : int
        Non-negative.
    """
    return Generator(Philox(_sequence(seed, purpose, class_id, epoch)))


def row_uniforms(
    seed: int, purpose: str, class_id: int, epoch: int, start: int, stop: int, n_draws: int
) -> DoubleArray:
    """Return rows [start, stop) of an endless (rows, n_draws) table of uniforms in the open interval (0, 1).

    Equal to ``row_uniforms(..., 0, stop, n_draws)[start:]`` at the cost of the rows asked for.

    Notes
    -----
    About 3 ns a draw. Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with
    the row number as its counter.
    """
    blocks = -(-n_draws // _DRAWS_PER_BLOCK)
    key = _sequence(seed, purpose, class_id, epoch).generate_state(2, np.uint64)
    raw = Philox(key=key, counter=start * blocks).random_raw((stop - start) * blocks * _DRAWS_PER_BLOCK)
    table = raw.reshape(stop - start, blocks * _DRAWS_PER_BLOCK)[:, :n_draws]
    uniforms: DoubleArray = (table >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53
    return uniforms


def row_key(seed: int, purpose: str, class_id: int, epoch: int) -> tuple[int, int, int]:
    """Return the key of one leaf of the seed tree for `ltstore.kernels.normals`: three words of 32 bits."""
    a, b, c = _sequence(seed, purpose, class_id, epoch).generate_state(3, np.uint32).tolist()
    return a, b, c
