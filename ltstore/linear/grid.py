"""Settings to be compared: every combination of the values of a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from typing import Any

from ltstore.errors import ConfigError
from ltstore.linear.settings import TrainSettings

GRID_KEYS = (
    *("loss", "tau", "posthoc_tau", "smoothing", "class_weights", "beta", "margin", "implicit"),
    *("head", "scale", "l2", "penalty", "init", "max_passes", "tolerance"),
)
"""What heads that are trained together may differ in."""
MOST_HEADS = 256


def expand_grid(base: TrainSettings, axes: Mapping[str, Sequence[Any]]) -> list[TrainSettings]:
    """Return `base` with every combination of the values of `axes`, the last axis fastest.

    Raises
    ------
    ConfigError
        An axis is unknown or empty, a combination contradicts itself, or there are more than 256.
    """
    for key, values in axes.items():
        if key not in GRID_KEYS:
            near = get_close_matches(key, GRID_KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"possible: {', '.join(GRID_KEYS)}"
            raise ConfigError(f"heads of a grid cannot differ in {key!r}: {hint}")
        if not values:
            raise ConfigError(f"{key!r} of the grid has no values: give some, or leave it out")
    n_heads = 1
    for values in axes.values():
        n_heads *= len(values)
    if n_heads > MOST_HEADS:
        raise ConfigError(f"a grid may have {MOST_HEADS} heads, found {n_heads}: give fewer values")
    return [replace(base, **dict(zip(axes, values, strict=True))) for values in product(*axes.values())]


def check_together(grid: Sequence[TrainSettings]) -> None:
    """Raise ConfigError unless heads of these settings can be trained in the same passes."""
    if not grid:
        raise ConfigError("a grid needs settings, found none")
    if any(one.solver != "lbfgs" for one in grid):
        raise ConfigError("heads of a grid share whole passes: solver must be lbfgs")
    for name in ("device", "precision", "backend", "seed", "keep"):
        found = {getattr(one, name) for one in grid}
        if len(found) > 1:
            raise ConfigError(
                f"heads of a grid must have one {name}, found {', '.join(map(str, sorted(found)))}"
            )
