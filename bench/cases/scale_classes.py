"""scale.classes: scale.train for as many classes as iNaturalist 2018 has."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Case, Size
from bench.cases import scale_train
from bench.timing import Workload

SHAPES = {"toy": ((400, 16, 40),), "full": ((20_000, 768, 8142), (10_000, 1536, 8142))}


def build(size: Size) -> Iterator[Workload]:
    """Yield a workload for each shape, its rows made as they are read."""
    for shape in SHAPES[size]:
        yield scale_train.workload(shape, None)


CASE = Case(
    name="scale.classes",
    definition=scale_train.CASE.definition,
    build=build,
    clock="wall",
    note=scale_train.CASE.note,
)
