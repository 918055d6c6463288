"""`vmf`: a von Mises-Fisher law per class on the unit sphere, its direction and concentration shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.rows import iter_blocks, normalize_rows
from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.sampling.bounds import check_number
from ltstore.sampling.cosine_law import CosineLaw
from ltstore.sampling.covariance import borrowed_variance, total_scatter
from ltstore.sampling.lending import Lending
from ltstore.sampling.mean_pull import pull_to_donors
from ltstore.types import UNLABELLED, Donors, DoubleArray, Moments, SyntheticRows


@dataclass(frozen=True, kw_only=True)
class VmfSettings:
    """Settings of `vmf`; as those of `neighbor-gauss`.

    Attributes
    ----------
    nu : float
        > 0: how many rows the borrowed concentration counts for.
    donor_share : float
        w in [0, 1]: share of the donors in what is borrowed; the rest is pooled.
    pull : float
        gamma in [0, 1]: the farthest, as a share of the way, that a mean moves toward its donors' mean.
    pull_rows : float or None
        kappa of the pull (not the concentration), >= 0; None estimates it.
    """

    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None

    def __post_init__(self) -> None:
        check_number("vmf", "nu", self.nu, open_low=True)
        check_number("vmf", "donor_share", self.donor_share, high=1.0)
        check_number("vmf", "pull", self.pull, high=1.0)
        check_number("vmf", "pull_rows", self.pull_rows, optional=True)


class VmfSampler(BaseSampler):
    """Draws ``x = cos(theta) m + sin(theta) t``: theta by `CosineLaw`, t uniform among unit vectors orthogonal to m.

    - m is the class's mean direction after the pull of `ltstore.sampling.mean_pull`, scaled to unit norm.
    - ``rho^2 = (n R^2 - 1) / (n - 1)``, R the norm of the mean of the class's unit rows, is the mean cosine of two
      different rows: an unbiased estimate of the squared norm of the true mean. R^2 itself is (1 - R^2) / (n - 1)
      too large on average: at n = 2 its kappa is sqrt(2 (1 + rho^2)) / rho times the true one, at least twice.
    - ``1 - rho^2`` is the trace of the class covariance S / (n - 1), so it is shrunk as that one is:
      ``1 - rho'^2 = ((n - 1)(1 - rho^2) + nu T) / (n - 1 + nu)``, T the donors' and the pooled value mixed. A
      class of one row borrows all of it.
    - ``kappa = rho' (D - rho'^2) / (1 - rho'^2)``; a negative rho'^2 counts as 0, and 1 gives kappa = inf: the row m.

    Rows that have no unit norm are drawn as directions times the norm of a random real row of the class, which
    is then the parent. Between unit rows no row is a parent more than another: `parent_ids` is -1.

    Notes
    -----
    Fit: nothing but the moments for unit rows, else one pass over the rows. Draw: D normals a row.

    References
    ----------
    Banerjee, Dhillon, Ghosh, Sra (2005) "Clustering on the unit hypersphere using von Mises-Fisher distributions",
    JMLR 6, equation 4.4: kappa. The references of `CosineLaw`.
    """

    name: ClassVar[str] = "vmf"
    settings_type: ClassVar[type] = VmfSettings
    _settings: VmfSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        lending = Lending.of(donors)
        if self.rows.normalized:
            means, scatter = moments.means, total_scatter(moments)
            pooled = float(np.trace(moments.pooled))
        else:
            means, scatter = self._direction_moments()
            freedom = max(int(self._counts.sum()) - int(np.count_nonzero(self._counts)), 1)
            pooled = float(scatter.sum()) / freedom
        pulled = pull_to_donors(self._counts, means, pooled, lending, pull=s.pull, pull_rows=s.pull_rows)
        self._resolved = {"pull_rows": pulled.pull_rows}
        self._directions = _unit_directions(pulled.means)
        variance = borrowed_variance(self._counts, scatter, pooled, lending, nu=s.nu, donor_share=s.donor_share)
        self._kappa = concentration(1.0 - variance, self.rows.n_features)
        self._donor_ids = lending.donor_ids

    def _direction_moments(self) -> tuple[DoubleArray, DoubleArray]:
        """Class means and total scatters of rows scaled to unit norm."""
        n_classes = len(self._counts)
        sums, lengths = np.zeros((n_classes, self.rows.n_features)), np.zeros(n_classes)
        for _, X, labels in iter_blocks(self.rows):
            known = labels != UNLABELLED
            unit = normalize_rows(X[known]).astype(np.float64)
            np.add.at(sums, labels[known], unit)
            np.add.at(lengths, labels[known], np.vecdot(unit, unit))
        means = sums / np.maximum(self._counts, 1)[:, None]
        return means, np.maximum(lengths - np.vecdot(sums, means), 0.0)

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        direction = self._directions[class_id]
        law = CosineLaw(float(self._kappa[class_id]), len(direction))
        theta = law.angles(key.uniforms(1, "cosine")[:, 0])
        X = key.normals(len(direction), "tangent").astype(np.float64)
        X -= np.vecdot(X, direction)[:, None] * direction
        length = np.sqrt(np.vecdot(X, X))
        X *= np.divide(np.sin(theta), length, out=np.zeros_like(length), where=length > 0)[:, None]
        X += np.cos(theta)[:, None] * direction
        n = len(X)
        parents = np.full((n, 1), -1, np.int64)
        if not self.rows.normalized:
            positions = self._pick(class_id, key.uniforms(1, "length")[:, 0])
            real = self.rows.take(positions).astype(np.float64)
            X *= np.sqrt(np.vecdot(real, real))[:, None]
            parents[:, 0] = self.rows.row_ids[positions]
        return SyntheticRows(
            X=X.astype(np.float32),
            labels=np.full(n, class_id, np.int64),
            parent_ids=parents,
            donor_ids=np.repeat(self._donor_ids[class_id][None], n, axis=0),
        )


def concentration(square_length: DoubleArray, n_features: int) -> DoubleArray:
    """Return ``kappa = rho (D - rho^2) / (1 - rho^2)`` of rho^2, clipped to [0, 1]; inf at 1. New.

    The mean resultant length of kappa is rho to within 2 % of it for D >= 2, and to within 0.6 % for D >= 16.

    Parameters
    ----------
    square_length : array of float64
    n_features : int
        D.
    """
    square = np.clip(square_length, 0.0, 1.0)
    kappa: DoubleArray = np.divide(
        np.sqrt(square) * (n_features - square),
        1.0 - square,
        out=np.full_like(square, np.inf),
        where=square < 1.0,
    )
    return kappa


def _unit_directions(means: DoubleArray) -> DoubleArray:
    """Scale to unit norm; a mean of 0 has no direction and gets the first axis (its kappa is 0, or nearly)."""
    norms = np.sqrt(np.vecdot(means, means))[:, None]
    directions: DoubleArray = np.divide(means, norms, out=np.zeros_like(means), where=norms > 0)
    directions[norms[:, 0] == 0, 0] = 1.0
    return directions
