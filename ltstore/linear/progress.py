"""What is said of one pass over the rows."""

from __future__ import annotations

from dataclasses import dataclass

from ltstore.linear.objective import Evaluation

NAN = float("nan")


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
    holdout_accuracy, holdout_balanced : float
        Accuracy on the holdout at a point that was kept, and its mean over classes; NaN without holdout.
    """

    value: float
    loss: float
    gap: float
    seconds: float
    data_seconds: float = 0.0
    rows_per_second: float = 0.0
    holdout_accuracy: float = NAN
    holdout_balanced: float = NAN

    @classmethod
    def of(cls, found: Evaluation, n_rows: int) -> PassRecord:
        """Return the record of a pass over `n_rows` rows, not yet kept."""
        rate = n_rows / max(found.seconds, 1e-9)
        return cls(found.value, found.loss, NAN, found.seconds, found.data_seconds, rate)
