"""What the sizes of the classes say about the loss: weights of their rows, margins of their logits. Pure."""

from __future__ import annotations

import numpy as np

from ltstore.types import DoubleArray, IntArray

CLASS_WEIGHTS = ("none", "balanced", "effective-number")
BETA = 0.999


def class_weights(kind: str, counts: IntArray, beta: float = BETA) -> DoubleArray | None:
    """Return (C,) the weight of a row of each class, mean 1 over the rows; None for "none", 0 without rows.

    Parameters
    ----------
    kind : {"none", "balanced", "effective-number"}
        "balanced" is 1 / n_c; "effective-number" (1 - beta) / (1 - beta^n_c), which lies between equal weights
        (beta 0) and balanced ones (beta to 1).
    counts : (C,) int64
        n_c, some above 0.
    beta : float in [0, 1)

    References
    ----------
    Cui et al. 2019, "Class-balanced loss based on effective number of samples", equation 6.
    """
    if kind == "none":
        return None
    n = np.maximum(counts, 1).astype(np.float64)
    raw = 1.0 / n if kind == "balanced" else (1.0 - beta) / (1.0 - beta**n)
    raw[counts == 0] = 0.0
    scaled: DoubleArray = raw * (counts.sum() / (raw @ counts))
    return scaled


def class_margins(largest: float, counts: IntArray) -> DoubleArray | None:
    """Return (C,) margins A / n_c^(1/4) with A such that the largest is `largest`; None for 0, 0 without rows.

    References
    ----------
    Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss", equation 13.
    """
    if not largest:
        return None
    present = counts > 0
    raw = np.where(present, np.maximum(counts, 1) ** -0.25, 0.0)
    margins: DoubleArray = raw * (largest / raw.max())
    return margins
