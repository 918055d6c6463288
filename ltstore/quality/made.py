"""Measures of the synthetic rows themselves, among the real rows they were made from."""

from __future__ import annotations

import numpy as np

from ltstore.neighbors import RestrictedIndex
from ltstore.quality.surroundings import Surroundings, class_spacing, surroundings
from ltstore.quality.table import ClassTable
from ltstore.rows import class_counts
from ltstore.sampling import bounded_targets
from ltstore.types import BoolArray, Donors, DoubleArray, IntArray, Rows, Sampler

MAX_ROWS = 2000
"""Most synthetic rows looked at."""
COPY = 0.1
"""A row nearer to a real one than this share of the class's spacing is a copy of it."""


def measure_made(
    rows: Rows,
    sampler: Sampler,
    targets: IntArray,
    index: RestrictedIndex,
    *,
    k: int,
    donors: Donors | None = None,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> tuple[ClassTable, IntArray]:
    """Look at the first synthetic rows of every class and what lies around them.

    Parameters
    ----------
    rows : Rows
        The real rows the sampler is fitted to.
    sampler : Sampler
    targets : (C,) int64
        Synthetic rows of each class; at most `max_rows` of all are looked at, see `ltstore.sampling.bounded_targets`.
    index : RestrictedIndex
        Of `rows`, metric "l2".
    k : int
        Nearest rows for the purity.
    donors : Donors, optional
        Lend their spacing to classes of one row.
    seed, max_rows : int

    Returns
    -------
    table : ClassTable
        purity : share of a row's nearest real rows, its parents left out, that are of its class.
        intrusion : share of rows whose nearest real row, parents left out, is of another class.
        nearest : median distance to the nearest real row, parents among them, over the class's spacing
        (`class_spacing`). closer : share of rows for which that is below 1. Memorising shows here.
        copies : share of rows for which it is below 0.1.
        As `real`, the same of at most as many real rows, each left out of what lies around itself.
    intruded : (C,) int64
        The class most often intruded upon, the smaller id among equals; -1 for none.

    Notes
    -----
    4 max_rows N D flops for the searches and at most 512 N D for the spacings: 1.5 s for 10,847 rows of 1,280 features.
    """
    counts = class_counts(rows)
    n_classes = len(counts)
    n_rows = bounded_targets(targets, counts, max_rows)
    chosen = np.flatnonzero(n_rows)
    spacing = class_spacing(rows, chosen, donors)
    drawn = [sampler.sample(int(c), 0, int(n_rows[c]), seed=seed) for c in chosen]
    if not drawn:
        nothing = {name: np.full(n_classes, np.nan) for name in _NAMES}
        return ClassTable(counts=counts, n_rows=n_rows, values=nothing, real=nothing), np.full(n_classes, -1)
    width = max(each.parent_ids.shape[1] for each in drawn)
    parents = [
        np.pad(d.parent_ids, ((0, 0), (0, width - d.parent_ids.shape[1])), constant_values=-1) for d in drawn
    ]
    class_ids = np.concatenate([each.labels for each in drawn])
    around = surroundings(
        index, rows, np.concatenate([each.X for each in drawn]), class_ids, np.concatenate(parents), k
    )
    order = np.argsort(rows.labels, kind="stable")[np.count_nonzero(rows.labels < 0) :]
    of_class = np.split(order, np.cumsum(counts)[:-1])
    some = np.concatenate([_spread(of_class[c], int(n_rows[c])) for c in chosen])
    real_ids = rows.labels[some]
    beside = surroundings(index, rows, rows.take(some), real_ids, rows.row_ids[some][:, None], k)
    table = ClassTable(
        counts=counts,
        n_rows=n_rows,
        values=_measures(around, around.nearest, class_ids, spacing),
        real=_measures(beside, beside.nearest_other, real_ids, spacing),
    )
    return table, _most_intruded(around.intruder, class_ids, n_classes)


_NAMES = ("purity", "intrusion", "nearest", "closer", "copies")


def _measures(
    around: Surroundings, distance: DoubleArray, class_ids: IntArray, spacing: DoubleArray
) -> dict[str, DoubleArray]:
    n_classes = len(spacing)
    scale = spacing[class_ids]
    # Real rows that are all alike have spacing 0: a row on top of one is a copy, any other is far.
    far = np.where(distance > 0, np.inf, 0.0)
    ratio = np.divide(distance, scale, out=far, where=scale > 0)
    ratio[np.isnan(scale) | np.isnan(distance)] = np.nan
    known = ~np.isnan(ratio)
    columns = (
        _mean_by_class(around.purity, class_ids, n_classes, ~np.isnan(around.purity)),
        _mean_by_class(around.intruder >= 0, class_ids, n_classes, around.intruder > -2),
        _median_by_class(ratio, class_ids, n_classes),
        _mean_by_class(ratio < 1, class_ids, n_classes, known),
        _mean_by_class(ratio < COPY, class_ids, n_classes, known),
    )
    return dict(zip(_NAMES, columns, strict=True))


def _mean_by_class(
    values: DoubleArray | BoolArray, class_ids: IntArray, n_classes: int, known: BoolArray
) -> DoubleArray:
    n = np.bincount(class_ids[known], minlength=n_classes)
    sums = np.bincount(class_ids[known], values[known].astype(np.float64), minlength=n_classes)
    means: DoubleArray = np.divide(sums, n, out=np.full(n_classes, np.nan), where=n > 0)
    return means


def _median_by_class(values: DoubleArray, class_ids: IntArray, n_classes: int) -> DoubleArray:
    medians = np.full(n_classes, np.nan)
    known = np.isfinite(values)
    for c in np.unique(class_ids[known]):
        medians[c] = np.median(values[known & (class_ids == c)])
    return medians


def _spread(positions: IntArray, n: int) -> IntArray:
    """At most n of the positions, evenly spaced."""
    if not len(positions):
        return positions
    return positions[np.unique(np.linspace(0, len(positions) - 1, n).astype(np.int64))]


def _most_intruded(intruder: IntArray, class_ids: IntArray, n_classes: int) -> IntArray:
    found = np.full(n_classes, -1, np.int64)
    for c in np.unique(class_ids[intruder >= 0]):
        found[c] = np.bincount(intruder[(class_ids == c) & (intruder >= 0)]).argmax()
    return found
