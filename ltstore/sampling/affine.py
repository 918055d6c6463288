"""Samplers whose rows are sums of real rows and class vectors: a linear head needs the terms, not the row."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ltstore.kernels.combine import combine_rows
from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.types import DoubleArray, IntArray, SyntheticRows


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Rows ``x_i = sum_p row_factors[i, p] X[positions[i, p]] + sum_q vector_factors[i, q] V[vectors[i, q]]``.

    Before they are scaled to unit norm. V is `AffineSampler.vectors`. A term of factor 0 is none.

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
        """Return the terms of the rows that `sample` returns for the same arguments, before they are scaled.

        Raises
        ------
        DataError, LabelError, ConfigError
            As `sample`.
        """
        return self._combine(class_id, self._key(class_id, start, stop, seed, epoch))

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        terms = self._combine(class_id, key)
        n, n_features = len(terms.positions), self.rows.n_features
        needed, of_rows = np.unique(terms.positions, return_inverse=True)
        kinds, of_vectors = np.unique(terms.vectors, return_inverse=True)
        atoms = np.concatenate([self.rows.take(needed), self.vectors[kinds].astype(np.float32)])
        X = combine_rows(
            np.concatenate(
                [of_rows.reshape(terms.positions.shape), len(needed) + of_vectors.reshape(terms.vectors.shape)],
                axis=1,
            ),
            np.concatenate([terms.row_factors, terms.vector_factors], axis=1).astype(np.float32),
            atoms,
            np.empty((n, n_features), np.float32),
        )
        return SyntheticRows(
            X=X,
            labels=np.full(n, class_id, np.int64),
            parent_ids=terms.parent_ids,
            donor_ids=terms.donor_ids,
        )

    @abstractmethod
    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        """Return the terms of the key's rows of a class with at least one real row."""
