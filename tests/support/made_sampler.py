"""A sampler for tests: row i of class c is a pure function of the key, and easy to recognise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltstore.kernels.normals import normal_rows
from ltstore.rng import row_key
from ltstore.types import SyntheticRows


class MadeSampler:
    """Normals around `centers`; counts how often it was asked."""

    name = "made"
    settings: Mapping[str, Any] = {}

    def __init__(self, centers, spread=0.1):
        self.centers = np.asarray(centers, np.float64)
        self.spread = spread
        self.calls = 0

    def fit(self, rows, moments, donors):
        return self

    def sample(self, class_id, start, stop, *, seed, epoch=0):
        self.calls += 1
        noise = normal_rows(row_key(seed, "test.made", class_id, epoch), start, stop, self.centers.shape[1])
        n = stop - start
        return SyntheticRows(
            X=(self.centers[class_id] + self.spread * noise).astype(np.float32),
            labels=np.full(n, class_id, np.int64),
            parent_ids=np.full((n, 1), -1, np.int64),
            donor_ids=np.full((n, 1), -1, np.int64),
        )
