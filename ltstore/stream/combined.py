"""The synthetic rows of a pass as sums of real rows, so that a linear head never sees them (pure bookkeeping).

A linear head is affine in its row: the logits of a sum of rows are the sum of their logits, and a gradient with respect
to them is scattered back to the rows. So of synthetic rows that are sums of a few real rows and class vectors (the
*atoms*), only terms are kept; the matrix products of a pass are those of the atoms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ltstore.sampling import AffineSampler
from ltstore.types import FloatArray, IntArray, Rows

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
        The atoms after them: class vectors, and real rows that are none of the positions.
    indices : (n, t) int64
    factors : (n, t) float32
    labels : (n,) int64
    rows : Rows
        Those that the positions are in.
    n_beyond : int
        How many of the vectors are real rows.
    """

    rows: Rows
    positions: IntArray
    vectors: FloatArray
    indices: IntArray
    factors: FloatArray
    labels: IntArray
    n_beyond: int = 0
    _kept: dict[str, FloatArray] = field(default_factory=dict, repr=False)

    @property
    def n_atoms(self) -> int:
        """R + m."""
        return len(self.positions) + len(self.vectors)

    def real_rows(self) -> FloatArray:
        """(R, D) float32 the first atoms, read when first asked for and kept."""
        if "rows" not in self._kept:
            self._kept["rows"] = self.rows.take(self.positions)
        return self._kept["rows"]

    def scratch(self, n_columns: int) -> tuple[FloatArray, FloatArray]:
        """Return two (R + m, n_columns) float32 to write to; the next call gives the same ones."""
        shape = (self.n_atoms, n_columns)
        for name in ("logits", "gradient"):
            if name not in self._kept or self._kept[name].shape != shape:
                self._kept[name] = np.empty(shape, np.float32)
        return self._kept["logits"], self._kept["gradient"]


def why_not_combined(sampler: object, rows: Rows, n_drawn: IntArray, n_columns: int, limit_bytes: int) -> str:
    """Return why the synthetic rows of a pass have to be made, "" where terms are enough.

    Parameters
    ----------
    sampler : Sampler
        Fitted.
    rows : Rows
        The real rows of the stream.
    n_drawn : (C,) int64
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
    n_synthetic = int(n_drawn.sum())
    probe = sampler.combine(int(np.argmax(n_drawn)), 0, 1, seed=0)
    n_terms = probe.positions.shape[1] + probe.vectors.shape[1]
    n_atoms = min(rows.n_samples, n_synthetic * probe.positions.shape[1]) + len(sampler.vectors)
    needed = 8 * n_atoms * n_columns + 12 * n_synthetic * n_terms
    if needed > limit_bytes:
        return f"their terms and logits would take {needed / 1e9:.1f} GB"
    return ""


def combined_rows(
    sampler: AffineSampler,
    last: IntArray,
    *,
    seed: int,
    epoch: int,
    first: IntArray | None = None,
    positions: IntArray | None = None,
) -> CombinedRows:
    """Return the terms of synthetic rows first[c] to last[c] - 1 of every class c, ordered by their first atom.

    Parameters
    ----------
    sampler : AffineSampler
        Fitted.
    last, first : (C,) int64
        `first` is 0 unless given; there must be a row.
    seed, epoch : int
    positions : (R,) int64, optional
        The real rows to have as first atoms, ascending; default: those that are needed. Needed ones that are not among
        them are read, and are atoms after the vectors of the sampler.

    Notes
    -----
    12 bytes a term. Time: that of drawing the rows, where they have unit norm.
    """
    low = np.zeros_like(last) if first is None else first
    parts = [
        (class_id, sampler.combine(class_id, start, min(start + _ROWS, stop), seed=seed, epoch=epoch))
        for class_id, (begin, stop) in enumerate(zip(low.tolist(), last.tolist(), strict=True))
        for start in range(begin, stop, _ROWS)
    ]
    of_rows = np.concatenate([terms.positions for _, terms in parts])
    of_vectors = np.concatenate([terms.vectors for _, terms in parts])
    needed = np.unique(of_rows)
    if positions is None:
        positions = needed
    others = np.setdiff1d(needed, positions, assume_unique=True)
    vectors = sampler.vectors.astype(np.float32)
    atom_of = np.searchsorted(positions, needed)
    beyond = np.searchsorted(needed, others)
    atom_of[beyond] = len(positions) + len(vectors) + np.arange(len(others))
    if len(others):
        vectors = np.concatenate([vectors, sampler.rows.take(others)])
    factors = [np.concatenate([terms.row_factors, terms.vector_factors], axis=1) for _, terms in parts]
    labels = np.repeat([class_id for class_id, _ in parts], [len(terms.positions) for _, terms in parts])
    indices = np.concatenate([atom_of[np.searchsorted(needed, of_rows)], of_vectors + len(positions)], axis=1)
    order = np.argsort(indices[:, 0], kind="stable")
    return CombinedRows(
        rows=sampler.rows,
        positions=positions,
        vectors=vectors,
        indices=indices[order],
        factors=np.concatenate(factors).astype(np.float32)[order],
        labels=labels[order],
        n_beyond=len(others),
    )
