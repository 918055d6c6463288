"""Heads in training: their solvers carried to the end in shared passes, judged, put away, and made into models."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from ltstore.engine import Engine
from ltstore.kernels.peak import PeakRate
from ltstore.linear.checkpoint import Checkpoint, Checkpointing
from ltstore.linear.device import Placement, resolve_device, resolve_workers_device
from ltstore.linear.holdout import Holdout
from ltstore.linear.keeper import Keeper
from ltstore.linear.metric import within_class_metric
from ltstore.linear.minibatch import Minibatch
from ltstore.linear.model import LinearModel
from ltstore.linear.origin import Origin
from ltstore.linear.problem import Problem, check_encoder, identity_of
from ltstore.linear.progress import NAN, OnPass, PassRecord
from ltstore.linear.result import TrainResult
from ltstore.linear.settings import TrainSettings
from ltstore.linear.shared_passes import SharedPasses
from ltstore.linear.solver import Lbfgs, minimize
from ltstore.rows import BLOCK_ROWS
from ltstore.stream import TrainingStream
from ltstore.types import Moments, Progress, Rows

_log = logging.getLogger(__name__)


def train_together(
    stream: TrainingStream,
    grid: Sequence[TrainSettings],
    moments: Moments,
    *,
    origin: Origin | None,
    engine: Engine | None,
    peak: PeakRate | None,
    progress: Progress,
    on_pass: OnPass,
    holdout: Rows | None = None,
    checkpoint: Checkpointing | None = None,
    start: LinearModel | None = None,
) -> list[TrainResult]:
    """Train heads of one stream in the same passes; see `ltstore.linear.train_grid`.

    Parameters
    ----------
    grid : sequence of K TrainSettings
        One, or several of `check_together`.
    start : LinearModel, optional
        Where to begin, instead of where the settings say.
    """
    origin = Origin.of(stream.rows) if origin is None else origin
    check_encoder(stream, origin.encoder)
    if engine is None:
        finest = replace(grid[0], tolerance=min(settings.tolerance for settings in grid))
        placement = resolve_device(finest, stream, moments, len(grid))
    else:
        placement = resolve_workers_device(grid[0], engine)
    rate = NAN
    if peak is not None and (engine is None or (engine.shares_memory and not placement.on_gpu)):
        rate = _measured(peak, stream, grid, placement)
    began = time.perf_counter()
    metric = within_class_metric(moments)
    problems = [Problem(stream, settings, moments, metric, placement) for settings in grid]
    judge = None if holdout is None else Holdout(holdout, stream.rows)
    keepers = [Keeper(problem, judge) for problem in problems]
    saved = None
    if checkpoint is not None:
        identity = identity_of(problems) | {"holdout": None if holdout is None else holdout.digest}
        if engine is not None:  # the order of sums is theirs
            identity["workers"] = [engine.n_workers, engine.shares_memory]
        saved = Checkpoint(checkpoint, identity)

    flops = 4.0 * stream.n_real * stream.n_features * stream.n_classes

    def passed(served: Sequence[int] = (0,)) -> None:
        for which in served:
            last = runs[which].passes[-1]
            share = flops * len(served) / max(last.seconds, 1e-9) / rate * (last.rows_per_second > 0)
            runs[which].passes[-1] = replace(last, share_of_peak=share)
        done = runs[served[0]].passes
        if saved is not None and saved.due(len(done)):
            saved.save([keeper.state(run) for keeper, run in zip(keepers, runs, strict=True)])
        progress(1, done[-1].stages)
        on_pass(done[-1])

    runs = [_run(problem, keeper, passed, start) for problem, keeper in zip(problems, keepers, strict=True)]
    if saved is not None:
        states = saved.load([keeper.shapes(run) for keeper, run in zip(keepers, runs, strict=True)])
        for keeper, run, state in zip(keepers, runs, states or (), strict=False):
            keeper.restore(run, state)
        if states is not None:
            _log.info("training goes on after pass %d", saved.passes)
            progress(saved.passes, {})
    stops, workers = _finish(problems, runs, passed, engine, placement)
    seconds = time.perf_counter() - began
    return [
        _result(problem, run.passes, keeper, stopped, seconds, origin, workers, rate)
        for problem, run, keeper, stopped in zip(problems, runs, keepers, stops, strict=True)
    ]


def _measured(
    peak: PeakRate, stream: TrainingStream, grid: Sequence[TrainSettings], placement: Placement
) -> float:
    """Return the flops a second of a product that is made as those of the passes are."""
    n_rows = BLOCK_ROWS if grid[0].solver == "lbfgs" else grid[0].minibatch.batch_size
    return peak(
        min(n_rows, stream.n_samples),
        stream.n_features,
        stream.n_classes * len(grid),
        precision=placement.precision,
        device=placement.device,
    )


def _run(
    problem: Problem, keeper: Keeper, passed: Callable[[], None], start: LinearModel | None
) -> Lbfgs | Minibatch:
    """Return the solver of a problem at its start, or at a model."""
    settings = problem.settings
    first = problem.start() if start is None else problem.point_of(start)
    if settings.solver == "lbfgs":
        return Lbfgs(
            first,
            problem.preconditioner(),
            n_rows=problem.stream.n_samples,
            max_passes=settings.max_passes,
            tolerance=settings.tolerance,
            on_kept=keeper,
        )
    return Minibatch(
        problem.objective,
        first,
        solver=settings.solver,
        settings=settings.minibatch,
        row_scale=problem.metric.scale**0.5,
        seed=settings.seed,
        on_kept=keeper,
        on_pass=passed,
    )


def _finish(
    problems: Sequence[Problem],
    runs: Sequence[Lbfgs | Minibatch],
    passed: Callable[[Sequence[int]], None],
    engine: Engine | None,
    placement: Placement,
) -> tuple[list[str], dict[str, Any]]:
    """Carry the runs to their ends, by workers where there is an engine; return why each stopped, and their record."""
    if isinstance(runs[0], Minibatch):
        return [runs[0].run()], {}
    solvers = [run for run in runs if isinstance(run, Lbfgs)]
    objectives = [problem.objective for problem in problems]
    if engine is None:
        return minimize(objectives, solvers, passed), {}
    with closing(SharedPasses(engine, objectives, placement)) as passes:
        return minimize(objectives, solvers, passed, passes), passes.record()


def _result(
    problem: Problem,
    passes: list[PassRecord],
    keeper: Keeper,
    stopped: str,
    seconds: float,
    origin: Origin,
    workers: Mapping[str, Any],
    peak: float,
) -> TrainResult:
    """Return the model at the point that was kept, with the record of how it came about."""
    assert keeper.best is not None
    point, kept_pass, score = keeper.best
    stream = problem.stream
    resolved = {
        **problem.resolved,
        **workers,
        "n_passes": len(passes),
        "kept_pass": kept_pass,
        "stopped": stopped,
    }
    if score is not None:
        resolved["holdout"] = score._asdict()
    model = origin.model(
        *problem.finish(point),
        stream.class_names,
        stream.real_counts,
        settings=resolved,
        seed=problem.settings.seed,
    )
    spent = max(sum(done.seconds for done in passes), 1e-9)
    return TrainResult(
        model,
        tuple(passes),
        len(passes),
        seconds,
        stopped,
        sum(done.rows_per_second * done.seconds for done in passes) / spent,
        kept_pass,
        score,
        sum(done.data_seconds for done in passes) / spent,
        sum(done.share_of_peak * done.seconds for done in passes) / spent,
        peak,
    )
