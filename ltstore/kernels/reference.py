"""The oracle: the contract written out in float64 NumPy. Slow, obvious, always there."""

from __future__ import annotations

import numpy as np

from ltstore.kernels.contract import SoftmaxTerms
from ltstore.types import FloatArray, IntArray


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
