"""What the samplers that add Gaussian noise to a shrunk real row share: the law and how it is drawn."""

from __future__ import annotations

import numpy as np

from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.sampling.covariance import LowRankCovariance, square_roots
from ltstore.types import DoubleArray, IntArray, SyntheticRows


class AnchoredGaussSampler(BaseSampler):
    """Draws ``x = mu' + a (x_j - mu) + s sqrt(1 - a^2 (n - 1) / n) (U L e_r + sqrt(d) * e_D)``.

    x_j is a random real row of the class (the parent), mu the class's mean, n its count, and
    ``U L L' U' + diag(d)`` the covariance S'. The anchors bring a^2 S / n, which is (n - 1) / n of a^2 times the
    class covariance on average: the factor of the noise makes the expected covariance S' for every n (at s = 1).
    A subclass calls `_keep` in `_fit`: it chooses mu', S' and a.

    Notes
    -----
    C (r^2 + 2 D) doubles kept. Draw: the read of the parent, and `ltstore.kernels.normals.gauss_around`.
    """

    def _keep(
        self,
        own_means: DoubleArray,
        means: DoubleArray,
        covariance: LowRankCovariance,
        donor_ids: IntArray,
        *,
        anchor: DoubleArray,
        spread: float = 1.0,
    ) -> None:
        """Keep the law of every class: mu, mu', S', the donors to record, a (C,) and s."""
        n = np.maximum(self._counts, 1).astype(np.float64)
        self._own_means = own_means
        self._means = means
        self._basis = covariance.basis
        self._factor = square_roots(covariance.inside)
        self._deviation = np.sqrt(covariance.outside)
        self._donor_ids = donor_ids
        self._anchor = anchor
        self._noise = spread * np.sqrt(1 - anchor**2 * (n - 1) / n)

    @property
    def means(self) -> DoubleArray:
        """(C, D) mu' of every class, once fitted; before rows are scaled to unit norm. Not a copy."""
        return self._means

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
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
