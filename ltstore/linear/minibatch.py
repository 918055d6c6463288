"""Stochastic gradient descent and Adam on minibatches, for those who expect them.

The objective is that of the whole passes: the gradient of a batch is that of its rows over the number of its rows
times the mean weight of a row, plus the gradient of the penalty. Steps are made in parameters in which rows have
variance 1 a feature within their class (for the cosine head, in which a direction has entries of size 1), so that a
learning rate does not depend on the scale of the rows. Batches come in an order that is a pure function of seed and
epoch.

References
----------
Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", section 2, the classical
momentum; Kingma & Ba 2015, "Adam: a method for stochastic optimization"; Loshchilov & Hutter 2017, "SGDR", equation 5
without restarts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from ltstore.linear.checkpoint import State, records
from ltstore.linear.objective import Objective, PassSums, timed
from ltstore.linear.progress import NAN, PassRecord
from ltstore.linear.settings import MinibatchSettings
from ltstore.linear.solver import Vector
from ltstore.stream import iter_shuffled

_SECOND, _EPSILON = 0.999, 1e-8  # of Adam


class Minibatch:
    """One run of epochs.

    Parameters
    ----------
    objective : Objective
    start : (C, D + 1) float64
    solver : {"sgd", "adam"}
    settings : MinibatchSettings
    row_scale : float
        Root of the mean variance of a feature within a class.
    seed : int
    on_kept : callable
        Called with the run after every epoch, before `on_pass`.
    on_pass : callable
        Called after every epoch.

    Attributes
    ----------
    at : (C, D + 1) float64
        Where it stands.
    first, second : (C, D + 1) float64
        Running mean of the gradients (sgd: their momentum), and of their squares (adam).
    passes : list of PassRecord
        One an epoch.
    """

    def __init__(
        self,
        objective: Objective,
        start: Vector,
        *,
        solver: str,
        settings: MinibatchSettings,
        row_scale: float,
        seed: int,
        on_kept: Callable[[Minibatch], None],
        on_pass: Callable[[], None],
    ) -> None:
        self._objective = objective
        self._adam = solver == "adam"
        self._settings = settings
        self._rate = settings.resolved_rate(solver)
        self._seed = seed
        self._on_kept = on_kept
        self._on_pass = on_pass
        scale = row_scale if objective.form.has_bias else math.sqrt(start.shape[1] - 1)
        self._scale = np.append(
            np.full(start.shape[1] - 1, scale), 1.0
        )  # of parameters against those stepped in
        self.at = start
        self.first = np.zeros_like(start)
        self.second = np.zeros_like(start) if self._adam else np.zeros((0, start.shape[1]))
        self.passes: list[PassRecord] = []

    def state(self) -> State:
        """Return what to go on from, between epochs."""
        arrays = {"at": self.at, "first": self.first, "second": self.second}
        return State(arrays, {"passes": [done.to_json() for done in self.passes]})

    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return what the arrays of a state must be."""
        return [("at", self.at.shape), ("first", self.first.shape), ("second", self.second.shape)]

    def restore(self, state: State) -> None:
        """Go on from a state of the same run; ModelFormatError where it is none."""
        self.at, self.first, self.second = (state.arrays[name] for name in ("at", "first", "second"))
        self.passes = records(state)

    def run(self) -> str:
        """Make the epochs that are left and return "epochs"."""
        while len(self.passes) < self._settings.epochs:
            self.passes.append(self._epoch(len(self.passes)))
            self._on_kept(self)
            self._on_pass()
        return "epochs"

    def _epoch(self, epoch: int) -> PassRecord:
        stream, size = self._objective.stream, self._settings.batch_size
        mean_weight, started, waited = self._objective.mean_weight, time.perf_counter(), 0.0
        value = loss = 0.0
        step = epoch * -(-stream.n_samples // size)
        for (X, labels, weights), seconds in timed(iter_shuffled(stream, size, seed=self._seed, epoch=epoch)):
            waited += seconds
            sums = PassSums([self._objective], [(self.at[:, :-1], self.at[:, -1])])
            sums.add(X, labels, weights)
            (found,) = sums.evaluations(started=started, total=mean_weight * len(labels))
            step += 1
            self._step(np.concatenate([found.grad_weight, found.grad_bias[:, None]], axis=1), step)
            value += found.value * len(labels)
            loss += found.loss * len(labels)
        seconds = time.perf_counter() - started
        n = stream.n_samples
        return PassRecord(value / n, loss / n, NAN, seconds, waited, n / max(seconds, 1e-9))

    def _step(self, gradient: Vector, step: int) -> None:
        """Move along the gradient: parameters p = u / scale, steps in u."""
        gradient = gradient / self._scale
        rate, decay = self._rate_at(step - 1), self._settings.momentum
        if self._adam:
            self.first = decay * self.first + (1.0 - decay) * gradient
            self.second = _SECOND * self.second + (1.0 - _SECOND) * gradient**2
            mean = self.first / (1.0 - decay**step)
            square = self.second / (1.0 - _SECOND**step)
            move = rate * mean / (np.sqrt(square) + _EPSILON)
        else:
            self.first = decay * self.first + gradient
            move = rate * self.first
        self.at = self.at - move / self._scale

    def _rate_at(self, step: int) -> float:
        if self._settings.schedule == "constant":
            return self._rate
        n_steps = self._settings.epochs * -(-self._objective.stream.n_samples // self._settings.batch_size)
        return self._rate * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))
