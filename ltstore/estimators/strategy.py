"""imbalanced-learn's `sampling_strategy`: how many rows each class is to get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ConfigError, DataError

SamplingStrategy = float | str | Mapping[Any, int] | Callable[[NDArray[Any]], Mapping[Any, int]]


def rows_to_make(strategy: SamplingStrategy, y: NDArray[Any]) -> dict[Any, int]:
    """Return the new rows of every class that the strategy is about, as imbalanced-learn counts them for over-sampling.

    Parameters
    ----------
    strategy : float, str, mapping or callable
        Two classes: the smaller one's rows afterwards as a share of the larger one's, in (0, 1]. Or which classes to
        fill up to the largest: "auto", "not majority", "minority", "not minority" or "all". Or the rows of classes
        afterwards, real ones among them, as a mapping or what makes one of `y`.
    y : (N,) labels

    Raises
    ------
    DataError
        There is one class only.
    ConfigError
        The strategy is none of these, or would take rows away.
    """
    classes, counted = np.unique(y, return_counts=True)
    counts = dict(zip(classes.tolist(), counted.tolist(), strict=True))
    if len(counts) < 2:
        raise DataError(f"there is nothing to balance in 1 class: expected at least 2, found {list(counts)}")
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if callable(strategy):
        strategy = strategy(y)
    if isinstance(strategy, Mapping):
        wanted = dict(strategy)
    elif isinstance(strategy, str):
        which = {
            "auto": counts.keys() - {most},
            "not majority": counts.keys() - {most},
            "minority": {least},
            "not minority": counts.keys() - {least},
            "all": counts.keys(),
        }
        if strategy not in which:
            raise ConfigError(f"sampling_strategy must be one of {', '.join(which)}; found {strategy!r}")
        wanted = {label: counts[most] for label in counts if label in which[strategy]}
    elif isinstance(strategy, int | float) and 0 < strategy <= 1:
        if len(counts) > 2:
            raise ConfigError(f"sampling_strategy is a share for two classes, found {len(counts)}: give a dict")
        wanted = {label: int(counts[most] * strategy) for label in counts if label != most}
    else:
        raise ConfigError(
            f"sampling_strategy must be a share in (0, 1], a word, a dict or callable; found {strategy!r}"
        )
    for label, n_rows in wanted.items():
        if label not in counts:
            raise ConfigError(f"sampling_strategy names class {label!r}, which has no rows: leave it out")
        if n_rows < counts[label]:
            raise ConfigError(
                f"sampling_strategy asks for {n_rows} rows of class {label!r}, which has {counts[label]}: no rows are "
                "taken away"
            )
    return {label: wanted[label] - counts[label] for label in counts if label in wanted}
