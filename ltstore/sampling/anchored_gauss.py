"""What the samplers that add noise to a shrunk real row share: the law and how it is drawn."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError
from ltstore.sampling.affine import AffineSampler, Combination
from ltstore.sampling.base import DrawKey, nth_of, slot_of
from ltstore.sampling.covariance import BorrowedCovariance, square_roots
from ltstore.types import DoubleArray, Moments, SyntheticRows

NOISES = ("gauss", "residuals")


class AnchoredGaussSampler(AffineSampler):
    """Draws ``x = mu' + a (x_j - mu) + s sqrt(1 - a^2 (n - 1) / n) e``, e of mean 0 and covariance S'.

    x_j is a random real row of the class (the first parent), mu the class's mean, n its count. The anchors bring
    a^2 S / n, which is (n - 1) / n of a^2 times the class covariance on average: the factor of the noise makes the
    expected covariance S' for every n (at s = 1). A subclass calls `_keep` in `_fit`: it chooses mu', S' and a.

    The noise is one of two:

    - "gauss": ``e = U L e_r + sqrt(d) * e_D`` with normals e_r and e_D and ``U L L' U' + diag(d) = S'``;
    - "residuals": ``e = f sum_k (x_k - mu_h) / sqrt(K)``: K offsets of real rows from the mean of their class h, which
      is the class itself, a donor or the class of any row, in the shares that S' has of them; f^2 = n_h / (n_h - 1).
      The covariance is that of the real rows in all directions, not in r of them and on a diagonal, and the more
      terms the more nearly Gaussian given h. These rows are sums of real rows and class means, so a linear head need
      not see them (`ltstore.sampling.affine`).

    Notes
    -----
    C (r^2 + 2 D) doubles kept. Draw: the read of the parent, and `ltstore.kernels.normals.gauss_around`; or the read of
    K + 1 rows.
    """

    def _keep(
        self,
        moments: Moments,
        means: DoubleArray,
        covariance: BorrowedCovariance,
        *,
        anchor: DoubleArray,
        spread: float = 1.0,
        noise: str = "gauss",
        terms: int = 4,
    ) -> None:
        """Keep the law of every class: mu', S', a (C,), s and the kind of noise."""
        n = np.maximum(self._counts, 1).astype(np.float64)
        self._own_means, self._means = moments.means, means
        self._donor_ids = covariance.donor_ids
        self._anchor = anchor
        self._noise = spread * np.sqrt(1 - anchor**2 * (n - 1) / n)
        self._terms = terms if noise == "residuals" else 0
        if not self._terms:
            self._basis = covariance.basis
            self._factor = square_roots(covariance.inside)
            self._deviation = np.sqrt(covariance.outside)
            return
        self._shares = covariance.shares
        self._both_means = np.concatenate([means, moments.means])
        self._stretch = np.sqrt(n / np.maximum(n - 1, 1))
        freedom = max(int(self._counts.sum()) - int(np.count_nonzero(self._counts)), 1)
        self._pooled_stretch = float(np.sqrt(self._counts.sum() / freedom))

    @property
    def affine(self) -> bool:
        """Whether the noise is made of residuals."""
        return self._terms > 0

    @property
    def vectors(self) -> DoubleArray:
        """(2 C, D) the means mu', then the means mu; of residual noise."""
        return self._both_means

    @property
    def means(self) -> DoubleArray:
        """(C, D) mu' of every class, once fitted; before rows are scaled to unit norm. Not a copy."""
        return self._means

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        if self._terms:
            return super()._draw(class_id, key)
        a, noise = float(self._anchor[class_id]), self._noise[class_id]
        positions = self._pick(class_id, key.uniforms(1, "anchor")[:, 0])
        X = self.rows.take(positions) if a else np.zeros((len(positions), len(self._basis)), np.float32)
        key.gauss_around(
            X,
            scale=a,
            shift=self._means[class_id] - a * self._own_means[class_id],
            factor=noise * (self._basis @ self._factor[class_id]).T,
            deviation=noise * self._deviation[class_id],
            what="noise",
        )
        n = len(positions)
        return SyntheticRows(
            X=X,
            labels=np.full(n, class_id, np.int64),
            parent_ids=self.rows.row_ids[positions][:, None],
            donor_ids=np.repeat(self._donor_ids[class_id][None], n, axis=0),
        )

    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        if not self._terms:
            raise ConfigError(
                f"{self.name}: rows with Gaussian noise are no sums of real rows: use noise=residuals"
            )
        n_classes = len(self._counts)
        anchors = self._pick(class_id, key.uniforms(1, "anchor"))
        n = len(anchors)
        u = key.uniforms(2 + self._terms, "residuals")
        shares = self._shares[class_id]  # of the class itself, its donors, all classes
        slot = slot_of(u[:, 0], shares)
        pooled = slot == len(shares) - 1
        any_row = nth_of(u[:, 1], len(self._class_positions))
        any_class = self.rows.labels[self._class_positions[any_row]]
        lenders = np.concatenate([[class_id], np.maximum(self._donor_ids[class_id], 0), [0]])
        lender = np.where(pooled, any_class, lenders[slot])
        positions = np.concatenate([anchors, self._pick(lender[:, None], u[:, 2:])], axis=1)
        factor = np.where(pooled, self._pooled_stretch, self._stretch[lender])
        factor *= self._noise[class_id] / np.sqrt(self._terms)
        a = np.full(n, float(self._anchor[class_id]))
        own = np.full(n, class_id)
        return Combination(
            positions=positions,
            row_factors=np.column_stack([a, *[factor] * self._terms]),
            vectors=np.column_stack([own, n_classes + own, n_classes + lender]),
            vector_factors=np.column_stack([np.ones(n), -a, -self._terms * factor]),
            parent_ids=self.rows.row_ids[positions],
            donor_ids=np.repeat(self._donor_ids[class_id][None], n, axis=0),
        )
