"""train.large: train.fair on made rows of the size of ImageNet-LT, against the quickest of its peers."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Case, Size
from bench.cases import train_fair
from bench.data import made_rows
from bench.timing import Workload

LEFT_OUT = dict.fromkeys(
    ("scikit-learn lbfgs", "ltstore bf16, saved moments"), "left out at this size: see train.fair"
)


def build(size: Size) -> Iterator[Workload]:
    """Yield made rows: 115,846 x 768 in 1,000 classes."""
    n_rows, n_features, n_classes = (300, 8, 4) if size == "toy" else (115_846, 768, 1000)
    yield train_fair.race(
        "made, as many as ImageNet-LT", made_rows(n_rows, n_features, n_classes), rates=(), left_out=LEFT_OUT
    )


CASE = Case(name="train.large", definition=train_fair.CASE.definition, build=build, rounds=5)
