"""The oracle: exact nearest rows in float64 NumPy, block by block."""

from __future__ import annotations

import numpy as np

from ltstore.neighbors.metric import resolve_positions, unit_queries, validate_metric, validate_queries
from ltstore.types import BoolArray, DoubleArray, FloatArray, IntArray, Rows

_BLOCK_ROWS = 4096
_BLOCK_QUERIES = 512


class ExactIndex:
    """Nearest rows by comparing with every row, as `ltstore.types.NeighborIndex`.

    Similarities are computed in float64 and rounded to float32; rows that tie there come in order of row id.

    Parameters
    ----------
    rows : Rows
        Kept by reference and read anew at each search.
    metric : "cosine", "inner_product" or "l2"
        "l2" gives squared distances.

    Notes
    -----
    Time 2 n N D flops in float64 plus about 10 n N for the selection; memory 12 MB + 32 kB D + the queries.
    It is the definition that `faiss_index` is tested against, and enough for some 100,000 rows.
    """

    def __init__(self, rows: Rows, metric: str = "cosine") -> None:
        validate_metric(metric)
        self._rows = rows
        self._metric = metric

    @property
    def metric(self) -> str:
        """The metric it was made with."""
        return self._metric

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 ids of the indexed rows."""
        return self._rows.row_ids

    def search(
        self,
        X: FloatArray,
        k: int,
        *,
        exclude: IntArray | None = None,
        among: BoolArray | IntArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Nearest k of each of (n, D) queries, see `ltstore.types.NeighborIndex.search`.

        Parameters
        ----------
        X : (n, D) float32
            Not modified; need not have unit norm.
        k : int
            At least 1.
        exclude : (n,) int64, optional
            One row id per query that is not an answer to it.
        among : (N,) bool or (m,) int64, optional
            Search only these rows: a mask in the order of `row_ids`, or row ids.

        Returns
        -------
        neighbor_ids : (n, k) int64
        distances : (n, k) float32

        Raises
        ------
        DataError, ConfigError
            Queries, k or `among` do not fit.
        """
        queries = unit_queries(validate_queries(X, k, exclude, self._rows.n_features), self._metric)
        positions = resolve_positions(among, self.row_ids)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        n_rows = self._rows.n_samples if positions is None else len(positions)
        for start in range(0, n_rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n_rows)
            if positions is None:
                block, block_ids = self._rows.read(start, stop), self.row_ids[start:stop]
            else:
                block, block_ids = self._rows.take(positions[start:stop]), self.row_ids[positions[start:stop]]
            reference = unit_queries(block, self._metric).astype(np.float64)
            for first in range(0, len(queries), _BLOCK_QUERIES):
                some = slice(first, first + _BLOCK_QUERIES)
                found = _scores(queries[some].astype(np.float64), reference, self._metric)
                if exclude is not None:
                    found[block_ids[None, :] == exclude[some, None]] = -np.inf
                _merge(ids[some], scores[some], block_ids, found)
        ids[np.isneginf(scores)] = -1
        distances = -scores if self._metric == "l2" else scores
        return ids, np.where(ids < 0, np.float32(np.nan), distances)


def _scores(queries: DoubleArray, block: DoubleArray, metric: str) -> FloatArray:
    products = queries @ block.T
    if metric == "l2":
        squares = np.einsum("ij,ij->i", queries, queries)[:, None] + np.einsum("ij,ij->i", block, block)
        products = np.minimum(2 * products - squares, 0.0)
    return products.astype(np.float32)


def _merge(ids: IntArray, scores: FloatArray, block_ids: IntArray, found: FloatArray) -> None:
    """Keep, in place, the best k of what was kept and what was found; smaller ids first among equals."""
    k = ids.shape[1]
    # What was kept has smaller ids than the block and comes first, so "first among equals" is "smaller id".
    all_scores = np.concatenate([scores, found], axis=1)
    all_ids = np.concatenate([ids, np.broadcast_to(block_ids, found.shape)], axis=1)
    bound = np.partition(all_scores, -k, axis=1)[:, -k, None]
    above, at = all_scores > bound, all_scores == bound
    room = k - above.sum(axis=1, keepdims=True)
    chosen = np.nonzero(above | (at & (np.cumsum(at, axis=1) <= room)))[1].reshape(-1, k)
    best = np.take_along_axis(all_scores, chosen, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    scores[...] = np.take_along_axis(best, order, axis=1)
    ids[...] = np.take_along_axis(np.take_along_axis(all_ids, chosen, axis=1), order, axis=1)
