"""scale.rows: scale.train for more rows than are kept in memory."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Case, Size
from bench.cases import scale_train
from bench.timing import Workload

SHAPES = {"toy": ((2000, 8, 3),), "full": ((1_000_000, 384, 100), (4_000_000, 384, 100))}


def build(size: Size) -> Iterator[Workload]:
    """Yield a workload for each shape, its rows made as they are read: those of the second are in every pass."""
    for shape in SHAPES[size]:
        yield scale_train.workload(shape, None)


CASE = Case(
    name="scale.rows",
    definition=scale_train.CASE.definition,
    build=build,
    clock="wall",
    note=scale_train.CASE.note,
)
