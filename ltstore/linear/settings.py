"""What can be chosen about training a linear head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from ltstore.errors import ConfigError

LOSSES = ("ce", "la")
PENALTIES = ("whitened", "plain")
L2_MOST = 1e-2


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of `train_linear`, validated when made.

    Attributes
    ----------
    loss : {"ce", "la"}
        Cross entropy, or logit-adjusted cross entropy: tau log q is added to the logits while training, q
        being the class shares of the stream that is fed, and left out when predicting.
    tau : float, optional
        Strength of the adjustment, at least 0. Default 1 for "la"; "ce" has none.
    posthoc_tau : float
        At least 0: this times the log of each class's share of the real rows is taken from its logit after training,
        which leans to the tail (post-hoc logit adjustment, Menon et al. 2021, equation 9).
    implicit : float
        lambda, at least 0: around every row stand infinitely many Gaussian ones with lambda times the covariance of
        its class, in closed form (ISDA). 0 is none. Training only: predictions are W x + b as ever.
    l2 : float, optional
        Strength of the penalty, above 0, on the scale of the mean loss of a row: mean loss + l2/2 tr(W M W'), so
        that it does not depend on the scale of the rows. Default min(0.01, 1 / C): the gradient of one class
        shrinks with its share of the rows, and a penalty that did not would flatten thousands of classes.
    penalty : {"whitened", "plain"}
        M is the shrunk within-class covariance, or the identity times its mean eigenvalue.
    max_passes : int
        Passes over the stream at most, at least 1.
    tolerance : float
        Stop when the estimated distance to the least objective is below this share of it.
    backend : {"auto", "numba", "reference"}
    seed : int
        The seed the stream was made with; the solver itself draws nothing.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    loss: str = "la"
    tau: float | None = None
    posthoc_tau: float = 0.0
    implicit: float = 0.0
    l2: float | None = None
    penalty: str = "plain"
    max_passes: int = 200
    tolerance: float = 1e-3
    backend: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("loss", self.loss, LOSSES)
        _one_of("penalty", self.penalty, PENALTIES)
        if self.tau is not None:
            _number("tau", self.tau, low=0.0, open_low=False)
            if self.loss == "ce" and self.tau != 0:
                raise ConfigError(f"loss 'ce' has no adjustment, found tau {self.tau}: use loss 'la'")
        _number("posthoc_tau", self.posthoc_tau, low=0.0, open_low=False)
        _number("implicit", self.implicit, low=0.0, open_low=False)
        if self.l2 is not None:
            _number("l2", self.l2, low=0.0, open_low=True)
        _number("tolerance", self.tolerance, low=0.0, open_low=False)
        _integer("max_passes", self.max_passes, 1)
        _integer("seed", self.seed, 0)
        if not isinstance(self.backend, str):
            raise ConfigError(f"backend must be a name, found {self.backend!r}")

    @property
    def resolved_tau(self) -> float:
        """The tau that training uses: 0 for "ce", 1 for "la" unless given."""
        if self.loss == "ce":
            return 0.0
        return 1.0 if self.tau is None else float(self.tau)

    def resolved_l2(self, n_classes: int) -> float:
        """The l2 that training uses for C classes: min(0.01, 1 / C) unless given."""
        return min(L2_MOST, 1.0 / n_classes) if self.l2 is None else float(self.l2)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Build settings from a mapping, e.g. a TOML table; an unknown key names the nearest valid one."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                near = get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"valid ones: {', '.join(names)}"
                raise ConfigError(f"unknown training setting {key!r}: {hint}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return settings as JSON values; `from_mapping` gives settings that train the same."""
        return {**asdict(self), "tau": self.resolved_tau}


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}; found {value!r}")


def _number(name: str, value: object, *, low: float, open_low: bool) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < low or (open_low and value == low):  # type: ignore[operator]
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        raise ConfigError(f"{name} must be a finite number {bound}, found {value!r}")


def _integer(name: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{name} must be an integer of at least {low}, found {value!r}")
