"""A deterministic solver that sees the data only through whole passes: preconditioned L-BFGS.

The inverse Hessian starts from what the class moments say, not from the identity: at W = 0 the Hessian block
of class c is close to q_c (1 - q_c) S + l2 S with S the within-class covariance, so its inverse is one matrix
for all classes and one number per class. With the penalty in the same metric this stays a good model all the
way, and a handful of passes does what plain L-BFGS needs dozens for.

Stopping: with d = -H g the L-BFGS direction, -g'd / 2 is the decrease that the quadratic model promises, an
estimate of f - f*. The solver stops when it is at most `tolerance` times f.

References
----------
Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 (two-loop recursion) and 3.5 (Wolfe
conditions); Lewis & Overton 2013, "Nonsmooth optimization via quasi-Newton methods", for the bracketing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ltstore.linear.metric import Metric
from ltstore.linear.objective import Evaluation, Objective
from ltstore.types import DoubleArray

MEMORY = 10
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_PASSES = 12  # of one line search; a convex smooth function rarely needs a third

Vector = DoubleArray  # (C, D + 1): weight beside bias


@dataclass(frozen=True)
class PassRecord:
    """One pass: where the objective stood and what it took.

    Attributes
    ----------
    value, loss : float
        Objective, and the mean loss of a row in it.
    gap : float
        Estimated f - f*, NaN for a pass inside a line search whose point was not kept.
    seconds : float
    """

    value: float
    loss: float
    gap: float
    seconds: float


@dataclass(frozen=True)
class Solution:
    """What the solver ends with.

    Attributes
    ----------
    weight : (C, D) float64
    bias : (C,) float64
        Both for centred rows.
    passes : tuple of PassRecord
    stopped : str
        "tolerance" (the stopping rule was met), "max_passes", or "rounding" (no further decrease in float32).
    """

    weight: DoubleArray
    bias: DoubleArray
    passes: tuple[PassRecord, ...]
    stopped: str


class _PassesSpentError(Exception):
    """max_passes is reached inside a line search."""


@dataclass
class _Point:
    at: Vector
    value: float
    loss: float
    gradient: Vector


class _Run:
    """One call of `minimize`: counts passes and remembers the curvature pairs."""

    def __init__(
        self,
        objective: Objective,
        metric: Metric,
        l2: float,
        max_passes: int,
        on_pass: Callable[[PassRecord], None],
    ) -> None:
        self.objective = objective
        self.inverse = metric.inverse
        spread = objective.shares * (1.0 - objective.shares)
        self.weight_curvature = (spread + l2)[:, None]
        self.bias_curvature = np.maximum(spread, np.finfo(np.float32).eps)
        self.pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=MEMORY)
        self.scale = 1.0
        self.max_passes = max_passes
        self.on_pass = on_pass
        self.passes: list[PassRecord] = []

    def evaluate(self, at: Vector) -> _Point:
        if len(self.passes) >= self.max_passes:
            raise _PassesSpentError
        started = time.perf_counter()
        found: Evaluation = self.objective.evaluate(at[:, :-1], at[:, -1])
        gradient = np.concatenate([found.grad_weight, found.grad_bias[:, None]], axis=1)
        seconds = time.perf_counter() - started
        self.passes.append(PassRecord(found.value, found.loss, float("nan"), seconds))
        self.on_pass(self.passes[-1])
        return _Point(at, found.value, found.loss, gradient)

    def precondition(self, gradient: Vector) -> Vector:
        """Return the moments' inverse Hessian times the gradient."""
        out = np.empty_like(gradient)
        scaled = (gradient[:, :-1] / self.weight_curvature).astype(np.float32)
        out[:, :-1] = scaled @ self.inverse
        out[:, -1] = gradient[:, -1] / self.bias_curvature
        return out

    def direction(self, gradient: Vector) -> Vector:
        """Return -H g by the two-loop recursion."""
        q = gradient.copy()
        coefficients = []
        for step, change, rho in reversed(self.pairs):
            a = rho * float(np.vdot(step, q))
            q -= a * change
            coefficients.append(a)
        d = self.scale * self.precondition(q)
        for (step, change, rho), a in zip(self.pairs, reversed(coefficients), strict=True):
            d += (a - rho * float(np.vdot(change, d))) * step
        return -d

    def remember(self, old: _Point, new: _Point) -> None:
        step, change = new.at - old.at, new.gradient - old.gradient
        product = float(np.vdot(step, change))
        if product <= 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            return  # below float32 noise: the pair would make H indefinite
        self.pairs.append((step, change, 1.0 / product))
        self.scale = product / float(np.vdot(change, self.precondition(change)))

    def search(self, start: _Point, d: Vector, length: float) -> _Point | None:
        """Return a point along d that meets the weak Wolfe conditions, or None where rounding hides them."""
        slope = float(np.vdot(start.gradient, d))
        low, high = 0.0, float("inf")
        best: _Point | None = None
        for _ in range(_SEARCH_PASSES):
            point = self.evaluate(start.at + length * d)
            rise = point.value - start.value
            if rise > _ARMIJO * length * slope:
                high = length
                # The parabola through value and slope at 0 and the value here, kept off both ends.
                least = -0.5 * slope * length**2 / (rise - slope * length)
                length = float(np.clip(least, low + 0.1 * (high - low), low + 0.7 * (high - low)))
                continue
            if best is None or point.value < best.value:
                best = point
            if float(np.vdot(point.gradient, d)) >= _CURVATURE * slope:
                return point
            low = length
            length = 3.0 * low if high == float("inf") else 0.5 * (low + high)
        return best


def minimize(
    objective: Objective,
    metric: Metric,
    *,
    n_features: int,
    l2: float,
    max_passes: int,
    tolerance: float,
    on_pass: Callable[[PassRecord], None],
) -> Solution:
    """Minimise the objective from W = 0.

    Parameters
    ----------
    objective : Objective
    metric : Metric
        The preconditioner, whatever metric the penalty is in.
    n_features : int
    l2, tolerance : float
    max_passes : int
    on_pass : callable
        Called after every pass.

    Raises
    ------
    DataError
        The loss is not finite.

    Notes
    -----
    Besides the passes: 2 C D^2 flops an iteration for the preconditioner, and 16 (MEMORY + 3) C D bytes.
    """
    run = _Run(objective, metric, l2, max_passes, on_pass)
    start = np.zeros((len(objective.shares), n_features + 1))
    start[:, -1] = objective.start_bias
    point = run.evaluate(start)
    stopped = "max_passes"
    try:
        while True:
            d = run.direction(point.gradient)
            gap = -0.5 * float(np.vdot(point.gradient, d))
            run.passes[-1] = PassRecord(point.value, point.loss, gap, run.passes[-1].seconds)
            if gap <= tolerance * abs(point.value):
                stopped = "tolerance"
                break
            found = run.search(point, d, 1.0)
            if found is None:
                stopped = "rounding"
                break  # nothing along d is lower in float32
            run.remember(point, found)
            point = found
    except _PassesSpentError:
        pass
    return Solution(point.at[:, :-1], point.at[:, -1], tuple(run.passes), stopped)
