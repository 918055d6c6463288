"""Images that tell about a class: those it was trained on, those that were mistaken, and those of the other class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltstore.report import Example
from ltstore.types import IntArray
from ltstore.workflow.neighborhood import image_reader
from ltstore.workflow.selection import Selection

if TYPE_CHECKING:
    from PIL.Image import Image

PER_KIND = 4


def class_examples(
    judged: Selection, predictions: IntArray, trained: Selection | None, takers: Mapping[int, Sequence[int]]
) -> dict[int, list[Example]]:
    """Read at most four images of each kind for a few classes; what cannot be had is left out.

    Parameters
    ----------
    judged : Selection
    predictions : (N,) int64
        Of its rows.
    trained : Selection or None
        The training rows, where the store still holds them.
    takers : mapping of class id to sequence of class ids
        The classes to tell about, and those that take their rows, the one that takes most first.
    """
    labels, row_ids = judged.rows.labels, judged.rows.row_ids
    read = image_reader(judged)
    found: dict[int, list[Example]] = {}
    for class_id, others in takers.items():
        wrong = [i for other in others for i in np.flatnonzero((labels == class_id) & (predictions == other))]
        wanted = [(int(row_ids[i]), class_id, int(predictions[i])) for i in wrong[:PER_KIND]]
        found[class_id] = list(_read(read, wanted))
    if trained is not None:
        read = image_reader(trained)
        labels, row_ids = trained.rows.labels, trained.rows.row_ids
        for class_id, others in takers.items():
            for one in (class_id, *others[:1]):
                rows = row_ids[np.flatnonzero(labels == one)[:PER_KIND]]
                found[class_id] += _read(read, [(int(row_id), one, None) for row_id in rows])
    return {class_id: examples for class_id, examples in found.items() if examples}


def _read(
    read: Callable[[int], Image | None], wanted: Sequence[tuple[int, int, int | None]]
) -> Iterator[Example]:
    for row_id, class_id, predicted in wanted:
        image = read(row_id)
        if image is not None:
            yield Example(image=image, row_id=row_id, class_id=class_id, predicted=predicted)
