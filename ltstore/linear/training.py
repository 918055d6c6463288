"""Train a head and put it into a model with the record of how it came about."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ltstore.engine import Engine
from ltstore.errors import ConfigError
from ltstore.linear.checkpoint import Checkpoint, Checkpointing, State, number, numbers
from ltstore.linear.closed_form import Head, calibrated, gda, nearest_class_mean, ridge
from ltstore.linear.device import resolve_device
from ltstore.linear.grid import check_together
from ltstore.linear.holdout import Holdout, HoldoutScore
from ltstore.linear.metric import within_class_metric
from ltstore.linear.minibatch import Minibatch
from ltstore.linear.model import LinearModel
from ltstore.linear.problem import Problem, check_encoder
from ltstore.linear.problem import lean as lean
from ltstore.linear.progress import PassRecord
from ltstore.linear.settings import TrainSettings
from ltstore.linear.shared_passes import WORKERS_PLACEMENT, SharedPasses, check_shareable
from ltstore.linear.solver import Lbfgs, Vector, minimize
from ltstore.provenance import record
from ltstore.stream import TrainingStream
from ltstore.types import EncoderIdentity, IntArray, Moments, Progress, Rows, no_progress

_log = logging.getLogger(__name__)

CLOSED_FORMS: dict[str, Callable[..., Head]] = {"ncm": nearest_class_mean, "gda": gda, "ridge": ridge}

OnPass = Callable[[PassRecord], None]


def no_record(done: PassRecord) -> None:
    """Ignore the record of a pass."""


@dataclass(frozen=True)
class TrainResult:
    """A model and how training went.

    Attributes
    ----------
    model : LinearModel
    history : tuple of PassRecord
        One per pass; empty for a closed form.
    n_passes : int
    seconds : float
        Of the solver, moments not included.
    stopped : str
        Why: "tolerance", "max_passes" (usable, the objective not at its minimum), "rounding" (no further
        decrease in float32), "epochs" (those asked for are made), or "closed form".
    rows_per_second : float
        Rows of all passes over the seconds; 0 for a closed form.
    kept_pass : int
        Which pass, from 1, the model is from; 0 for a closed form.
    holdout : HoldoutScore or None
        Of the model.
    data_share : float
        Share of the passes' seconds that was spent waiting for rows.
    """

    model: LinearModel
    history: tuple[PassRecord, ...]
    n_passes: int
    seconds: float
    stopped: str
    rows_per_second: float
    kept_pass: int = 0
    holdout: HoldoutScore | None = None
    data_share: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether the stopping rule was met, or none was needed."""
        return self.stopped in ("tolerance", "epochs", "closed form")


class _Keeper:
    """What happens at each point that a solver goes on from: judge it, remember the best, put the run away."""

    def __init__(
        self,
        problem: Problem,
        holdout: Rows | None,
        how: Checkpointing | None = None,
        engine: Engine | None = None,
    ) -> None:
        keep = problem.settings.keep
        if keep == "best" and holdout is None:
            raise ConfigError("keep 'best' is the best point on a holdout: give one, or keep 'last'")
        self._problem, self._keep = problem, keep
        self._holdout = None if holdout is None else Holdout(holdout, problem.stream.rows)
        self._checkpoint = None
        if how is not None:
            identity = problem.identity() | {"holdout": None if holdout is None else holdout.digest}
            if engine is not None:  # the order of sums is theirs
                identity["workers"] = [engine.n_workers, engine.shares_memory]
            self._checkpoint = Checkpoint(how, identity)
        self.best: tuple[Vector, int, HoldoutScore | None] | None = None

    def __call__(self, run: Lbfgs | Minibatch) -> None:
        score = None
        if self._holdout is not None:
            score = self._holdout.score(*self._problem.finish(run.at))
            run.passes[-1] = replace(
                run.passes[-1], holdout_accuracy=score.accuracy, holdout_balanced=score.balanced
            )
        before = self.best[2] if self._keep == "best" and self.best is not None else None
        if score is None or before is None or score.balanced >= before.balanced:
            self.best = (run.at, len(run.passes), score)
        if self._checkpoint is not None:
            self._checkpoint.save_if_due(self._with_best(run.state()))

    def _with_best(self, state: State) -> State:
        assert self.best is not None
        point, kept_pass, score = self.best
        return State(
            state.arrays | {"best": point}, state.facts | {"best_pass": kept_pass, "best_score": score}
        )

    def resume(self, run: Lbfgs | Minibatch) -> bool:
        """Let the run go on from its checkpoint; return whether there was one."""
        if self._checkpoint is None:
            return False
        state = self._checkpoint.load(*run.shapes(), ("best", run.at.shape))
        if state is None:
            return False
        run.restore(state)
        score = state.facts.get("best_score")
        best_score = None if score is None else HoldoutScore(*numbers(state.facts, "best_score", 2))
        self.best = (state.arrays["best"], int(number(state.facts, "best_pass")), best_score)
        return True


def train_linear(
    stream: TrainingStream,
    settings: TrainSettings,
    moments: Moments,
    *,
    encoder: EncoderIdentity,
    class_counts: IntArray | None = None,
    encoder_spec: str = "",
    normalized: bool = True,
    made_from: Mapping[str, Any] | None = None,
    holdout: Rows | None = None,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
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
    encoder : EncoderIdentity
        Of the rows.
    class_counts : (C,) int64, optional
        Kept in the model for many/medium/few; default: the stream's real rows.
    encoder_spec : str
        How to make the encoder again.
    normalized : bool
        Whether the stream's rows have unit norm.
    made_from : mapping, optional
        Names and digests, for the record.
    holdout : Rows, optional
        Rows that are not among the stream's: accuracy on them is in the history, and decides what `settings.keep` =
        "best" keeps.
    checkpoint : Checkpointing, optional
        Put the run away now and then; a run of the same rows and settings that was is taken up and ends in the same
        model, bit for bit. It stays when training ends.
    engine : Engine, optional
        Workers that share the passes: the result is that without them within rounding, and for one number of workers
        always the same. Only for solver "lbfgs".
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
    check_encoder(stream, encoder)
    if engine is not None:
        check_shareable(settings)
    started = time.perf_counter()
    placement = None if engine is None else WORKERS_PLACEMENT
    problem = Problem(stream, settings, moments, placement=placement)
    keeper = _Keeper(problem, holdout, checkpoint, engine)
    run: Lbfgs | Minibatch

    def passed(*_: object) -> None:
        progress(1, run.passes[-1].stages)
        on_pass(run.passes[-1])

    if settings.solver == "lbfgs":
        run = _lbfgs(problem, keeper)
    else:
        run = Minibatch(
            problem.objective,
            problem.start(),
            solver=settings.solver,
            settings=settings.minibatch,
            row_scale=problem.metric.scale**0.5,
            seed=settings.seed,
            on_kept=keeper,
            on_pass=passed,
        )
    if keeper.resume(run):
        _log.info("training goes on after pass %d", len(run.passes))
        progress(len(run.passes), {})
    workers: dict[str, Any] = {}
    if isinstance(run, Lbfgs):
        (stopped,), workers = _minimize([problem], [run], passed, engine)
    else:
        stopped = run.run()
    _warn(stopped, len(run.passes), settings)
    return _result(
        problem,
        run.passes,
        keeper,
        stopped,
        time.perf_counter() - started,
        encoder=encoder,
        encoder_spec=encoder_spec,
        normalized=normalized,
        class_counts=stream.real_counts if class_counts is None else class_counts,
        made_from=made_from or {},
        workers=workers,
    )


def train_grid(
    stream: TrainingStream,
    grid: Sequence[TrainSettings],
    moments: Moments,
    *,
    encoder: EncoderIdentity,
    class_counts: IntArray | None = None,
    encoder_spec: str = "",
    normalized: bool = True,
    made_from: Mapping[str, Any] | None = None,
    holdout: Rows | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> list[TrainResult]:
    """Train one head for each of the settings, all in the same passes over the rows.

    Each result is that of `train_linear` alone within rounding: every head has its own solver and line search, a pass
    evaluates all heads at their points in one pair of stacked matrix products, and a head that is done drops out.

    Parameters
    ----------
    grid : sequence of K TrainSettings
        They may differ in all but solver ("lbfgs"), device, precision, backend, seed and keep; see `expand_grid`.
    stream, moments, encoder, class_counts, encoder_spec, normalized, made_from, holdout, engine, progress
        As in `train_linear`.

    Returns
    -------
    list of TrainResult
        In the order of `grid`; the seconds of each are those of all.

    Raises
    ------
    ConfigError
        Settings that cannot share passes.
    DataError, EncoderMismatchError, BackendUnavailableError, WorkerLostError
        As in `train_linear`.

    Notes
    -----
    Memory: 16 (MEMORY + 3) K C D bytes for the solvers. Time: the products of K heads, the rows read once.
    """
    check_together(grid)
    check_encoder(stream, encoder)
    if engine is not None:
        check_shareable(grid[0])
    started = time.perf_counter()
    metric = within_class_metric(moments)
    placement = resolve_device(grid[0], stream, len(grid)) if engine is None else WORKERS_PLACEMENT
    problems = [Problem(stream, settings, moments, metric, placement) for settings in grid]
    keepers = [_Keeper(problem, holdout) for problem in problems]
    runs = [_lbfgs(problem, keeper) for problem, keeper in zip(problems, keepers, strict=True)]

    def passed(served: list[int]) -> None:
        progress(1, runs[served[0]].passes[-1].stages)

    stops, workers = _minimize(problems, runs, passed, engine)
    seconds = time.perf_counter() - started
    for run, stopped, settings in zip(runs, stops, grid, strict=True):
        _warn(stopped, len(run.passes), settings)
    return [
        _result(
            problem,
            run.passes,
            keeper,
            stopped,
            seconds,
            encoder=encoder,
            encoder_spec=encoder_spec,
            normalized=normalized,
            class_counts=stream.real_counts if class_counts is None else class_counts,
            made_from=made_from or {},
            workers=workers,
        )
        for problem, run, keeper, stopped in zip(problems, runs, keepers, stops, strict=True)
    ]


def best_of(results: Sequence[TrainResult]) -> int:
    """Return the position of the result that is best on the holdout: by balanced accuracy, then accuracy, then order.

    Raises
    ------
    ConfigError
        A result has no score: train with a holdout.
    """
    scores = [result.holdout for result in results]
    if not scores or None in scores:
        raise ConfigError("heads are compared on a holdout: train them with one")
    return max(range(len(results)), key=lambda i: (scores[i].balanced, scores[i].accuracy, -i))  # type: ignore[union-attr]


def _lbfgs(problem: Problem, keeper: _Keeper) -> Lbfgs:
    return Lbfgs(
        problem.start(),
        problem.preconditioner(),
        n_rows=problem.stream.n_samples,
        max_passes=problem.settings.max_passes,
        tolerance=problem.settings.tolerance,
        on_kept=keeper,
    )


def _minimize(
    problems: Sequence[Problem],
    runs: Sequence[Lbfgs],
    on_pass: Callable[[list[int]], None],
    engine: Engine | None,
) -> tuple[list[str], dict[str, Any]]:
    """Carry the runs to their ends, by workers where there is an engine; return why each stopped, and their record."""
    objectives = [problem.objective for problem in problems]
    if engine is None:
        return minimize(objectives, runs, on_pass), {}
    with closing(SharedPasses(engine, objectives)) as passes:
        return minimize(objectives, runs, on_pass, passes), passes.record()


def _warn(stopped: str, n_passes: int, settings: TrainSettings) -> None:
    if stopped in ("max_passes", "rounding"):
        advice = "raise max_passes or l2" if stopped == "max_passes" else "float32 gives no more"
        _log.warning(
            "training stopped after %d passes before tolerance %g was reached: %s",
            n_passes,
            settings.tolerance,
            advice,
        )


def _result(
    problem: Problem,
    passes: list[PassRecord],
    keeper: _Keeper,
    stopped: str,
    seconds: float,
    *,
    encoder: EncoderIdentity,
    encoder_spec: str,
    normalized: bool,
    class_counts: IntArray,
    made_from: Mapping[str, Any],
    workers: Mapping[str, Any],
) -> TrainResult:
    """Return the model at the point that was kept, with the record of how it came about."""
    assert keeper.best is not None
    point, kept_pass, score = keeper.best
    weight, bias = problem.finish(point)
    resolved = {
        **problem.resolved,
        **workers,
        "n_passes": len(passes),
        "kept_pass": kept_pass,
        "stopped": stopped,
    }
    if score is not None:
        resolved["holdout"] = score._asdict()
    model = LinearModel(
        weight=weight,
        bias=bias,
        class_names=problem.stream.class_names,
        encoder=encoder,
        encoder_spec=encoder_spec,
        normalized=normalized,
        class_counts=class_counts.astype(np.int64),
        record=record("model", settings=resolved, made_from=made_from, seed=problem.settings.seed),
    )
    spent = sum(done.seconds for done in passes)
    return TrainResult(
        model,
        tuple(passes),
        len(passes),
        seconds,
        stopped,
        problem.stream.n_samples * len(passes) / max(seconds, 1e-9),
        kept_pass,
        score,
        sum(done.data_seconds for done in passes) / max(spent, 1e-9),
    )


def train_closed_form(
    method: str,
    moments: Moments,
    *,
    class_names: tuple[str, ...],
    encoder: EncoderIdentity,
    class_counts: IntArray | None = None,
    encoder_spec: str = "",
    normalized: bool = True,
    made_from: Mapping[str, Any] | None = None,
    rows: Rows | None = None,
    **options: float | bool,
) -> TrainResult:
    """Make a model from moments alone.

    Parameters
    ----------
    method : {"ncm", "gda", "ridge"}
    moments : Moments
    class_names : tuple of str
    encoder, class_counts, encoder_spec, normalized, made_from
        As in `train_linear`; class_counts default to the moments'.
    rows : Rows, optional
        The rows of the moments: the logits are then scaled so that their softmax is a probability (`calibrated`).
    **options
        Passed to `nearest_class_mean`, `gda` or `ridge`.

    Raises
    ------
    ConfigError
        There is no such method, or an option is out of range or unknown.
    DataError
        Moments cannot be used, or do not fit the names.
    """
    if method not in CLOSED_FORMS:
        raise ConfigError(f"closed form must be one of {', '.join(CLOSED_FORMS)}; found {method!r}")
    started = time.perf_counter()
    try:
        head = CLOSED_FORMS[method](moments, **options)
    except TypeError as err:
        raise ConfigError(f"closed form {method!r} does not take {sorted(options)}: {err}") from err
    if rows is not None:
        head = calibrated(head, rows)
    seconds = time.perf_counter() - started
    model = LinearModel(
        weight=head.weight.astype(np.float32),
        bias=head.bias.astype(np.float32),
        class_names=tuple(class_names),
        encoder=encoder,
        encoder_spec=encoder_spec,
        normalized=normalized,
        class_counts=(moments.counts if class_counts is None else class_counts).astype(np.int64),
        record=record("model", settings={"head": method, **head.settings}, made_from=made_from or {}),
    )
    return TrainResult(model, (), 0, seconds, "closed form", 0.0)
