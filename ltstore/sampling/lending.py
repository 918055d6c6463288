"""What a class gets of its donors: weighted sums over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ltstore.types import BoolArray, Donors, DoubleArray, IntArray


@dataclass(frozen=True)
class Lending:
    """`Donors` in the form in which sums are taken.

    Attributes
    ----------
    ids : (C, k) int64
        Donor classes, 0 beside a weight of 0.
    weights : (C, k) float64
        Rows sum to 1, or to 0 where a class has no donor.
    borrows : (C,) bool
        Which classes have a donor.
    donor_ids : (C, k) int64
        Donor classes that lend, -1 elsewhere: what a synthetic row records.
    """

    ids: IntArray
    weights: DoubleArray
    borrows: BoolArray
    donor_ids: IntArray

    @classmethod
    def of(cls, donors: Donors) -> Self:
        """Return it for some donors; new arrays."""
        weights = np.where(donors.class_ids >= 0, donors.weights, 0.0)
        return cls(
            ids=np.maximum(donors.class_ids, 0),
            weights=weights,
            borrows=weights.sum(axis=1) > 0,
            donor_ids=np.where(weights > 0, donors.class_ids, -1),
        )

    @classmethod
    def none(cls, n_classes: int) -> Self:
        """Return that of classes of which none has a donor."""
        shape = (n_classes, 1)
        return cls(
            ids=np.zeros(shape, np.int64),
            weights=np.zeros(shape),
            borrows=np.zeros(n_classes, np.bool_),
            donor_ids=np.full(shape, -1, np.int64),
        )

    def mix(self, values: DoubleArray, factor: DoubleArray | None = None) -> DoubleArray:
        """Return, for each class c, ``sum_h weight_ch factor_h values[h]``: (C, ...), new; 0 without donors."""
        weights = self.weights if factor is None else self.weights * factor[self.ids]
        mixed: DoubleArray = np.einsum("ck,ck...->c...", weights, values[self.ids])
        return mixed
