"""A deterministic solver that sees the data only through whole passes: preconditioned L-BFGS.

The inverse Hessian starts from what the class moments say, not from the identity: at W = 0 and the prior the Hessian
block of class c is close to q_c (1 - q_c) S + l2 S with S the within-class covariance, so its inverse is one matrix for
all classes and one number per class. The matrix stays a good one; the number does not, as rows that are classified
well count less and less, and so each step moves it toward what the gradients of the class have shown.

Stopping: with d = -H g the L-BFGS direction, -g'd / 2 is the decrease that the quadratic model promises, an
estimate of f - f*. The solver stops when it is at most `tolerance` times f.

A run asks for evaluations instead of making them, so that several runs share the passes over the rows (`minimize`), and
where it stands between two passes is a plain state that can be put away and taken up again: the iterate it searches
from, with the gradients found since, which lead the search to the same place without a pass.

References
----------
Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 (two-loop recursion) and 3.5 (Wolfe
conditions); Lewis & Overton 2013, "Nonsmooth optimization via quasi-Newton methods", for the bracketing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ltstore.errors import ModelFormatError
from ltstore.linear.checkpoint import State, number, numbers, records
from ltstore.linear.objective import Evaluation, Objective, Point, evaluate_together
from ltstore.linear.progress import PassRecord
from ltstore.types import DoubleArray, FloatArray

MEMORY = 10
LEARNT = 0.5
"""How far a step moves the curvature of a class toward the one it has shown, in logarithms."""
_MOST_CHANGE = 20.0
"""By which factor a curvature may leave the range of those of the start."""
FIRST_LENGTH = 0.1
"""Of the first step: a whole one overshoots, and the pair that it leaves misleads the next ten (docs/kernels.md)."""
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_PASSES = 12  # of one line search; a convex smooth function rarely needs a third

Vector = DoubleArray  # (C, D + 1): weight beside bias
Evaluate = Callable[[Sequence[Objective], Sequence[Point]], list[Evaluation]]


class Preconditioner(NamedTuple):
    """The inverse Hessian that L-BFGS updates: class c of the weight by inverse / weight_curvature[c].

    Attributes
    ----------
    inverse : (D, D) float32
        K.
    weight_curvature : (C, 1) float64
    bias_curvature : (C,) float64
    """

    inverse: FloatArray
    weight_curvature: DoubleArray
    bias_curvature: DoubleArray

    def __call__(self, gradient: Vector) -> Vector:
        """Return the inverse Hessian times the gradient."""
        out = np.empty_like(gradient)
        scaled = (gradient[:, :-1] / self.weight_curvature).astype(np.float32)
        out[:, :-1] = scaled @ self.inverse
        out[:, -1] = gradient[:, -1] / self.bias_curvature
        return out

    def shown_by(self, step: Vector, change: Vector, turned: Vector) -> DoubleArray:
        """Return (C, 1) the curvature of each class along a step, y'Ky / s'y, its own where that is not positive.

        y is the change of the gradient, and `turned` what this preconditioner makes of it.
        """
        along = _by_class(step, change)
        across = _by_class(change, turned) * self.weight_curvature
        convex = (along > 0) & (across > 0)
        shown: DoubleArray = np.where(convex, across / np.where(convex, along, 1.0), self.weight_curvature)
        return shown


def _by_class(a: Vector, b: Vector) -> DoubleArray:
    """Return (C, 1) the inner products of the weights of each class."""
    products: DoubleArray = np.vecdot(a[:, :-1], b[:, :-1])
    return products[:, None]


@dataclass(frozen=True)
class Iterate:
    """A point with what the objective was there."""

    at: Vector
    value: float
    loss: float
    gradient: Vector


class Pair(NamedTuple):
    """A step, the change of the gradient along it, and 1 / their product."""

    step: Vector
    change: Vector
    rho: float


class _PassesSpentError(Exception):
    """max_passes is reached inside a line search."""


class Lbfgs:
    """One minimisation; `run` yields points and is sent their evaluations.

    Parameters
    ----------
    start : (C, D + 1) float64
    preconditioner : Preconditioner
    n_rows : int
        Of a pass, for the records.
    max_passes : int
    tolerance : float
    on_kept : callable
        Called with the run at every iterate it goes on from, the start included, before the decision to stop.

    Attributes
    ----------
    iterate : Iterate or None
        Where it stands; None before the first pass.
    pairs : deque of Pair
    scale : float
    passes : list of PassRecord
        Those of kept iterates have a gap.

    Notes
    -----
    Besides the passes: 4 C D^2 flops an iteration for the preconditioner, and 16 (MEMORY + 3) C D bytes, with 8 C D
    for each pass of a line search.
    """

    def __init__(
        self,
        start: Vector,
        preconditioner: Preconditioner,
        *,
        n_rows: int,
        max_passes: int,
        tolerance: float,
        on_kept: Callable[[Lbfgs], None],
    ) -> None:
        self._start = start
        self._precondition = preconditioner
        curvature = preconditioner.weight_curvature
        self._bounds = curvature.min() / _MOST_CHANGE, curvature.max() * _MOST_CHANGE
        self._n_rows = n_rows
        self._max_passes = max_passes
        self._tolerance = tolerance
        self._on_kept = on_kept
        self.iterate: Iterate | None = None
        self.pairs: deque[Pair] = deque(maxlen=MEMORY)
        self.scale = 1.0
        self.passes: list[PassRecord] = []
        self._since: list[Vector] = []  # gradients of the passes since the iterate
        self._known: deque[tuple[Vector, PassRecord]] = deque()  # passes that need not be made again

    @property
    def at(self) -> Vector:
        """Where it stands."""
        return self._start if self.iterate is None else self.iterate.at

    @property
    def curvature(self) -> DoubleArray:
        """(C, 1) the curvature of each class's weight, as learnt so far."""
        return self._precondition.weight_curvature

    def _learn(self, curvature: DoubleArray) -> None:
        self._precondition = self._precondition._replace(weight_curvature=curvature)

    def state(self) -> State:
        """Return what to go on from, between passes."""
        assert self.iterate is not None
        any_of = (-1, *self.iterate.at.shape)
        arrays = {
            "at": self.iterate.at,
            "gradient": self.iterate.gradient,
            "steps": np.array([pair.step for pair in self.pairs]).reshape(any_of),
            "changes": np.array([pair.change for pair in self.pairs]).reshape(any_of),
            "since": np.array(self._since).reshape(any_of),
            "curvature": self.curvature,
        }
        facts = {
            "value": self.iterate.value,
            "loss": self.iterate.loss,
            "scale": self.scale,
            "rhos": [pair.rho for pair in self.pairs],
            "passes": [done.to_json() for done in self.passes],
        }
        return State(arrays, facts)

    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return what the arrays of a state must be; -1 is any length."""
        one = self._start.shape
        several = [(name, (-1, *one)) for name in ("steps", "changes", "since")]
        return [("at", one), ("gradient", one), *several, ("curvature", self.curvature.shape)]

    def restore(self, state: State) -> None:
        """Go on from a state of the same run; ModelFormatError where it is none."""
        arrays, facts = state
        n_pairs = len(arrays["steps"])
        if n_pairs > MEMORY or len(arrays["changes"]) != n_pairs:
            raise ModelFormatError(
                f"a checkpoint holds at most {MEMORY} steps and as many changes, found {n_pairs}"
            )
        rhos = numbers(facts, "rhos", n_pairs)
        self.pairs.extend(
            Pair(step.copy(), change.copy(), rho)
            for step, change, rho in zip(arrays["steps"], arrays["changes"], rhos, strict=True)
        )
        self._learn(arrays["curvature"])
        self.scale = number(facts, "scale")
        passes, since = records(state), arrays["since"]
        if len(since) >= len(passes):
            raise ModelFormatError(
                f"a checkpoint of {len(passes)} passes cannot have {len(since)} since a point"
            )
        self.passes = passes[: len(passes) - len(since)]
        self._known.extend(zip(since, passes[len(self.passes) :], strict=True))
        self.iterate = Iterate(arrays["at"], number(facts, "value"), number(facts, "loss"), arrays["gradient"])

    def run(self) -> Generator[Vector, Evaluation, str]:
        """Yield (C, D + 1) points, be sent their evaluations; return why it stopped.

        "tolerance" (the stopping rule was met), "max_passes", or "rounding" (no further decrease in float32).
        """
        if self.iterate is None:
            self.iterate = yield from self._evaluate(self._start)
        try:
            while True:
                d = self._direction(self.iterate.gradient)
                gap = -0.5 * float(np.vdot(self.iterate.gradient, d))
                self.passes[-1] = replace(self.passes[-1], gap=gap)
                self._since = []
                self._on_kept(self)
                if gap <= self._tolerance * abs(self.iterate.value):
                    return "tolerance"
                length = 1.0 if self.pairs else FIRST_LENGTH
                found = yield from self._search(self.iterate, d, length)
                if found is None:
                    return "rounding"  # nothing along d is lower in float32
                self._remember(self.iterate, found)
                self.iterate = found
        except _PassesSpentError:
            return "max_passes"

    def _evaluate(self, at: Vector) -> Generator[Vector, Evaluation, Iterate]:
        if len(self.passes) >= self._max_passes:
            raise _PassesSpentError
        if self._known:
            gradient, done = self._known.popleft()
        else:
            found = yield at
            gradient = np.concatenate([found.grad_weight, found.grad_bias[:, None]], axis=1)
            done = PassRecord.of(found, self._n_rows)
        self.passes.append(done)
        self._since.append(gradient)
        return Iterate(at, done.value, done.loss, gradient)

    def _direction(self, gradient: Vector) -> Vector:
        """Return -H g by the two-loop recursion."""
        q = gradient.copy()
        coefficients = []
        for step, change, rho in reversed(self.pairs):
            a = rho * float(np.vdot(step, q))
            q -= a * change
            coefficients.append(a)
        d = self.scale * self._precondition(q)
        for (step, change, rho), a in zip(self.pairs, reversed(coefficients), strict=True):
            d += (a - rho * float(np.vdot(change, d))) * step
        return -d

    def _remember(self, old: Iterate, new: Iterate) -> None:
        step, change = new.at - old.at, new.gradient - old.gradient
        product = float(np.vdot(step, change))
        if product <= 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            return  # below float32 noise: the pair would make H indefinite
        self.pairs.append(Pair(step, change, 1.0 / product))
        turned = self._precondition(change)
        shown = np.clip(self._precondition.shown_by(step, change, turned), *self._bounds)
        learnt = self.curvature ** (1 - LEARNT) * shown**LEARNT
        turned[:, :-1] *= self.curvature / learnt
        self._learn(learnt)
        self.scale = product / float(np.vdot(change, turned))

    def _search(
        self, start: Iterate, d: Vector, length: float
    ) -> Generator[Vector, Evaluation, Iterate | None]:
        """Return a point along d that meets the weak Wolfe conditions, or None where rounding hides them."""
        slope = float(np.vdot(start.gradient, d))
        low, high = 0.0, float("inf")
        best: Iterate | None = None
        for _ in range(_SEARCH_PASSES):
            point = yield from self._evaluate(start.at + length * d)
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
    objectives: Sequence[Objective],
    runs: Sequence[Lbfgs],
    on_pass: Callable[[Sequence[int]], None],
    evaluate: Evaluate = evaluate_together,
) -> list[str]:
    """Carry runs to their ends, each on its objective, in lock-step: every pass serves all that still run.

    Parameters
    ----------
    objectives, runs : sequences of one length
    on_pass : callable
        Called after every pass with the numbers of the runs that it served.
    evaluate : callable
        Makes a pass: `evaluate_together`, or what gives the same by other means (`ltstore.linear.shared_passes`).

    Returns
    -------
    list of str
        Why each stopped.

    Raises
    ------
    DataError
        A loss is not finite.
    """
    stopped = [""] * len(runs)
    generators = [run.run() for run in runs]
    wanted: dict[int, Vector] = {}

    def advance(which: int, found: Evaluation | None) -> None:
        wanted.pop(which, None)
        try:
            wanted[which] = next(generators[which]) if found is None else generators[which].send(found)
        except StopIteration as end:
            stopped[which] = end.value

    for which in range(len(runs)):
        advance(which, None)
    while wanted:
        served = sorted(wanted)
        points = [(wanted[which][:, :-1], wanted[which][:, -1]) for which in served]
        found = evaluate([objectives[which] for which in served], points)
        for which, one in zip(served, found, strict=True):
            advance(which, one)
        on_pass(served)
    return stopped
