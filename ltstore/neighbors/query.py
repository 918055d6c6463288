"""Nearest rows as records that can be shown: class, its size and group, similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltstore.errors import DataError, LabelError
from ltstore.metrics import count_groups
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.types import BoolArray, ClassNames, FloatArray, IntArray

TAIL = ("medium", "few")


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """One nearest row.

    Attributes
    ----------
    query : int
        Which of the queries it answers, from 0.
    rank : int
        Its place, from 1.
    row_id : int
    class_id : int
        -1 where the row is unlabelled.
    class_name : str or None
    class_count : int
        Rows of the class in the counts given; 0 where the row is unlabelled.
    group : str or None
        "many", "medium" or "few".
    similarity : float
        As the index measures: a similarity, or a squared distance for metric "l2".
    """

    query: int
    rank: int
    row_id: int
    class_id: int
    class_name: str | None
    class_count: int
    group: str | None
    similarity: float


def query_neighbors(
    index: RestrictedIndex,
    X: FloatArray,
    k: int,
    *,
    labels: IntArray,
    class_names: ClassNames,
    counts: IntArray,
    among: Sequence[int] | IntArray | None = None,
    exclude: IntArray | None = None,
) -> list[Neighbor]:
    """Find the nearest rows of each query and say what they are.

    Parameters
    ----------
    index : RestrictedIndex
    X : (n, D) float32
    k : int
    labels : (N,) int64
        Labels of the indexed rows, in their order.
    class_names : sequence of C str
    counts : (C,) int64
        Training rows of each class.
    among : class ids, optional
        Only rows of these classes, see `resolve_among`.
    exclude : (n,) int64, optional
        One row id per query that is not an answer to it: itself.

    Returns
    -------
    list of Neighbor
        By query, then rank; fewer than k for a query where there are no more rows.

    Raises
    ------
    DataError
        Labels and index, or counts and names, differ in length; or queries do not fit.
    """
    labels = np.asarray(labels, np.int64)
    if labels.shape != index.row_ids.shape:
        raise DataError(f"labels must be of the {len(index.row_ids)} indexed rows, found {len(labels)}")
    if len(counts) != len(class_names):
        raise DataError(f"counts are of {len(counts)} classes, class_names of {len(class_names)}")
    mask: BoolArray | None = None if among is None else np.isin(labels, np.asarray(among, np.int64))
    ids, similarity = index.search(X, k, among=mask, exclude=exclude)
    groups = _group_names(counts)
    found = []
    for query, rank in zip(*np.nonzero(ids >= 0), strict=True):
        row_id = int(ids[query, rank])
        c = int(labels[np.searchsorted(index.row_ids, row_id)])
        found.append(
            Neighbor(
                query=int(query),
                rank=int(rank) + 1,
                row_id=row_id,
                class_id=c,
                class_name=class_names[c] if c >= 0 else None,
                class_count=int(counts[c]) if c >= 0 else 0,
                group=groups[c] if c >= 0 else None,
                similarity=float(similarity[query, rank]),
            )
        )
    return found


def resolve_among(among: str, counts: IntArray, class_names: ClassNames) -> IntArray:
    """Turn the text after --among into class ids.

    Parameters
    ----------
    among : str
        "many", "medium", "few", "tail" (medium and few), or class names separated by commas. A class name that
        contains a comma, or is one of the four words, is taken as the class where it matches whole.
    counts : (C,) int64
        Training rows of each class.
    class_names : sequence of C str

    Returns
    -------
    (m,) int64, ascending; empty where a group has no classes

    Raises
    ------
    LabelError
        A name is not a class; the message names the nearest.
    """
    positions: dict[str, list[int]] = {}
    for c, name in enumerate(class_names):
        positions.setdefault(name, []).append(c)
    if among in positions:
        return np.array(positions[among], np.int64)
    groups = count_groups(counts)
    if among in groups or among == "tail":
        wanted = TAIL if among == "tail" else (among,)
        return np.flatnonzero(np.any([groups[name] for name in wanted], axis=0)).astype(np.int64)
    names = [name.strip() for name in among.split(",") if name.strip()]
    unknown = [name for name in names if name not in positions]
    if unknown or not names:
        raise LabelError(_unknown(unknown[0] if unknown else among, class_names))
    return np.unique(np.concatenate([positions[name] for name in names])).astype(np.int64)


def _unknown(name: str, class_names: ClassNames) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, class_names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"{name!r} is not one of the {len(class_names)} classes{hint}; "
        "use many, medium, few, tail or class names separated by commas"
    )


def _group_names(counts: IntArray) -> list[str]:
    names = [""] * len(counts)
    for group, members in count_groups(counts).items():
        for c in np.flatnonzero(members):
            names[c] = group
    return names
