"""`distribution-calibration`: Gaussians around single rows, with the statistics of their nearest head classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.errors import DataError
from ltstore.neighbors.donors import LEND_RATIO
from ltstore.rows import iter_blocks
from ltstore.sampling.base import BaseSampler, DrawKey, nth_of
from ltstore.sampling.bounds import check_count, check_number
from ltstore.sampling.covariance import pooled_parts, square_roots
from ltstore.types import UNLABELLED, Donors, DoubleArray, FloatArray, IntArray, Moments, SyntheticRows

_BLOCK_QUERIES = 4096


@dataclass(frozen=True, kw_only=True)
class DistributionCalibrationSettings:
    """Settings of `distribution-calibration`: the published numbers, alpha in another unit.

    Attributes
    ----------
    k : int
        At least 1: base classes of a row.
    alpha : float
        >= 0: variance added to every feature, as a share of the mean variance of a feature.
    tukey : float or None
        In (0, 1]: power that features are raised to before everything else and that drawn rows are taken back
        from; published: 0.5. Features must not be negative. None (and 1) leave the features alone.
    """

    k: int = 2
    alpha: float = 0.21
    tukey: float | None = None

    def __post_init__(self) -> None:
        check_count("distribution-calibration", "k", self.k)
        check_number("distribution-calibration", "alpha", self.alpha)
        check_number("distribution-calibration", "tukey", self.tukey, high=1.0, open_low=True, optional=True)


class DistributionCalibrationSampler(BaseSampler):
    """Draws ``x ~ N((x_j + sum_b mu_b) / (k + 1), sum_b S_b / (k (n_b - 1)) + alpha t I)`` for a random real row x_j.

    b runs over the k base classes whose means are nearest to x_j itself (Euclidean), t is the trace of the mean
    of their covariances over D. Base classes of class c are head classes (`Donors.head`) with at least twice
    c's rows. Where there are fewer than k the sum runs over those there are; where there is none, the mean is
    x_j and the covariance the pooled one.

    What differs from the published code, where that is a trap: alpha there is added to *every entry* of the
    covariance, which is a matrix of rank one along (1, ..., 1), not alpha I; and it is an absolute 0.21, some
    500 times the variance of a feature of unit rows with D = 512: here it is a share of that variance.
    Covariances are low rank + diagonal. With `tukey`, class statistics, rows and nearest classes are all of
    transformed features, and what is drawn is transformed back, ``max(x, 0)^(1 / tukey)``, so that it lies
    where real rows lie.

    The parent is x_j, the donors its base classes.

    Notes ----- The base classes of a class's rows are found when it is first sampled: 2 n H D flops for H base
    classes, kept as n k int64. Draw: k r + D normals a row. `tukey` takes two more passes over the rows at fit.

    References
    ----------
    Yang, Liu, Xu (2021) "Free lunch for few-shot learning: distribution calibration", ICLR, equations 3 to 6;
    Vigneswaran et al. (2021) "Feature generation for long-tail classification" (TailCalib), ICVGIP.
    """

    name: ClassVar[str] = "distribution-calibration"
    settings_type: ClassVar[type] = DistributionCalibrationSettings
    _settings: DistributionCalibrationSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        self._power = 1.0 if self._settings.tukey is None else float(self._settings.tukey)
        self._head = donors.head
        self._basis = moments.basis
        self._bases: dict[int, IntArray] = {}
        n = moments.counts.astype(np.float64)
        if self._transforms:
            means, scatter, residual = self._transformed_moments()
            freedom = max(float(n.sum()) - int(np.count_nonzero(n)), 1.0)
            inside, outside = scatter.sum(axis=0) / freedom, residual.sum(axis=0) / freedom
        else:
            means, scatter, residual = moments.means, moments.scatter, moments.residual
            inside, outside = pooled_parts(moments)
        self._class_means = means
        divisor = np.maximum(n - 1, 1)
        # One entry more than classes: the last, which -1 finds, is the pooled covariance.
        every = np.concatenate([scatter / divisor[:, None, None], inside[None]])
        self._outside = np.concatenate([residual / divisor[:, None], outside[None]])
        self._factor = square_roots(every)
        total = np.trace(every, axis1=1, axis2=2) + self._outside.sum(axis=1)
        self._feature_variance = total / self.rows.n_features

    @property
    def _transforms(self) -> bool:
        return self._power != 1.0

    def _transformed(self, X: FloatArray) -> DoubleArray:
        wide = X.astype(np.float64)
        return wide**self._power if self._transforms else wide

    def _transformed_moments(self) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Means, scatter inside the basis and residual diagonal of the transformed rows of every class."""
        n_classes, n_features = len(self._counts), self.rows.n_features
        rank = self._basis.shape[1]
        means = np.zeros((n_classes, n_features))
        for start, X, labels in iter_blocks(self.rows):
            bad = np.argwhere(X < 0)
            if len(bad):
                i, j = bad[0]
                raise DataError(
                    f"distribution-calibration: tukey needs features that are not negative, found {X[i, j]:g} "
                    f"in feature {j} of row {self.rows.row_ids[start + i]}: leave tukey out for this encoder"
                )
            np.add.at(means, labels[labels != UNLABELLED], self._transformed(X[labels != UNLABELLED]))
        means /= np.maximum(self._counts, 1)[:, None]
        scatter, residual = np.zeros((n_classes, rank, rank)), np.zeros((n_classes, n_features))
        for _, X, labels in iter_blocks(self.rows):
            known = labels != UNLABELLED
            centred = self._transformed(X[known]) - means[labels[known]]
            inside = centred @ self._basis
            for c in np.unique(labels[known]):
                of_class = inside[labels[known] == c]
                scatter[c] += of_class.T @ of_class
            np.add.at(residual, labels[known], np.square(centred - inside @ self._basis.T))
        return means, scatter, residual

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        n_features, rank = self._basis.shape
        count = int(self._counts[class_id])
        nth = nth_of(key.uniforms(1, "anchor")[:, 0], count)
        positions = self._class_positions[self._first[class_id] + nth]
        bases = self._base_classes(class_id)[nth]
        width = bases.shape[1]
        lenders = np.maximum((bases >= 0).sum(axis=1), 1)[:, None].astype(np.float64)
        e = key.normals(width * rank + n_features, "noise")
        mean = self._transformed(self.rows.take(positions))
        inside = np.zeros((len(e), rank))
        variance = np.zeros((len(e), n_features))
        for slot in range(width):
            base = bases[:, slot]
            # The pooled covariance stands in for a first base class, nothing for a later one.
            share = np.where((base >= 0) | (slot == 0), 1.0 / lenders[:, 0], 0.0)
            noise = e[:, slot * rank : (slot + 1) * rank, None]
            inside += np.sqrt(share)[:, None] * np.matmul(self._factor[base], noise)[:, :, 0]
            added = self._settings.alpha * self._feature_variance[base]
            variance += share[:, None] * (self._outside[base] + added[:, None])
            mean += np.where(base >= 0, 1.0, 0.0)[:, None] * self._class_means[base]
        mean /= 1.0 + (bases >= 0).sum(axis=1)[:, None]
        X = mean + np.sqrt(variance) * e[:, width * rank :]
        # One product per row: a row must be the same bits in whatever slice it is drawn.
        X += np.matmul(inside[:, None], self._basis.T)[:, 0]
        if self._transforms:
            X = np.maximum(X, 0.0) ** (1.0 / self._power)
        return SyntheticRows(
            X=X.astype(np.float32),
            labels=np.full(len(X), class_id, np.int64),
            parent_ids=self.rows.row_ids[positions][:, None],
            donor_ids=bases,
        )

    def _base_classes(self, class_id: int) -> IntArray:
        """Return (n, k) the classes nearest to each row of the class, nearest first, -1 where there are fewer."""
        if class_id in self._bases:
            return self._bases[class_id]
        count = int(self._counts[class_id])
        lends = self._head & (self._counts >= LEND_RATIO * count)
        lends[class_id] = False
        lenders = np.flatnonzero(lends)
        bases = np.full((count, self._settings.k), -1, np.int64)
        width = min(self._settings.k, len(lenders))
        means = self._class_means[lenders]
        squares = np.vecdot(means, means)
        # Always the whole class in the same blocks: what is nearest must not depend on the slice that is drawn.
        for start in range(0, count if width else 0, _BLOCK_QUERIES):
            stop = min(start + _BLOCK_QUERIES, count)
            positions = self._class_positions[self._first[class_id] + np.arange(start, stop)]
            distances = squares - 2 * self._transformed(self.rows.take(positions)) @ means.T
            bases[start:stop, :width] = lenders[np.argsort(distances, axis=1, kind="stable")[:, :width]]
        self._bases[class_id] = bases
        return bases
