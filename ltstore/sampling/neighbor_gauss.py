"""`neighbor-gauss`: a Gaussian per class, its mean and covariance shrunk toward those of its donor classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from ltstore.errors import ConfigError
from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.types import Donors, DoubleArray, IntArray, Moments, SyntheticRows

_PULL_MARGIN = 2.0


@dataclass(frozen=True, kw_only=True)
class NeighborGaussSettings:
    """Settings of `neighbor-gauss`; the defaults are argued in docs/methods.md.

    Attributes
    ----------
    anchor : float
        a in [0, 1]: how much of a real row's offset from its class mean a synthetic row keeps. 0 draws from
        the Gaussian alone, 1 around real rows.
    nu : float
        > 0: how many rows the borrowed covariance counts for.
    donor_share : float
        w in [0, 1]: share of the donors' covariance in the borrowed one; the rest is the pooled covariance.
    pull : float
        gamma in [0, 1]: the farthest, as a share of the way, that a mean moves toward its donors' mean.
    pull_rows : float or None
        kappa >= 0: how many rows the pull counts for; at n_c = kappa it is gamma / 2. None estimates it from the
        rows (see `NeighborGaussSampler`); the sampler's settings give the estimate once it has been fitted.
    spread : float
        >= 0: factor on the standard deviation of the noise; 1 keeps the law below.
    """

    anchor: float = 0.5
    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None
    spread: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number and not (name == "pull_rows" and value is None):
                raise ConfigError(f"neighbor-gauss: {name} must be a number, found {value!r}")
        for name in ("anchor", "donor_share", "pull"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"neighbor-gauss: {name} must be in [0, 1], found {getattr(self, name)}")
        for name in ("nu", "pull_rows", "spread"):
            value = getattr(self, name)
            if value is None and name == "pull_rows":
                continue
            if value is None or not (np.isfinite(value) and value >= 0) or (name == "nu" and value == 0):
                bound = "> 0" if name == "nu" else ">= 0"
                raise ConfigError(f"neighbor-gauss: {name} must be finite and {bound}, found {value}")


class NeighborGaussSampler(BaseSampler):
    """Draws ``x = mu' + a (x_j - mu) + sqrt(1 - a^2 (n - 1) / n) (U L e_r + sqrt(d) * e_D)``.

    x_j is a random real row of the class (the parent), mu its mean, n its count, a the setting `anchor`, and

    - ``mu' = mu + gamma kappa / (kappa + n) (m - mu)``, m the donors' weighted mean;
    - ``S' = (S + nu T) / (n - 1 + nu)`` = U L L' U' + diag(d), S the scatter of the class;
    - ``T = w sum_h weight_h S_h / (n_h - 1) + (1 - w) pooled``.

    All covariances are low rank + diagonal in the basis of the moments. A class without donors has T = pooled
    and mu' = mu. The factor of the noise makes the expected covariance S' for every n: the anchors bring
    a^2 S / n, which is (n - 1) / n of a^2 times the class covariance on average. So n = 1 draws from the
    borrowed Gaussian, and n -> infinity from the class's own.

    `pull_rows` = None estimates kappa by empirical Bayes: with a variance of sigma^2 = tr(pooled) within classes
    and delta^2 between a class mean and its donors' mean, the pull of least expected squared error is
    (sigma^2 / n) / (sigma^2 / n + delta^2), so kappa = sigma^2 / delta^2. Twice
    that is used: a head trained on the rows did slightly better with it on held-out rows of three data sets
    (docs/methods.md). delta^2 is the average over borrowing
    classes of ``|m - mu|^2 - sigma^2 (1 / n + sum_h weight_h^2 / n_h)``, the squared gap less what the sampling
    of both means adds to it. kappa is never more than the rows of the largest class.

    Notes
    -----
    Fit: C small eigendecompositions, C (r^2 + 2 D) doubles kept. Draw: r + D normals a row (50 to 100 ns each,
    which is nearly all of the time) and r D multiplications.

    References
    ----------
    Mean: Efron and Morris (1973) "Stein's estimation rule and its competitors: an empirical Bayes approach".
    Covariance: posterior mean of an inverse-Wishart prior, Murphy (2012) "Machine Learning", section 4.6.2.
    Borrowing the statistics of near classes: Yang, Liu, Xu (2021) "Free lunch for few-shot learning:
    distribution calibration"; Vigneswaran et al. (2021) "Feature generation for long-tail classification"
    (TailCalib). Sampling in the latent space of a frozen model: Sharma (2025), arXiv 2509.15859.
    """

    name: ClassVar[str] = "neighbor-gauss"
    settings_type: ClassVar[type] = NeighborGaussSettings
    _settings: NeighborGaussSettings
    _pull_rows: float | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings, JSON values only; `pull_rows` is a number once the sampler has been fitted."""
        pull_rows = self._settings.pull_rows if self._pull_rows is None else self._pull_rows
        return {**asdict(self._settings), "pull_rows": pull_rows}

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        n = moments.counts.astype(np.float64)
        ids = np.maximum(donors.class_ids, 0)
        weights = np.where(donors.class_ids >= 0, donors.weights, 0.0)
        has_donor = weights.sum(axis=1) > 0

        self._basis = moments.basis
        self._own_means = moments.means
        toward = np.einsum("ck,ckd->cd", weights, moments.means[ids]) - moments.means
        self._pull_rows = s.pull_rows
        if self._pull_rows is None:
            self._pull_rows = _estimate_pull_rows(moments, ids, weights, toward)
        strength = np.where(has_donor, s.pull * _share(self._pull_rows, n), 0.0)
        self._means = moments.means + strength[:, None] * toward

        outside = _outside_diagonal(moments.pooled, self._basis)
        inside = self._basis.T @ moments.pooled @ self._basis
        own_share = 1.0 / np.maximum(n - 1, 1)
        w = np.where(has_donor, s.donor_share, 0.0)
        lent = weights * own_share[ids] * w[:, None]
        target_inside = np.einsum("ck,ckrs->crs", lent, moments.scatter[ids]) + (1 - w)[:, None, None] * inside
        target_outside = np.einsum("ck,ckd->cd", lent, moments.residual[ids]) + (1 - w)[:, None] * outside
        divisor = np.maximum(n - 1, 0) + s.nu
        shrunk = (moments.scatter + s.nu * target_inside) / divisor[:, None, None]
        self._factor = _square_roots(shrunk)
        self._deviation = np.sqrt((moments.residual + s.nu * target_outside) / divisor[:, None])
        anchored = s.anchor**2 * (np.maximum(n, 1) - 1) / np.maximum(n, 1)
        self._noise = s.spread * np.sqrt(1 - anchored)
        self._donor_ids = np.where(weights > 0, donors.class_ids, -1)

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        a, noise = self._settings.anchor, self._noise[class_id]
        positions = self._pick(class_id, key.uniforms(1, "anchor")[:, 0])
        rank = self._basis.shape[1]
        e = key.normals(rank + len(self._basis), "noise")
        X = e[:, rank:] * (noise * self._deviation[class_id])
        # One product per row, not one for all: BLAS rounds differently in blocks of other sizes, and a row must
        # be the same bits in whatever slice it is drawn.
        X += np.matmul(e[:, None, :rank], (noise * (self._basis @ self._factor[class_id])).T)[:, 0]
        X += self._means[class_id] - a * self._own_means[class_id]
        if a:
            X += a * self.rows.take(positions)
        n = len(positions)
        return SyntheticRows(
            X=X.astype(np.float32),
            labels=np.full(n, class_id, np.int64),
            parent_ids=self.rows.row_ids[positions][:, None],
            donor_ids=np.repeat(self._donor_ids[class_id][None], n, axis=0),
        )


def _share(kappa: float, n: DoubleArray) -> DoubleArray:
    """kappa / (kappa + n), and 0 where both are 0."""
    share: DoubleArray = np.divide(kappa, kappa + n, out=np.zeros_like(n), where=kappa + n > 0)
    return share


def _estimate_pull_rows(moments: Moments, ids: IntArray, weights: DoubleArray, toward: DoubleArray) -> float:
    """kappa = 2 sigma^2 / delta^2, between 0 and the rows of the largest class; 0 where nobody borrows."""
    variance = float(np.trace(moments.pooled))
    borrows = weights.sum(axis=1) > 0
    if not borrows.any() or variance <= 0:
        return 0.0
    n = np.maximum(moments.counts, 1)
    sampling = variance * (1 / n + (weights**2 / n[ids]).sum(axis=1))
    gap = float((np.square(toward).sum(axis=1) - sampling)[borrows].mean())
    largest = int(moments.counts.max())
    return min(_PULL_MARGIN * variance / max(gap, variance / largest), float(largest))


def _outside_diagonal(covariance: DoubleArray, basis: DoubleArray) -> DoubleArray:
    """Diagonal of (I - UU') S (I - UU'), never below 0."""
    projected = covariance @ basis
    inside = basis.T @ projected
    diagonal = (
        np.diag(covariance)
        - 2 * np.einsum("dr,dr->d", projected, basis)
        + np.einsum("dr,rs,ds->d", basis, inside, basis, optimize=True)
    )
    clipped: DoubleArray = np.maximum(diagonal, 0.0)
    return clipped


def _square_roots(matrices: DoubleArray) -> DoubleArray:
    """L with L L' = S for a stack of symmetric positive semidefinite S; unlike Cholesky, singular ones too."""
    values, vectors = np.linalg.eigh(matrices)
    roots: DoubleArray = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return roots
