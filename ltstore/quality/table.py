"""Measures of classes, their averages over groups, and how both are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltstore.errors import ConfigError
from ltstore.metrics import count_groups
from ltstore.types import DoubleArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTable:
    """Several measures, one number a class; NaN where a class was not, or could not be, measured.

    Attributes
    ----------
    counts : (C,) int64
        Real rows of each class that the sampler was fitted to: they make the groups.
    n_rows : (C,) int64
        Synthetic rows measured.
    values : mapping of str to (C,) float64
        Of synthetic rows.
    real : mapping of str to (C,) float64
        The same measures of real rows in their place.
    n_skipped : int
        Classes left out because they have too few rows.
    """

    counts: IntArray
    n_rows: IntArray
    values: Mapping[str, DoubleArray]
    real: Mapping[str, DoubleArray]
    n_skipped: int = 0

    @property
    def n_classes(self) -> int:
        """Classes measured."""
        return int(np.count_nonzero(self.n_rows))

    def averages(self, *, real: bool = False) -> dict[str, dict[str, float | None]]:
        """Return {measure: {"many", "medium", "few", "all": mean over classes}}, None where no class has it."""
        groups = {**count_groups(self.counts), "all": np.ones(len(self.counts), np.bool_)}
        return {
            name: {group: _mean(values[members]) for group, members in groups.items()}
            for name, values in (self.real if real else self.values).items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that `from_json` turns into an equal table; averages are for the reader."""
        return {
            "averages": self.averages(),
            "averages_of_real": self.averages(real=True),
            "n_classes": self.n_classes,
            "n_skipped": self.n_skipped,
            "measures": list(self.values),
            "counts": self.counts.tolist(),
            "n_rows": self.n_rows.tolist(),
            "values": {name: _plain(column) for name, column in self.values.items()},
            "real": {name: _plain(column) for name, column in self.real.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassTable:
        """Return the table; ConfigError where it is none."""
        try:
            columns = [
                {str(name): np.array(data[kind][name], np.float64) for name in data["measures"]}
                for kind in ("values", "real")
            ]
            counts, n_rows = (np.array(data[name], np.int64) for name in ("counts", "n_rows"))
            found = cls(
                counts=counts,
                n_rows=n_rows,
                values=columns[0],
                real=columns[1],
                n_skipped=int(data["n_skipped"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise ConfigError(f"not a table of measures: {err!r}") from err
        if any(len(each) != len(counts) for each in (n_rows, *columns[0].values(), *columns[1].values())):
            raise ConfigError("not a table of measures: columns differ in length")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """What was measured of a sampler's rows.

    Attributes
    ----------
    made : ClassTable
        Of the rows themselves, among the real rows they were made from (`measure_made`).
    intruded : (C,) int64
        The class whose real rows most often lie nearest to this class's synthetic rows instead of its own; -1 for none.
    held_out : ClassTable or None
        Against real rows that the sampler did not see (`measure_held_out`); None where that was not possible.
    reason : str
        Why `held_out` is None, else "".
    n_synthetic : int
        Synthetic rows there are, of which `made` looks at some.
    k : int
    seconds : float
    """

    made: ClassTable
    intruded: IntArray
    held_out: ClassTable | None
    reason: str = ""
    n_synthetic: int
    k: int
    seconds: float

    @property
    def n_measured(self) -> int:
        """Synthetic rows that `made` looked at."""
        return int(self.made.n_rows.sum())

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that `from_json` turns into an equal one."""
        return {
            "k": self.k,
            "n_synthetic": self.n_synthetic,
            "n_measured": self.n_measured,
            "seconds": self.seconds,
            "reason": self.reason,
            "intruded": self.intruded.tolist(),
            "made": self.made.to_json(),
            "held_out": None if self.held_out is None else self.held_out.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quality:
        """Return what `to_json` was made of; ConfigError where it is nothing of the kind."""
        try:
            held_out = data["held_out"]
            return cls(
                made=ClassTable.from_json(data["made"]),
                intruded=np.array(data["intruded"], np.int64),
                held_out=None if held_out is None else ClassTable.from_json(held_out),
                reason=str(data["reason"]),
                n_synthetic=int(data["n_synthetic"]),
                k=int(data["k"]),
                seconds=float(data["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise ConfigError(f"not a measurement of quality: {err}") from err


def _mean(values: DoubleArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _plain(column: DoubleArray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in column.tolist()]
