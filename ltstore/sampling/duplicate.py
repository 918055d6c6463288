"""`duplicate`: real rows again, drawn with replacement. The baseline that adds no information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.types import Donors, Moments, SyntheticRows


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """`duplicate` has no settings."""


class DuplicateSampler(BaseSampler):
    """Random oversampling: each row is a uniformly chosen real row of its class."""

    name: ClassVar[str] = "duplicate"
    settings_type: ClassVar[type] = DuplicateSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        pass

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        positions = self._pick(class_id, key.uniforms(1, "anchor")[:, 0])
        return SyntheticRows(
            X=self.rows.take(positions),
            labels=np.full(len(positions), class_id, np.int64),
            parent_ids=self.rows.row_ids[positions][:, None],
            donor_ids=np.zeros((len(positions), 0), np.int64),
        )
