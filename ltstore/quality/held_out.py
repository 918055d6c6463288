"""Measures against real rows that the sampler never saw: large classes cut down to small size, as in the backtest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ltstore.backtest import plan_trials
from ltstore.errors import ConfigError
from ltstore.quality.manifold import coverage, density, precision, recall
from ltstore.quality.spectrum import spectrum_overlap, subspace_capture, variance_ratio
from ltstore.quality.table import ClassTable
from ltstore.rows import ArrayRows, class_counts, copy_rows_at
from ltstore.types import FloatArray, Progress, Rows, Sampler, no_progress

K = 5
"""Nearest rows that the measures look at: what Naeem et al. 2020 use, and what 25 held-out rows of a class allow."""
DRAWS = 4
"""Sets of synthetic rows of a class whose measures are averaged."""


def measure_held_out(
    rows: Rows,
    fit: Callable[[ArrayRows], Sampler],
    *,
    k: int = K,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ClassTable:
    """Compare synthetic rows with hidden real ones, class by class.

    One pair of the backtest's trials (`ltstore.backtest.plan_trials`): every class of the larger half is cut down
    once, the sampler is fitted to what is left, and its rows are compared with the first half of the hidden ones.
    The second half takes their place for the reference, `ClassTable.real`: what a perfect sampler would get. Both
    are of one size.

    Parameters
    ----------
    rows : Rows
    fit : callable
        Makes a sampler and fits it to the rows it is given.
    k : int
        Of the balls, see `ltstore.quality.manifold`.
    seed : int
    progress : Progress
        Called after each trial with the synthetic rows drawn.

    Returns
    -------
    ClassTable
        "precision", "recall", "density", "coverage", "spectrum" (overlap), "subspace" (capture) and "variance" (ratio).
        Its counts are the rows that classes were cut to: small ones stand for "few". Cut classes with fewer than 2
        (k + 1) hidden rows are skipped and counted.

    Raises
    ------
    DataError
        There is no tail, or too few large classes (`ltstore.backtest.plan.large_classes`).
    ConfigError
        `k` is below 1.

    Notes
    -----
    At most 50 hidden rows a class: about 5 ms for each besides fitting. The classes that are really small have no
    rows to hide, and are not measured: large ones stand for them.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    measures: dict[str, Callable[[FloatArray, FloatArray], float]] = {
        "precision": partial(precision, k=k),
        "recall": partial(recall, k=k),
        "density": partial(density, k=k),
        "coverage": partial(coverage, k=k),
        "spectrum": spectrum_overlap,
        "subspace": subspace_capture,
        "variance": variance_ratio,
    }
    n_classes = len(class_counts(rows))
    counts, n_rows = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    values, real = ({name: np.full(n_classes, np.nan) for name in measures} for _ in range(2))
    n_skipped = 0
    for trial in plan_trials(rows.labels, n_classes, n_trials=2, seed=seed):
        train = copy_rows_at(rows, trial.train)
        sampler = fit(train)
        labels = rows.labels[trial.judge]
        drawn = 0
        for c in np.flatnonzero(trial.cut).tolist():
            hidden = trial.judge[labels == c]
            seen, others = hidden[0::2], hidden[1::2]
            if len(others) <= k:
                n_skipped += 1
                continue
            n = len(others)
            target, reference = rows.take(seen[:n]), rows.take(others)
            made = sampler.sample(c, 0, DRAWS * n, seed=seed).X
            counts[c], n_rows[c] = trial.shots[c], DRAWS * n
            for name, measure in measures.items():
                values[name][c] = _over_draws(measure, target, made, n)
                real[name][c] = measure(target, reference)
            drawn += DRAWS * n
        progress(drawn, {})
    return ClassTable(counts=counts, n_rows=n_rows, values=values, real=real, n_skipped=n_skipped)


def _over_draws(
    measure: Callable[[FloatArray, FloatArray], float], target: FloatArray, made: FloatArray, n: int
) -> float:
    return float(np.mean([measure(target, made[start : start + n]) for start in range(0, len(made), n)]))
