"""What a training gives back: the model, how well it did on a holdout, and what it took."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ltstore.linear import HoldoutScore, LinearModel
from ltstore.types import IntArray


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """A trained model and what it took.

    Attributes
    ----------
    model : LinearModel
    targets : (C,) int64
        Synthetic rows of each class.
    seconds : float
        Everything counted, from opened store to model.
    n_passes : int
        Passes over the rows; 0 for a closed form.
    stopped : str
        "tolerance", "max_passes", "rounding", "epochs" or "closed form", see `ltstore.linear.TrainResult`.
    history : list of dict
        One entry per pass (`ltstore.linear.PassRecord`); what was not measured is None.
    kept_pass : int
        The pass, from 1, that the model is from; 0 for a closed form and for a blend.
    holdout : HoldoutScore or None
        Of the model, before it was fitted again on all rows.
    rows_per_second : float
        Of all passes; 0 for a closed form.
    data_share : float
        Share of the passes' time that was spent waiting for rows.
    share_of_peak, peak : float
        Flops a second of the real rows' products over those of a bare product here, and the latter; NaN where that was
        not measured (`ltstore.linear.PassRecord`).
    trials : list of dict
        Of a grid: what each head was trained with, how it did on the holdout, and which was chosen.
    refit : dict or None
        Passes that were made from there on all rows, the holdout's among them, and how they ended.
    """

    model: LinearModel = field(repr=False)
    targets: IntArray = field(repr=False)
    seconds: float
    n_passes: int
    stopped: str
    history: list[dict[str, float | None]] = field(repr=False)
    kept_pass: int = 0
    holdout: HoldoutScore | None = None
    rows_per_second: float = 0.0
    data_share: float = 0.0
    share_of_peak: float = math.nan
    peak: float = math.nan
    trials: list[dict[str, Any]] = field(default_factory=list, repr=False)
    refit: dict[str, Any] | None = None

    @property
    def n_real(self) -> int:
        """Real rows that were trained on: without the holdout, unless there was a refit."""
        return int(self.model.record["settings"].get("n_real", self.model.class_counts.sum()))

    @property
    def speed(self) -> dict[str, float | None]:
        """How fast the passes were, as JSON values; what was not measured is None."""
        found = {
            "rows_per_second": self.rows_per_second,
            "data_share": self.data_share,
            "share_of_peak": self.share_of_peak,
            "peak_flops_per_second": self.peak,
        }
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: settings and figures, not the weights."""
        return {
            "settings": self.model.record["settings"],
            "n_real": self.n_real,
            "n_synthetic": int(self.targets.sum()),
            "n_passes": self.n_passes,
            "kept_pass": self.kept_pass,
            "stopped": self.stopped,
            "seconds": self.seconds,
            **self.speed,
            "holdout": None if self.holdout is None else self.holdout._asdict(),
            "grid": self.trials,
            "refit": self.refit,
            "history": self.history,
        }
