"""What is said of one pass over the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ltstore.linear.objective import Evaluation

NAN = float("nan")

OnPass = Callable[["PassRecord"], None]


def no_record(done: PassRecord) -> None:
    """Ignore the record of a pass."""


@dataclass(frozen=True)
class PassRecord:
    """One pass: where the objective stood and what it took.

    Attributes
    ----------
    value, loss : float
        Objective, and the mean loss of a row in it; of an epoch of minibatches their means over its steps.
    gap : float
        Estimated f - f*, NaN for a pass inside a line search whose point was not kept, and for minibatches.
    seconds, data_seconds : float
        Of the pass, and the part of it that was spent waiting for rows. A pass shared by several heads counts whole
        for each.
    rows_per_second : float
        0 where the class moments told the first pass's sums, and no row was read.
    holdout_accuracy, holdout_balanced : float
        Accuracy on the holdout at a point that was kept, and its mean over classes; NaN without holdout.
    share_of_peak : float
        Flops a second of the products of the real rows, 4 N D C a head, over those of a bare product; NaN where that
        was not measured. Synthetic rows take their time and count nothing.
    """

    value: float
    loss: float
    gap: float
    seconds: float
    data_seconds: float = 0.0
    rows_per_second: float = 0.0
    holdout_accuracy: float = NAN
    holdout_balanced: float = NAN
    share_of_peak: float = NAN

    @property
    def stages(self) -> dict[str, float]:
        """Where the seconds went, as a `ltstore.types.Progress` takes them."""
        return {"train": self.seconds - self.data_seconds, "wait for rows": self.data_seconds}

    def to_json(self) -> dict[str, float | None]:
        """Return a plain dict; what is NaN is None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Any) -> PassRecord:
        """Return the record of `to_json`; TypeError where it is something else."""
        values = {name: NAN if value is None else value for name, value in dict(data).items()}
        if not all(isinstance(value, int | float) for value in values.values()):
            raise TypeError("a pass must be described by numbers")
        return cls(**values)

    @classmethod
    def of(cls, found: Evaluation, n_rows: int) -> PassRecord:
        """Return the record of a pass over `n_rows` rows, not yet kept."""
        rate = n_rows * found.from_rows / max(found.seconds, 1e-9)
        return cls(found.value, found.loss, NAN, found.seconds, found.data_seconds, rate)
