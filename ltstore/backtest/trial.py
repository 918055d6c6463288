"""Train every candidate on every trial, and judge it on the rows that were hidden."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ltstore.backtest.candidates import Candidate, Member, default_candidates
from ltstore.backtest.card import REFERENCE, Card, judge, widest
from ltstore.backtest.plan import ROWS_PER_CLASS, Trial, large_classes, plan_trials
from ltstore.errors import ConfigError
from ltstore.linear import Origin, TrainSettings, train_closed_form, train_linear
from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.linear.problem import lean
from ltstore.rows import ArrayRows, class_counts, copy_rows_at
from ltstore.sampling import balance_targets, make_sampler
from ltstore.stats import ClassMoments, class_moments
from ltstore.stream import TrainingStream
from ltstore.types import DoubleArray, FloatArray, IntArray, Progress, Rows, no_progress

TOLERANCE = 1e-2
"""Of the solver in a trial: candidates are told apart long before the optimum is exact."""
PROMISING = 2.0
"""Standard errors behind the best of the first pair of trials that still let a candidate into the others."""
BLEND_ROWS = 2048

HeadArrays = tuple[DoubleArray, DoubleArray]


def blend_heads(heads: Sequence[HeadArrays], X: FloatArray) -> HeadArrays:
    """Return the mean of heads, each first brought to the spread that the logits of the first have.

    ``mean_k (W_k / s_k, b_k / s_k) * s_1`` with s_k the standard deviation of head k's logits over classes, averaged
    over rows. A class that a head leaves empty is empty. The first head's spread, because a lean adds log shares: they
    mean what they say on the logits of a softmax head that was trained, and nothing on those of a closed form that
    separates its training rows, which may be a hundred times as large.

    Parameters
    ----------
    heads : sequence of ((C, D), (C,)) float64
    X : (n, D) float32
        Rows that the spread is measured on.
    """
    if len(heads) == 1:
        return heads[0]
    empty = np.any([bias == EMPTY_CLASS_BIAS for _, bias in heads], axis=0)
    spreads: list[float] = []
    for weight, bias in heads:
        logits = X @ weight[~empty].T.astype(np.float32) + bias[~empty]
        spreads.append(max(float(logits.std(axis=1).mean()), float(np.finfo(np.float32).tiny)))
    common = spreads[0]
    weight = np.mean([w * (common / s) for (w, _), s in zip(heads, spreads, strict=True)], axis=0)
    bias = np.mean([b * (common / s) for (_, b), s in zip(heads, spreads, strict=True)], axis=0)
    return weight, np.where(empty, EMPTY_CLASS_BIAS, bias)


def run_backtest(
    rows: Rows,
    *,
    candidates: Sequence[Candidate] | None = None,
    n_trials: int = 4,
    seed: int = 0,
    rows_per_class: int = ROWS_PER_CLASS,
    progress: Progress = no_progress,
) -> Card:
    """Compare candidates on large classes that are cut down to the sizes of small ones.

    Parameters
    ----------
    rows : Rows
        The rows to train on. Nothing else is read.
    candidates : sequence of Candidate, optional
        Default: `default_candidates`.
    n_trials : int
        Even. Twice as many make the intervals about 0.7 times as wide.
    seed : int
        Of the trials and of the synthetic rows.
    rows_per_class : int
        Most rows of a class in a trial.
    progress : Progress
        Called after each member of each trial with 1 and {"train": seconds}.

    Returns
    -------
    Card

    Raises
    ------
    DataError
        There is no tail to choose for, or too few large classes to learn it from.

    Notes
    -----
    Cost: trials times members (12 by default, fewer after the first pair) times one training on at most C x
    `rows_per_class` rows, to one percent of the optimum. Memory: the rows of one trial in float32, twice with
    synthetic rows.
    """
    began = time.perf_counter()
    chosen = tuple(candidates) if candidates is not None else default_candidates()
    if not chosen:
        raise ConfigError("a backtest needs candidates to choose from")
    counts = class_counts(rows)
    trials = plan_trials(rows.labels, len(counts), n_trials=n_trials, seed=seed, rows_per_class=rows_per_class)
    n_head = int(np.count_nonzero(large_classes(counts)))
    facts = {"n_head": n_head, "n_tail": int(np.count_nonzero(counts)) - n_head}
    accuracy = np.full((len(chosen), len(trials), len(counts)), np.nan)
    running = np.ones(len(chosen), bool)
    for number, trial in enumerate(trials):
        some = [candidate for candidate, runs in zip(chosen, running, strict=True) if runs]
        accuracy[running, number] = _judge(rows, trial, some, seed + number, progress)
        if number == 1 and len(trials) > 2:
            running = _promising(chosen, accuracy[:, :2], trials[:2], facts)
    return judge(
        chosen,
        accuracy,
        trials,
        **facts,
        rows_digest=rows.digest,
        seed=seed,
        rows_per_class=rows_per_class,
        seconds=time.perf_counter() - began,
    )


def _promising(
    candidates: Sequence[Candidate], accuracy: DoubleArray, trials: Sequence[Trial], facts: dict[str, int]
) -> NDArray[np.bool_]:
    """Return which candidates go on: those whose base is, at its best lean, near the best of the first pair.

    The reference, the first and the widest candidate always do.
    """
    first = judge(
        candidates, accuracy, trials, **facts, rows_digest="", seed=0, rows_per_class=0, seconds=0.0
    ).results
    near = {result.candidate.base for result in first if result.behind <= PROMISING * result.behind_error}
    near |= {REFERENCE, candidates[0].base, widest(candidates).base}
    return np.array([candidate.base in near for candidate in candidates])


def _judge(
    rows: Rows, trial: Trial, candidates: Sequence[Candidate], seed: int, progress: Progress
) -> DoubleArray:
    """Return (K, C) accuracy of every candidate, NaN where a class is not judged."""
    train = copy_rows_at(rows, trial.train)
    X, labels = rows.take(trial.judge), rows.labels[trial.judge]
    moments = class_moments(train)
    heads: dict[str, HeadArrays] = {}
    for member in {member.key: member for each in candidates for member in each.members}.values():
        began = time.perf_counter()
        heads[member.key] = _train(member, train, moments, seed)
        progress(1, {"train": time.perf_counter() - began})
    some = train.take(np.unique(np.linspace(0, train.n_samples - 1, BLEND_ROWS).astype(np.int64)))
    logits: dict[str, DoubleArray] = {}
    found = []
    for candidate in candidates:
        if candidate.base not in logits:
            weight, bias = blend_heads([heads[member.key] for member in candidate.members], some)
            logits[candidate.base] = X @ weight.T + bias
        predicted = (logits[candidate.base] - lean(moments.counts, candidate.posthoc_tau)).argmax(axis=1)
        found.append(_by_class(predicted == labels, labels, len(moments.counts)))
    return np.stack(found)


def _by_class(right: IntArray, labels: IntArray, n_classes: int) -> DoubleArray:
    n = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=right, minlength=n_classes)
    accuracy: DoubleArray = np.divide(sums, n, out=np.full(n_classes, np.nan), where=n > 0)
    return accuracy


def _train(member: Member, rows: ArrayRows, moments: ClassMoments, seed: int) -> HeadArrays:
    if member.head != "linear":
        found = train_closed_form(
            member.head, moments, class_names=rows.class_names, origin=Origin.of(rows), rows=rows
        )
    else:
        sampler = targets = None
        if member.sampler != "none":
            sampler = make_sampler(member.sampler, **member.sampler_settings).fit(rows, moments)
            targets = balance_targets(moments.counts, max_ratio=member.max_ratio)
        stream = TrainingStream(rows, sampler=sampler, targets=targets, seed=seed)
        settings = TrainSettings(loss=member.loss, implicit=member.implicit, tolerance=TOLERANCE, seed=seed)
        found = train_linear(stream, settings, moments)
    return found.model.arrays
