"""The oracle: exact nearest rows in float64 NumPy, block by block."""

from __future__ import annotations

import numpy as np

from ltstore.neighbors.metric import has_unit_norm, ready_queries, resolve_positions, validate_metric
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
    Time 2 n N D flops in float64 and some 2 n N for the selection: 1.2 to 1.3 times the products alone for hundreds of
    queries. Memory 30 MB + 48 kB D + three times the queries.
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
        queries = ready_queries(X, k, exclude, self._rows.n_features, self._metric)
        positions = resolve_positions(among, self.row_ids)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        n_rows = self._rows.n_samples if positions is None else len(positions)
        buffer = np.empty((min(_BLOCK_ROWS, n_rows), self._rows.n_features), np.float32)
        wide, wide_queries = np.empty(buffer.shape), queries.astype(np.float64)
        products = np.empty((min(_BLOCK_QUERIES, len(queries)), len(buffer)))
        for start in range(0, n_rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n_rows)
            block, reference = buffer[: stop - start], wide[: stop - start]
            if positions is None:
                self._rows.read(start, stop, out=block)
                block_ids = self.row_ids[start:stop]
            else:
                self._rows.take(positions[start:stop], out=block)
                block_ids = self.row_ids[positions[start:stop]]
            reference[...] = block
            if self._metric == "cosine":
                squares = np.vecdot(reference, reference)
                if not has_unit_norm(squares):
                    squares[squares == 0] = 1
                    reference /= np.sqrt(squares)[:, None]
            for first in range(0, len(queries), _BLOCK_QUERIES):
                some = slice(first, first + _BLOCK_QUERIES)
                found = _scores(wide_queries[some], reference, self._metric, products)
                if exclude is not None:
                    own = np.searchsorted(block_ids[:-1], exclude[some])
                    (mine,) = np.nonzero(block_ids[own] == exclude[some])
                    found[mine, own[mine]] = -np.inf
                _merge(ids[some], scores[some], block_ids, found)
        ids[np.isneginf(scores)] = -1
        distances = -scores if self._metric == "l2" else scores
        return ids, np.where(ids < 0, np.float32(np.nan), distances)


def _scores(queries: DoubleArray, block: DoubleArray, metric: str, buffer: DoubleArray) -> FloatArray:
    products = buffer[: len(queries), : len(block)]
    np.matmul(queries, block.T, out=products)
    if metric == "l2":
        squares = np.vecdot(queries, queries)[:, None] + np.vecdot(block, block)
        products *= 2
        products -= squares
        np.minimum(products, 0.0, out=products)
    return products.astype(np.float32)


def _merge(ids: IntArray, scores: FloatArray, block_ids: IntArray, found: FloatArray) -> None:
    """Keep, in place, the best k of what was kept and what was found; smaller ids first among equals.

    Ids of a block are larger than those kept, so that only what is above the worst kept can displace it. Without k kept
    yet, the k-th best of the block is the bound.
    """
    n, k = scores.shape
    bound = scores[:, -1:]
    if k <= found.shape[1] and np.isneginf(bound).any():
        of_block = np.partition(found, -k, axis=1)[:, -k, None]
        bound = np.maximum(bound, np.nextafter(of_block, np.float32(-np.inf)))
    query, column = np.divmod(
        np.flatnonzero(found > bound), found.shape[1]
    )  # quicker than nonzero in two dimensions
    all_queries = np.concatenate([np.repeat(np.arange(n), k), query])
    all_scores = np.concatenate([scores.ravel(), found[query, column]])
    all_ids = np.concatenate([ids.ravel(), block_ids[column]])
    order = np.lexsort((all_ids, -all_scores, all_queries))
    first = np.searchsorted(all_queries[order], np.arange(n))
    best = order[first[:, None] + np.arange(k)]
    scores[...], ids[...] = all_scores[best], all_ids[best]
