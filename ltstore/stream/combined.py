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
        The atoms after them.
    indices : (n, t) int64
    factors : (n, t) float32
    labels : (n,) int64
    rows : Rows
        Those that the positions are in.
    """

    rows: Rows
    positions: IntArray
    vectors: FloatArray
    indices: IntArray
    factors: FloatArray
    labels: IntArray
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


def combined_rows(
    sampler: AffineSampler, targets: IntArray, *, seed: int, epoch: int, positions: IntArray | None = None
) -> CombinedRows:
    """Return the terms of targets[c] synthetic rows of every class c, ordered by their first atom: it is near then.

    Parameters
    ----------
    sampler : AffineSampler
        Fitted.
    targets : (C,) int64
        Not all 0.
    seed, epoch : int
    positions : (R,) int64, optional
        The real rows to have as atoms, ascending, those that are needed among them; default: those that are needed.

    Notes
    -----
    12 bytes a term. Time: that of drawing the rows, where they have unit norm.
    """
    parts = [
        (class_id, sampler.combine(class_id, start, min(start + _ROWS, target), seed=seed, epoch=epoch))
        for class_id, target in enumerate(targets.tolist())
        for start in range(0, target, _ROWS)
    ]
    of_rows = np.concatenate([terms.positions for _, terms in parts])
    of_vectors = np.concatenate([terms.vectors for _, terms in parts])
    if positions is None:
        positions = np.unique(of_rows)
    factors = [np.concatenate([terms.row_factors, terms.vector_factors], axis=1) for _, terms in parts]
    labels = np.repeat([class_id for class_id, _ in parts], [len(terms.positions) for _, terms in parts])
    indices = np.concatenate([np.searchsorted(positions, of_rows), of_vectors + len(positions)], axis=1)
    order = np.argsort(indices[:, 0], kind="stable")
    return CombinedRows(
        rows=sampler.rows,
        positions=positions,
        vectors=sampler.vectors.astype(np.float32),
        indices=indices[order],
        factors=np.concatenate(factors).astype(np.float32)[order],
        labels=labels[order],
    )
