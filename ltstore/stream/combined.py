"""The synthetic rows of a pass as sums of real rows, so that a linear head never sees them (pure bookkeeping).

A linear head is affine in its row: the logits of a sum of rows are the sum of their logits, and a gradient with respect
to them is scattered back to the rows. So of synthetic rows that are sums of a few real rows and class vectors (the
*atoms*), only terms are kept; the matrix products of a pass are those of the atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.sampling import AffineSampler
from ltstore.types import UNLABELLED, FloatArray, IntArray, Rows

COMBINED_BYTES = 2 << 30
_ROWS = 8192  # whose terms are asked for at once


@dataclass(frozen=True, kw_only=True)
class CombinedRows:
    """Synthetic rows as sums of atoms: ``x_i = sum_t factors[i, t] atoms[indices[i, t]]``.

    Attributes
    ----------
    positions : (R,) int64
        The first R atoms: positions of real rows, ascending.
    vectors : (m, D) float32
        The atoms after them.
    indices : (n, t) int64
    factors : (n, t) float32
    labels : (n,) int64
    """

    positions: IntArray
    vectors: FloatArray
    indices: IntArray
    factors: FloatArray
    labels: IntArray

    @property
    def n_atoms(self) -> int:
        """R + m."""
        return len(self.positions) + len(self.vectors)


def why_not_combined(
    sampler: object, rows: Rows, targets: IntArray, n_columns: int, limit_bytes: int = COMBINED_BYTES
) -> str:
    """Return why the synthetic rows of a pass have to be made, "" where terms are enough.

    Parameters
    ----------
    sampler : Sampler
        Fitted.
    rows : Rows
        The real rows of the stream.
    targets : (C,) int64
        Synthetic rows of each class.
    n_columns : int
        Logits of a row, of all heads that are trained together.
    limit_bytes : int
        Most memory of the terms and, twice, of the atoms' logits.
    """
    if not isinstance(sampler, AffineSampler) or not sampler.affine:
        return "they are no sums of real rows"
    if sampler.rows is not rows:
        return "the sampler was fitted on other rows"
    n_synthetic = int(targets.sum())
    probe = sampler.combine(int(np.argmax(targets)), 0, 1, seed=0)
    n_terms = probe.positions.shape[1] + probe.vectors.shape[1]
    n_atoms = min(rows.n_samples, n_synthetic * probe.positions.shape[1]) + len(sampler.vectors)
    needed = 8 * n_atoms * n_columns + 12 * n_synthetic * n_terms
    if needed > limit_bytes:
        return f"their terms and logits would take {needed / 1e9:.1f} GB"
    return ""


def combined_rows(sampler: AffineSampler, targets: IntArray, *, seed: int, epoch: int) -> CombinedRows:
    """Return the terms of targets[c] synthetic rows of every class c, in order.

    Notes
    -----
    12 bytes a term. Time: that of drawing the rows, where they have unit norm.
    """
    parts = [
        (class_id, sampler.combine(class_id, start, min(start + _ROWS, target), seed=seed, epoch=epoch))
        for class_id, target in enumerate(targets.tolist())
        for start in range(0, target, _ROWS)
    ]
    positions = np.concatenate([terms.positions for _, terms in parts])
    vectors = np.concatenate([terms.vectors for _, terms in parts])
    factors = np.concatenate(
        [np.concatenate([terms.row_factors, terms.vector_factors], axis=1) for _, terms in parts]
    )
    needed, of_rows = np.unique(positions, return_inverse=True)
    return CombinedRows(
        positions=needed,
        vectors=sampler.vectors.astype(np.float32),
        indices=np.concatenate([of_rows.reshape(positions.shape), vectors + len(needed)], axis=1),
        factors=factors.astype(np.float32),
        labels=np.repeat([class_id for class_id, _ in parts], [len(terms.positions) for _, terms in parts]),
    )


def labelled_positions(labels: IntArray) -> IntArray:
    """Return (N,) int64 the place of each row among the labelled ones, -1 where it has no label."""
    known = labels != UNLABELLED
    return np.where(known, np.cumsum(known) - 1, -1)
