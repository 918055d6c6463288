"""What training gives: a model and how it went, and which of several is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltstore.errors import ConfigError
from ltstore.linear.holdout import HoldoutScore
from ltstore.linear.model import LinearModel
from ltstore.linear.progress import NAN, PassRecord


@dataclass(frozen=True)
class TrainResult:
    """A model and how training went.

    Attributes
    ----------
    model : LinearModel
    history : tuple of PassRecord
        One per pass; empty for a closed form.
    n_passes : int
    seconds : float
        Of the solver, moments not included.
    stopped : str
        Why: "tolerance", "max_passes" (usable, the objective not at its minimum), "rounding" (no further
        decrease in float32), "epochs" (those asked for are made), or "closed form".
    rows_per_second : float
        Rows of all passes over their seconds; 0 for a closed form.
    kept_pass : int
        Which pass, from 1, the model is from; 0 for a closed form.
    holdout : HoldoutScore or None
        Of the model.
    data_share : float
        Share of the passes' seconds that was spent waiting for rows.
    share_of_peak, peak : float
        That of `PassRecord` over all passes, and the flops a second that it is a share of; NaN where not measured.
    """

    model: LinearModel
    history: tuple[PassRecord, ...]
    n_passes: int
    seconds: float
    stopped: str
    rows_per_second: float
    kept_pass: int = 0
    holdout: HoldoutScore | None = None
    data_share: float = 0.0
    share_of_peak: float = NAN
    peak: float = NAN

    @property
    def converged(self) -> bool:
        """Whether the stopping rule was met, or none was needed."""
        return self.stopped in ("tolerance", "epochs", "closed form")


def best_of(results: Sequence[TrainResult]) -> int:
    """Return the position of the result that is best on the holdout: by balanced accuracy, then accuracy, then order.

    Raises
    ------
    ConfigError
        A result has no score: train with a holdout.
    """
    scores = [result.holdout for result in results]
    if not scores or None in scores:
        raise ConfigError("heads are compared on a holdout: train them with one")
    return max(range(len(results)), key=lambda i: (scores[i].balanced, scores[i].accuracy, -i))  # type: ignore[union-attr]
