"""Accuracy where classes are unequal: per class, per group of training size, with bootstrap intervals.

Pure NumPy. The one rule: rows without a label are skipped and counted, and what cannot be measured (a class without
test rows, a group without classes) is NaN or None, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.rng import stream
from ltstore.types import UNLABELLED, BoolArray, DoubleArray, IntArray

GROUPS = ("many", "medium", "few")
MANY_ABOVE = 100
FEW_BELOW = 20
DENSE_CONFUSION_CLASSES = 2048  # 32 MB of int64
WORST_SHARE = 0.1
_BLOCK_VALUES = 2**22  # bootstrap works in blocks of about 32 MB
_INTERVAL = (2.5, 97.5)


def count_groups(counts: ArrayLike) -> dict[str, BoolArray]:
    """Divide the classes by how many training rows they have.

    Parameters
    ----------
    counts : (C,) ints
        Training rows of each class.

    Returns
    -------
    dict of str to (C,) bool
        "many" (more than 100 rows), "medium" (20 to 100), "few" (fewer than 20). Every class is in exactly one;
        classes with no training row are in "few".

    References
    ----------
    Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, section 5.1.
    """
    sizes = np.asarray(counts)
    many, few = sizes > MANY_ABOVE, sizes < FEW_BELOW
    return {"many": many, "medium": ~many & ~few, "few": few}
