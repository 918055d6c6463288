"""What the indexes share: the metrics, and the checks of queries and restrictions."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.rows import normalize_rows
from ltstore.types import BoolArray, DoubleArray, FloatArray, IntArray, NeighborIndex

_UNIT = 2.5e-7
_UNIT_QUERY = 1e-6  # its squared norm is added up in float32
METRICS = ("cosine", "inner_product", "l2")


class RestrictedIndex(NeighborIndex, Protocol):
    """A `NeighborIndex` that can search among some of its rows."""

    def search(
        self,
        X: FloatArray,
        k: int,
        *,
        exclude: IntArray | None = None,
        among: BoolArray | IntArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """As `NeighborIndex.search`; `among` is an (N,) bool mask of the indexed rows, or row ids."""


def validate_metric(metric: str) -> None:
    """Raise ConfigError unless the metric is one of `METRICS`."""
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")


def ready_queries(X: FloatArray, k: int, exclude: IntArray | None, n_features: int, metric: str) -> FloatArray:
    """Return the queries as C-contiguous float32, of unit norm for "cosine", or raise DataError or ConfigError."""
    queries = np.ascontiguousarray(X, np.float32)
    if queries.ndim != 2 or queries.shape[1] != n_features:
        raise DataError(f"queries must have shape (n, {n_features}), found {queries.shape}")
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    if exclude is not None and np.shape(exclude) != (len(queries),):
        raise DataError(f"exclude must hold one row id for each of {len(queries)} queries: {np.shape(exclude)}")
    if metric == "cosine" and _are_unit(queries):
        return queries  # and so finite
    if not math.isfinite(np.vdot(queries, queries)) and not np.isfinite(queries).all():
        bad = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise DataError(f"query {bad} has NaN or Inf")
    if metric != "cosine":
        return queries
    # `normalize_rows`, whose bits are those of a kernel, takes far longer for one
    wide = queries.astype(np.float64)
    squares = np.vecdot(wide, wide)
    squares[squares == 0] = 1
    wide /= np.sqrt(squares)[:, None]
    return wide.astype(np.float32)


def unit_rows(X: FloatArray, metric: str) -> FloatArray:
    """Return unit-norm rows for "cosine", copies unless they have it already; the rows themselves otherwise."""
    return X if metric != "cosine" or _are_unit(X) else normalize_rows(X.copy())


def _are_unit(X: FloatArray) -> bool:
    if len(X) == 1:  # vdot has no warnings to be silenced, which takes longer than the product
        return abs(float(np.vdot(X, X)) - 1) <= _UNIT_QUERY
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.vecdot(X, X).tolist()
    return all(abs(square - 1) <= _UNIT_QUERY for square in squares)


def has_unit_norm(squares: DoubleArray) -> bool:
    """Whether all squared norms are as near to 1 as those of float32 rows that were scaled to it."""
    return not len(squares) or bool(np.abs(squares - 1).max() <= _UNIT)


def resolve_positions(among: BoolArray | IntArray | None, row_ids: IntArray) -> IntArray | None:
    """Return the ascending positions that `among` allows, None for all.

    Raises
    ------
    DataError
        A mask of another length, or an id that is not indexed.
    """
    if among is None:
        return None
    allowed = np.asarray(among)
    if allowed.dtype == np.bool_:
        if allowed.shape != row_ids.shape:
            raise DataError(f"among must mask the {len(row_ids)} indexed rows, found shape {allowed.shape}")
        return np.flatnonzero(allowed).astype(np.int64)
    ids = np.unique(allowed.astype(np.int64))
    positions = np.searchsorted(row_ids, ids)
    known = positions < len(row_ids)
    known[known] = row_ids[positions[known]] == ids[known]
    if not known.all():
        raise DataError(f"row id {ids[~known][0]} in among is not one of the {len(row_ids)} indexed rows")
    return positions.astype(np.int64)
