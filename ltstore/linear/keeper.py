"""Which point of a run becomes the model: the last one, or the best on a holdout."""

from __future__ import annotations

from dataclasses import replace

from ltstore.errors import ConfigError
from ltstore.linear.checkpoint import State, number, numbers
from ltstore.linear.holdout import Holdout, HoldoutScore
from ltstore.linear.minibatch import Minibatch
from ltstore.linear.problem import Problem
from ltstore.linear.solver import Lbfgs, Vector


class Keeper:
    """Called with a run at each point that it goes on from: judges the point, and keeps it if it is to be kept.

    Parameters
    ----------
    problem : Problem
    holdout : Holdout, optional

    Attributes
    ----------
    best : (point, number of its pass from 1, its score) or None
        What is kept; None before the first point.

    Raises
    ------
    ConfigError
        The settings keep the best point, and there is no holdout.
    """

    def __init__(self, problem: Problem, holdout: Holdout | None) -> None:
        self._keep_best = problem.settings.keep == "best"
        if self._keep_best and holdout is None:
            raise ConfigError("keep 'best' is the best point on a holdout: give one, or keep 'last'")
        self._problem, self._holdout = problem, holdout
        self.best: tuple[Vector, int, HoldoutScore | None] | None = None

    def __call__(self, run: Lbfgs | Minibatch) -> None:
        score = None
        if self._holdout is not None:
            score = self._holdout.score(*self._problem.finish(run.at))
            run.passes[-1] = replace(
                run.passes[-1], holdout_accuracy=score.accuracy, holdout_balanced=score.balanced
            )
        before = self.best[2] if self._keep_best and self.best is not None else None
        if score is None or before is None or score.balanced >= before.balanced:
            self.best = (run.at, len(run.passes), score)

    def state(self, run: Lbfgs | Minibatch) -> State:
        """Return the state of the run with what is kept of it."""
        assert self.best is not None
        arrays, facts = run.state()
        point, kept_pass, score = self.best
        return State(arrays | {"best": point}, facts | {"best_pass": kept_pass, "best_score": score})

    def shapes(self, run: Lbfgs | Minibatch) -> list[tuple[str, tuple[int, ...]]]:
        """Return what the arrays of a state must be."""
        return [*run.shapes(), ("best", run.at.shape)]

    def restore(self, run: Lbfgs | Minibatch, state: State) -> None:
        """Let the run go on from a state of it; ModelFormatError where it is none."""
        run.restore(state)
        score = state.facts.get("best_score")
        best_score = None if score is None else HoldoutScore(*numbers(state.facts, "best_score", 2))
        self.best = (state.arrays["best"], int(number(state.facts, "best_pass")), best_score)
