"""train.memory: resident memory of training on a store that is larger than what may be kept of it."""

from __future__ import annotations

from functools import partial

from bench.case import Case
from bench.cases.read_memory import build

CASE = Case(
    name="train.memory",
    definition="most resident memory of training on a 20 GB store, moments and two passes / 1.5 GB",
    build=partial(build, ways=("train",)),
    cores=None,
    clock="wall",
    note="Mapped pages of the store's files count as resident.",
)
