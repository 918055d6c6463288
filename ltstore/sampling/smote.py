"""`smote`: a point on the way from a real row to one of its nearest rows of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.neighbors import ExactIndex
from ltstore.sampling.affine import AffineSampler, Combination
from ltstore.sampling.base import DrawKey, nth_of
from ltstore.sampling.bounds import check_choice, check_count, check_flag
from ltstore.types import Donors, DoubleArray, IntArray, Moments

_BLOCK_QUERIES = 4096
_SMALL_SINE = 1e-7


@dataclass(frozen=True, kw_only=True)
class SmoteSettings:
    """Settings of `smote`; the defaults are those of the paper.

    Attributes
    ----------
    k : int
        At least 1: neighbours of a row. A class of n <= k rows uses the n - 1 there are.
    metric : "cosine" or "l2"
        What nearest means; the same on rows of unit norm.
    spherical : bool
        Go along the great circle between the two directions instead of the chord, at even speed.
    """

    k: int = 5
    metric: str = "cosine"
    spherical: bool = False

    def __post_init__(self) -> None:
        check_count("smote", "k", self.k)
        check_choice("smote", "metric", self.metric, ("cosine", "l2"))
        check_flag("smote", "spherical", self.spherical)


class SmoteSampler(AffineSampler):
    """Draws ``x = x_j + u (x_k - x_j)``: x_j a real row, x_k one of its k nearest of the class, u uniform in (0, 1).

    With `spherical`, unit rows at an angle w give ``(sin((1 - u) w) x_j + sin(u w) x_k) / sin w`` (Shoemake's
    slerp); of other rows the directions go that way and the norms linearly. Opposite directions have no great
    circle of their own: they go along the chord.

    Both rows are parents. The row of a class of one is its own neighbour: it comes out again, and the second
    parent is -1. The donors are not used. The law, on purpose, is the paper's: less varied than the real rows
    (by a third, for neighbours that are independent of the row), the price of staying between them.

    Notes
    -----
    The neighbours of a class are searched when it is first sampled, exactly, in fixed blocks: 2 n^2 D flops in float64
    and some 0.1 GB at D = 768 whatever n; kept are n k int64. Two threads may both search, and find the same.

    References
    ----------
    Chawla, Bowyer, Hall, Kegelmeyer (2002) "SMOTE: synthetic minority over-sampling technique", JAIR 16;
    Shoemake (1985) "Animating rotation with quaternion curves", SIGGRAPH.
    """

    name: ClassVar[str] = "smote"
    settings_type: ClassVar[type] = SmoteSettings
    _settings: SmoteSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        self._neighbors: dict[int, IntArray] = {}

    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        u = key.uniforms(3, "path")
        n = int(self._counts[class_id])
        nth = nth_of(u[:, 0], n)
        positions = np.repeat(self._class_positions[self._first[class_id] + nth][:, None], 2, axis=1)
        factors = np.tile([1.0, 0.0], (len(u), 1))
        ids = self.rows.row_ids[positions]
        ids[:, 1] = -1
        if n > 1:
            nearest = self._nearest(class_id)
            positions[:, 1] = nearest[nth, nth_of(u[:, 1], nearest.shape[1])]
            ids = self.rows.row_ids[positions]
            factors = np.stack([1 - u[:, 2], u[:, 2]], axis=1)
            if self._settings.spherical:
                start, end = (self.rows.take(column).astype(np.float64) for column in positions.T)
                factors = _slerp(start, end, u[:, 2])
        none = np.zeros((len(u), 0), np.int64)
        return Combination(
            positions=positions,
            row_factors=factors,
            vectors=none,
            vector_factors=none.astype(np.float64),
            parent_ids=ids,
            donor_ids=none,
        )

    def _nearest(self, class_id: int) -> IntArray:
        """Positions of the nearest rows of each row of a class of two rows or more: (n, min(k, n - 1))."""
        if class_id in self._neighbors:
            return self._neighbors[class_id]
        rows, n = self.rows, int(self._counts[class_id])
        positions = self._class_positions[self._first[class_id] : self._first[class_id + 1]]
        ids = rows.row_ids[positions]
        index = ExactIndex(rows, self._settings.metric)
        width = min(self._settings.k, n - 1)
        # Always the whole class in the same blocks: what is nearest must not depend on the slice that is drawn.
        found = [
            index.search(
                rows.take(positions[start : start + _BLOCK_QUERIES]),
                width,
                exclude=ids[start : start + _BLOCK_QUERIES],
                among=ids,
            )[0]
            for start in range(0, n, _BLOCK_QUERIES)
        ]
        self._neighbors[class_id] = np.searchsorted(rows.row_ids, np.concatenate(found)).astype(np.int64)
        return self._neighbors[class_id]


def _slerp(start: DoubleArray, end: DoubleArray, share: DoubleArray) -> DoubleArray:
    """Return (n, 2) factors of start and end that go along the great circle of directions, with norms linearly."""
    lengths = [np.sqrt(np.vecdot(rows, rows)) for rows in (start, end)]
    a, b = (
        np.divide(rows, length[:, None], out=np.zeros_like(rows), where=length[:, None] > 0)
        for rows, length in zip((start, end), lengths, strict=True)
    )
    apart, together = a - b, a + b
    angle = 2 * np.arctan2(np.sqrt(np.vecdot(apart, apart)), np.sqrt(np.vecdot(together, together)))
    sine = np.sin(angle)
    curved = sine > _SMALL_SINE
    divisor = np.where(curved, sine, 1.0)
    from_start = np.where(curved, np.sin((1 - share) * angle) / divisor, 1 - share)
    from_end = np.where(curved, np.sin(share * angle) / divisor, share)
    norm = (1 - share) * lengths[0] + share * lengths[1]
    factors: DoubleArray = np.stack(
        [
            norm * np.divide(part, length, out=np.zeros_like(part), where=length > 0)
            for part, length in zip((from_start, from_end), lengths, strict=True)
        ],
        axis=1,
    )
    return factors
