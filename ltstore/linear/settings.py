"""What can be chosen about training a linear head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from ltstore.errors import ConfigError
from ltstore.linear.device import check_device
from ltstore.linear.heads import COSINE_SCALE, HEADS
from ltstore.linear.reweighting import CLASS_WEIGHTS

LOSSES = ("ce", "la")
PENALTIES = ("whitened", "plain")
SOLVERS = ("lbfgs", "sgd", "adam")
STARTS = ("zero", "means", "gda", "ridge")
KEEP = ("last", "best")
SCHEDULES = ("cosine", "constant")
L2_MOST = 1e-2
_LEARNING_RATES = {"sgd": 0.05, "adam": 0.005}


@dataclass(frozen=True, kw_only=True)
class MinibatchSettings:
    """Settings of the solvers "sgd" and "adam", validated when made.

    Attributes
    ----------
    learning_rate : float, optional
        Above 0, for rows that are scaled so that a feature varies by 1 within its class: it does not depend on
        the scale of the rows. Default 0.05 for sgd and 0.005 for adam.
    momentum : float in [0, 1)
        Of sgd; the first moment of adam decays by it as well.
    epochs : int
        At least 1.
    batch_size : int
        Rows of a step, at least 1.
    schedule : {"cosine", "constant"}
        The learning rate falls to 0 along half a cosine, step by step, or stays.
    """

    learning_rate: float | None = None
    momentum: float = 0.9
    epochs: int = 30
    batch_size: int = 512
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            _number("learning_rate", self.learning_rate, low=0.0, open_low=True)
        _share("momentum", self.momentum)
        _integer("epochs", self.epochs, 1)
        _integer("batch_size", self.batch_size, 1)
        _one_of("schedule", self.schedule, SCHEDULES)

    def resolved_rate(self, solver: str) -> float:
        """The learning rate that a solver begins with."""
        return _LEARNING_RATES[solver] if self.learning_rate is None else float(self.learning_rate)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> MinibatchSettings:
        """Build settings from a mapping; an unknown key names the nearest valid one."""
        return cls(**_known(cls, "minibatch setting", values))


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of `train_linear`, validated when made.

    Attributes
    ----------
    loss : {"ce", "la"}
        Cross entropy, or logit-adjusted cross entropy: tau log q is added to the logits while training, q
        being the class shares of the weight that is fed, and left out when predicting.
    tau : float, optional
        Strength of the adjustment, at least 0. Default 1 for "la"; "ce" has none.
    posthoc_tau : float
        At least 0: this times the log of each class's share of the real rows is taken from its logit after training,
        which leans to the tail (post-hoc logit adjustment, Menon et al. 2021, equation 9).
    smoothing : float in [0, 1)
        Share of every row's target that is spread evenly over the classes that have rows.
    class_weights : {"none", "balanced", "effective-number"}
        Weight of a row by the size of its class (`ltstore.linear.reweighting`). q is then the share of the weight, so
        that "balanced" leaves "la" nothing to adjust.
    beta : float in [0, 1), optional
        Of "effective-number". Default 0.999.
    margin : float
        At least 0: the smallest class's own logit is lowered by this while training, that of class c by
        n_c^(-1/4) in proportion (LDAM). In logits; for the cosine head in cosines.
    implicit : float
        lambda, at least 0: around every row stand infinitely many Gaussian ones with lambda times the covariance of
        its class, in closed form (ISDA). 0 is none. Training only: predictions are W x + b as ever.
    head : {"linear", "cosine"}
        Logits W x + b, or scale * cos(w, x) without bias and penalty, for rows of unit norm.
    scale : float, optional
        Of the cosine head, above 0. Default 25.
    l2 : float, optional
        Strength of the penalty, above 0, on the scale of the mean loss of a row: mean loss + l2/2 tr(W M W'), so
        that it does not depend on the scale of the rows. Default min(0.01, 1 / C): the gradient of one class
        shrinks with its share of the rows, and a penalty that did not would flatten thousands of classes.
    penalty : {"whitened", "plain"}
        M is the shrunk within-class covariance, or the identity times its mean eigenvalue.
    init : {"zero", "means", "gda", "ridge"}, optional
        Where the solver begins: W = 0, or the closed form of that name, its logits scaled to the rows. Default "zero";
        "means" for the cosine head, which cannot begin at zero.
    solver : {"lbfgs", "sgd", "adam"}
        Whole passes with curvature, or minibatches in random order.
    max_passes : int
        Passes over the stream at most, at least 1, of lbfgs.
    tolerance : float
        lbfgs stops when the estimated distance to the least objective is below this share of it.
    minibatch : MinibatchSettings
        Of sgd and adam.
    keep : {"last", "best"}
        Which point becomes the model: where the solver ended, or where balanced accuracy on the holdout was best
        (of equal ones the last).
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where passes are made: "auto" takes a GPU where it pays (`ltstore.linear.device.resolve_device`). Minibatches
        are made on the CPU.
    precision : {"auto", "float32", "tf32", "bf16"}
        Of the factors of a pass's matrix products: tf32 on a GPU only, bf16 anywhere (`ltstore.linear.torch_pass`);
        "auto" is float32, or bf16 on a CPU where it pays and does no harm (`ltstore.linear.device.resolve_device`).
    backend : {"auto", "numba", "reference", "triton"}
        Of the softmax: "triton" on a GPU, the others on the CPU.
    seed : int
        The seed the stream was made with, and of the order of minibatches; lbfgs draws nothing.

    Raises
    ------
    ConfigError
        A value is out of range, contradicts another, or would do nothing.
    """

    loss: str = "la"
    tau: float | None = None
    posthoc_tau: float = 0.0
    smoothing: float = 0.0
    class_weights: str = "none"
    beta: float | None = None
    margin: float = 0.0
    implicit: float = 0.0
    head: str = "linear"
    scale: float | None = None
    l2: float | None = None
    penalty: str = "plain"
    init: str | None = None
    solver: str = "lbfgs"
    max_passes: int = 200
    tolerance: float = 1e-3
    minibatch: MinibatchSettings = field(default_factory=MinibatchSettings)
    keep: str = "last"
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("head", self.head, HEADS)
        _one_of("loss", self.loss, LOSSES)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        _one_of("penalty", self.penalty, PENALTIES)
        _one_of("solver", self.solver, SOLVERS)
        _one_of("keep", self.keep, KEEP)
        if self.tau is not None:
            _number("tau", self.tau, low=0.0, open_low=False)
            if self.loss == "ce" and self.tau != 0:
                raise ConfigError(f"loss 'ce' has no adjustment, found tau {self.tau}: use loss 'la'")
        _number("posthoc_tau", self.posthoc_tau, low=0.0, open_low=False)
        _share("smoothing", self.smoothing)
        if self.beta is not None:
            _share("beta", self.beta)
            if self.class_weights != "effective-number":
                raise ConfigError(
                    f"beta is that of class_weights 'effective-number' and would do nothing with "
                    f"{self.class_weights!r}: leave it out"
                )
        _number("margin", self.margin, low=0.0, open_low=False)
        _number("implicit", self.implicit, low=0.0, open_low=False)
        if self.l2 is not None:
            _number("l2", self.l2, low=0.0, open_low=True)
        if self.init is not None:
            _one_of("init", self.init, STARTS)
        _number("tolerance", self.tolerance, low=0.0, open_low=False)
        _integer("max_passes", self.max_passes, 1)
        _integer("seed", self.seed, 0)
        if not isinstance(self.backend, str):
            raise ConfigError(f"backend must be a name, found {self.backend!r}")
        check_device(self)
        self._check_head()
        self._check_solver()

    def _check_head(self) -> None:
        if self.head == "linear":
            if self.scale is not None:
                raise ConfigError(
                    f"scale is that of the cosine head, found scale {self.scale} with head 'linear'"
                )
            return
        if self.scale is not None:
            _number("scale", self.scale, low=0.0, open_low=True)
        if self.l2 is not None or self.penalty != "plain":
            raise ConfigError(
                "the cosine head does not feel the length of its weights, a penalty would only shrink them: leave l2 "
                "and penalty out"
            )
        if self.init == "zero":
            raise ConfigError("the cosine head has no direction at zero: init must be means, gda or ridge")

    def _check_solver(self) -> None:
        if not isinstance(self.minibatch, MinibatchSettings):
            raise ConfigError(f"minibatch must be MinibatchSettings, found {self.minibatch!r}")
        default = {f.name: f.default for f in fields(self)}
        if self.solver == "lbfgs":
            if self.minibatch != MinibatchSettings():
                raise ConfigError("solver 'lbfgs' makes whole passes, minibatch settings would do nothing")
        elif (self.max_passes, self.tolerance) != (default["max_passes"], default["tolerance"]):
            raise ConfigError(
                f"solver {self.solver!r} makes minibatch.epochs passes: max_passes and tolerance would do nothing"
            )

    @property
    def resolved_tau(self) -> float:
        """The tau that training uses: 0 for "ce", 1 for "la" unless given."""
        if self.loss == "ce":
            return 0.0
        return 1.0 if self.tau is None else float(self.tau)

    @property
    def resolved_scale(self) -> float:
        """The scale of the logits: 1 for the linear head, 25 for the cosine head unless given."""
        if self.head == "linear":
            return 1.0
        return COSINE_SCALE if self.scale is None else float(self.scale)

    @property
    def resolved_init(self) -> str:
        """Where the solver begins."""
        return self.init or ("zero" if self.head == "linear" else "means")

    @property
    def n_passes(self) -> int:
        """Passes over the stream at most."""
        return self.max_passes if self.solver == "lbfgs" else self.minibatch.epochs

    def resolved_l2(self, n_classes: int) -> float:
        """The l2 that training uses for C classes: min(0.01, 1 / C) unless given, 0 for the cosine head."""
        if self.head == "cosine":
            return 0.0
        return min(L2_MOST, 1.0 / n_classes) if self.l2 is None else float(self.l2)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Build settings from a mapping, e.g. a TOML table; an unknown key names the nearest valid one."""
        known = _known(cls, "training setting", values)
        if isinstance(known.get("minibatch"), Mapping):
            known["minibatch"] = MinibatchSettings.from_mapping(known["minibatch"])
        return cls(**known)

    def to_mapping(self) -> dict[str, Any]:
        """Return settings as JSON values; `from_mapping` gives settings that train the same."""
        return {**asdict(self), "tau": self.resolved_tau}


def _known(settings_type: type[Any], what: str, values: Mapping[str, Any]) -> dict[str, Any]:
    names = [one.name for one in fields(settings_type)]
    for key in values:
        if key not in names:
            near = get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid ones: {', '.join(names)}"
            raise ConfigError(f"unknown {what} {key!r}: {hint}")
    return dict(values)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}; found {value!r}")


def _number(name: str, value: object, *, low: float, open_low: bool) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < low or (open_low and value == low):  # type: ignore[operator]
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        raise ConfigError(f"{name} must be a finite number {bound}, found {value!r}")


def _share(name: str, value: object) -> None:
    _number(name, value, low=0.0, open_low=False)
    if value >= 1:  # type: ignore[operator]
        raise ConfigError(f"{name} must be at least 0 and below 1, found {value!r}")


def _integer(name: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{name} must be an integer of at least {low}, found {value!r}")
