"""`duplicate`: real rows again, drawn with replacement. The baseline that adds no information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.sampling.affine import AffineSampler, Combination
from ltstore.sampling.base import DrawKey
from ltstore.types import Donors, Moments


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """`duplicate` has no settings."""


class DuplicateSampler(AffineSampler):
    """Random oversampling: each row is a uniformly chosen real row of its class."""

    name: ClassVar[str] = "duplicate"
    settings_type: ClassVar[type] = DuplicateSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        pass

    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        positions = self._pick(class_id, key.uniforms(1, "anchor"))
        none = np.zeros((len(positions), 0), np.int64)
        return Combination(
            positions=positions,
            row_factors=np.ones(positions.shape),
            vectors=none,
            vector_factors=none.astype(np.float64),
            parent_ids=self.rows.row_ids[positions],
            donor_ids=none,
        )
