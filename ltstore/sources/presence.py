"""A source of which no image is there: a wrong root or a lost disk, never rows to be given up one by one."""

from __future__ import annotations

import numpy as np

from ltstore.errors import SourceError
from ltstore.sources.base import LabelledSource
from ltstore.types import ImageSource


def check_present(source: ImageSource) -> None:
    """Raise SourceError where not one image of the source is there; images are not read.

    Notes
    -----
    One stat a file, which the source's digest needs as well.
    """
    if isinstance(source, LabelledSource) and not source.is_present(np.arange(source.n_samples)):
        raise none_there(source, 0, source.n_samples)


def none_there(source: ImageSource, start: int, stop: int) -> SourceError:
    """Return the error that not one image of rows [start, stop) is there; names where the first was looked for."""
    rows = f"the {stop - start:,} images"
    if stop - start < source.n_samples:
        rows += f" of rows {start}..{stop - 1}"
    place = source.place(start) if isinstance(source, LabelledSource) else source.key(start)
    return SourceError(
        f"none of {rows} is there: the first was looked for at {place}; check the root that the paths start at "
        "and that its disk is mounted, then run the same command again"
    )
