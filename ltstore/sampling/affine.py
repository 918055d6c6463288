"""Samplers whose rows are sums of real rows and class vectors: a linear head needs the terms, not the row."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from ltstore.kernels.combine import combine_rows
from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.types import DoubleArray, FloatArray, IntArray, SyntheticRows


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Rows ``x_i = sum_p row_factors[i, p] X[positions[i, p]] + sum_q vector_factors[i, q] V[vectors[i, q]]``.

    V is `AffineSampler.vectors`. A term of factor 0 is none.

    Attributes
    ----------
    positions : (n, p) int64
        In the rows that the sampler was fitted to.
    row_factors : (n, p) float64
    vectors : (n, q) int64
    vector_factors : (n, q) float64
    parent_ids, donor_ids
        As in `ltstore.types.SyntheticRows`.
    """

    positions: IntArray
    row_factors: DoubleArray
    vectors: IntArray
    vector_factors: DoubleArray
    parent_ids: IntArray
    donor_ids: IntArray


class AffineSampler(BaseSampler):
    """A sampler that can say what its rows are sums of; `_combine` is all that a strategy adds."""

    @property
    def affine(self) -> bool:
        """Whether `combine` is defined with these settings."""
        return True

    @property
    def vectors(self) -> DoubleArray:
        """(m, D) float64 the vectors that rows are made of besides real rows, once fitted; not a copy."""
        return np.zeros((0, self.rows.n_features))

    def combine(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> Combination:
        """Return the terms of the rows that `sample` returns for the same arguments.

        Raises
        ------
        DataError, LabelError, ConfigError
            As `sample`.

        Notes
        -----
        Factors of unit rows are scaled by the norm of their sum, which is made for that and not kept.
        """
        terms = self._combine(class_id, self._key(class_id, start, stop, seed, epoch))
        if not self.rows.normalized:
            return terms
        X = self._sums(terms).astype(np.float64)
        norms = np.sqrt(np.vecdot(X, X))[:, None]
        norms[norms == 0] = 1.0
        return replace(
            terms, row_factors=terms.row_factors / norms, vector_factors=terms.vector_factors / norms
        )

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        terms = self._combine(class_id, key)
        return SyntheticRows(
            X=self._sums(terms),
            labels=np.full(len(terms.positions), class_id, np.int64),
            parent_ids=terms.parent_ids,
            donor_ids=terms.donor_ids,
        )

    def _sums(self, terms: Combination) -> FloatArray:
        """Return (n, D) float32 the rows that the terms make."""
        needed, of_rows = np.unique(terms.positions, return_inverse=True)
        kinds, of_vectors = np.unique(terms.vectors, return_inverse=True)
        indices = [
            of_rows.reshape(terms.positions.shape),
            of_vectors.reshape(terms.vectors.shape) + len(needed),
        ]
        return combine_rows(
            np.concatenate(indices, axis=1),
            np.concatenate([terms.row_factors, terms.vector_factors], axis=1).astype(np.float32),
            np.concatenate([self.rows.take(needed), self.vectors[kinds].astype(np.float32)]),
            np.empty((len(terms.positions), self.rows.n_features), np.float32),
        )

    @abstractmethod
    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        """Return the terms of the key's rows of a class with at least one real row."""
