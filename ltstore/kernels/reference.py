"""The oracle: the contract written out in float64 NumPy. Slow, obvious, always there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ltstore.kernels.contract import SoftmaxTerms
from ltstore.kernels.normals import RowKey
from ltstore.types import DoubleArray, FloatArray, IntArray

WordArray = NDArray[np.uint64]
_WORD = np.uint64(0xFFFFFFFF)


def softmax_gradient(
    logits: FloatArray,
    labels: IntArray,
    terms: SoftmaxTerms,
    weights: FloatArray | None,
    first: int = 0,
) -> float:
    """Overwrite C columns of `logits` with the gradient and return the summed loss (see `ltstore.kernels.contract`).

    Notes
    -----
    Four float64 temporaries of (n, C); about 40 times the time of the Numba backend.
    """
    n, n_classes = len(logits), len(terms.offsets)
    if n == 0:
        return 0.0
    block = logits[:, first : first + n_classes]
    rows = np.arange(n)
    smoothing = np.zeros(n_classes) if terms.smoothing is None else terms.smoothing.astype(np.float64)
    target = np.tile(smoothing, (n, 1))
    target[rows, labels] += 1.0 - smoothing.sum()
    with np.errstate(invalid="ignore", over="ignore"):  # non-finite logits come out as a non-finite loss
        z = block.astype(np.float64) + terms.offsets
        if terms.margins is not None:
            z[rows, labels] -= terms.margins[labels]
        top = z.max(axis=1, keepdims=True)
        p = np.exp(z - top)
        total = p.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - np.sum(target * (z - top), axis=1, where=target > 0)
        p /= total
        p -= target
        if weights is not None:
            p *= weights[:, None]
            losses *= weights
        block[...] = p
    return float(losses.sum())


def normal_rows(key: RowKey, start: int, stop: int, n_draws: int) -> DoubleArray:
    """Return what `ltstore.kernels.normals.normal_rows` does, in float64 and with NumPy's functions."""
    quarter = -(-n_draws // 4)
    rows, steps = np.meshgrid(np.arange(start, stop, dtype=np.uint64), np.arange(quarter), indexing="ij")
    counter = [steps.astype(np.uint64), rows & _WORD, rows >> np.uint64(32), np.full_like(rows, key[2])]
    a, b, c, d = philox(counter, key[:2])
    pairs = []
    for radius, turn in ((a, b), (c, d)):
        r = np.sqrt(-2 * np.log(((radius >> np.uint64(1)) + 0.5) * 2.0**-31))
        angle = 2 * np.pi * turn * 2.0**-32
        pairs += [r * np.sin(angle), r * np.cos(angle)]
    return np.concatenate(pairs, axis=1)[:, :n_draws]


def philox(counter: Sequence[WordArray], key: tuple[int, int]) -> list[WordArray]:
    """Return the four words of Philox4x32-10 (Salmon et al. 2011) for four arrays of uint64 below 2**32."""
    c0, c1, c2, c3 = counter
    for turn in range(10):
        k0, k1 = (
            (word + turn * weyl) % 2**32 for word, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)
        )
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & _WORD
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & _WORD
    return [c0, c1, c2, c3]
