"""Train a head, a grid of them, or one that was chosen again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ltstore.engine import Engine
from ltstore.kernels.peak import PeakRate
from ltstore.linear.checkpoint import Checkpointing
from ltstore.linear.grid import check_together
from ltstore.linear.origin import Origin
from ltstore.linear.progress import OnPass, no_record
from ltstore.linear.result import TrainResult
from ltstore.linear.settings import TrainSettings
from ltstore.linear.together import train_together
from ltstore.stream import TrainingStream
from ltstore.types import Moments, Progress, Rows, no_progress

_log = logging.getLogger(__name__)


def train_linear(
    stream: TrainingStream,
    settings: TrainSettings,
    moments: Moments,
    *,
    origin: Origin | None = None,
    holdout: Rows | None = None,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
    peak: PeakRate | None = None,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> TrainResult:
    """Train a linear head on a stream.

    Parameters
    ----------
    stream : TrainingStream
    settings : TrainSettings
    moments : Moments
        Of the stream's real rows: they precondition the solver and set the scale of the penalty.
    origin : Origin, optional
        What the model says of the rows; default: what they say of themselves.
    holdout : Rows, optional
        Rows that are not among the stream's: accuracy on them is in the history, and decides what `settings.keep` =
        "best" keeps.
    checkpoint : Checkpointing, optional
        Put the run away now and then; a run of the same rows and settings that was is taken up and ends in the same
        model, bit for bit. It stays when training ends.
    engine : Engine, optional
        Workers that share the passes: the result is that without them within rounding, and for one number of workers
        always the same. Only for solver "lbfgs".
    peak : callable, optional
        Measures what the flops a second of the passes are a share of: `ltstore.kernels.peak.product_rate`, called once
        with the shape of the products of a pass. Left out it is not measured, nor is it for workers elsewhere.
    progress : Progress
        Called after every pass with 1 (a pass) and {"train": seconds, "wait for rows": seconds}.
    on_pass : callable
        Called after every pass with its PassRecord.

    Returns
    -------
    TrainResult

    Raises
    ------
    DataError, EncoderMismatchError
        Moments, encoder or holdout do not fit the stream, or the loss is not finite.
    PlanMismatchError, ModelFormatError, StoreExistsError, StoreWriteError
        The checkpoint is of another training, damaged, no checkpoint, or cannot be written.
    BackendUnavailableError, ConfigError
        The backend cannot run here, or there is none of that name; settings that this stream, or workers, cannot be
        trained with.
    WorkerLostError
        A worker was lost more often than it is replaced.
    """
    (result,) = train_together(
        stream,
        [settings],
        moments,
        origin=origin,
        holdout=holdout,
        checkpoint=checkpoint,
        engine=engine,
        peak=peak,
        progress=progress,
        on_pass=on_pass,
    )
    _warn(result, settings)
    return result


def train_grid(
    stream: TrainingStream,
    grid: Sequence[TrainSettings],
    moments: Moments,
    *,
    origin: Origin | None = None,
    holdout: Rows | None = None,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
    peak: PeakRate | None = None,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> list[TrainResult]:
    """Train one head for each of the settings, all in the same passes over the rows.

    Each result is that of `train_linear` alone within rounding: every head has its own solver and line search, a pass
    evaluates all heads at their points in one pair of stacked matrix products, and a head that is done drops out.

    Parameters
    ----------
    grid : sequence of K TrainSettings
        They may differ in all but solver ("lbfgs"), device, precision, backend, seed and keep; see `expand_grid`.
    stream, moments, origin, holdout, checkpoint, engine, peak, progress
        As in `train_linear`.
    on_pass : callable
        Called after every pass with its PassRecord for the first head that it served.

    Returns
    -------
    list of TrainResult
        In the order of `grid`; the seconds of each are those of all.

    Raises
    ------
    ConfigError
        Settings that cannot share passes.
    DataError, EncoderMismatchError, BackendUnavailableError, WorkerLostError
    PlanMismatchError, ModelFormatError, StoreExistsError, StoreWriteError
        As in `train_linear`.

    Notes
    -----
    Memory: 16 (MEMORY + 3) K C D bytes for the solvers, up to three times as much while a checkpoint is written, which
    holds as many. Time: the products of K heads, the rows read once.
    """
    check_together(grid)
    results = train_together(
        stream,
        grid,
        moments,
        origin=origin,
        holdout=holdout,
        checkpoint=checkpoint,
        engine=engine,
        peak=peak,
        progress=progress,
        on_pass=on_pass,
    )
    for result, settings in zip(results, grid, strict=True):
        _warn(result, settings)
    return results


def refit_linear(
    stream: TrainingStream,
    settings: TrainSettings,
    moments: Moments,
    chosen: TrainResult,
    *,
    origin: Origin | None = None,
    engine: Engine | None = None,
    peak: PeakRate | None = None,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> TrainResult:
    """Train a head that a holdout chose again, from where it is, on rows with the holdout among them.

    Where `settings.keep` is "best" the holdout also chose when to stop: there are at most as many passes as led to the
    head.

    Parameters
    ----------
    stream : TrainingStream
        Of all rows.
    settings : TrainSettings
        Those that the head was trained with.
    moments : Moments
        Of all rows.
    chosen : TrainResult
    origin, engine, peak, progress, on_pass
        As in `train_linear`.

    Returns
    -------
    TrainResult

    Raises
    ------
    DataError, EncoderMismatchError, BackendUnavailableError, ConfigError, WorkerLostError
        As in `train_linear`.

    References
    ----------
    Goodfellow, Bengio & Courville 2016, "Deep Learning", section 7.8: what to do with the held-out rows after early
    stopping.
    """
    if settings.keep == "best":
        most = chosen.kept_pass
        if settings.solver == "lbfgs":
            settings = replace(settings, keep="last", max_passes=most)
        else:
            settings = replace(settings, keep="last", minibatch=replace(settings.minibatch, epochs=most))
    (result,) = train_together(
        stream,
        [settings],
        moments,
        start=chosen.model,
        origin=origin,
        engine=engine,
        peak=peak,
        progress=progress,
        on_pass=on_pass,
    )
    return result


def _warn(result: TrainResult, settings: TrainSettings) -> None:
    if not result.converged:
        advice = "raise max_passes or l2" if result.stopped == "max_passes" else "float32 gives no more"
        _log.warning(
            "training stopped after %d passes before tolerance %g was reached: %s",
            result.n_passes,
            settings.tolerance,
            advice,
        )
