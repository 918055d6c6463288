"""Train a head and put it into a model with the record of how it came about."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.kernels import resolve_backend
from ltstore.linear.closed_form import Head, calibrated, gda, nearest_class_mean, ridge
from ltstore.linear.metric import within_class_metric
from ltstore.linear.model import LinearModel
from ltstore.linear.objective import EMPTY_CLASS_BIAS, ImplicitTerm, Objective
from ltstore.linear.settings import TrainSettings
from ltstore.linear.solver import PassRecord, minimize
from ltstore.provenance import record
from ltstore.sampling import NeighborGaussSettings
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.stream import TrainingStream
from ltstore.types import DoubleArray, EncoderIdentity, IntArray, Moments, Progress, Rows, no_progress

_log = logging.getLogger(__name__)

CLOSED_FORMS: dict[str, Callable[..., Head]] = {"ncm": nearest_class_mean, "gda": gda, "ridge": ridge}


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
        decrease in float32), or "closed form".
    rows_per_second : float
        Rows of all passes over the seconds; 0 for a closed form.
    """

    model: LinearModel
    history: tuple[PassRecord, ...]
    n_passes: int
    seconds: float
    stopped: str
    rows_per_second: float

    @property
    def converged(self) -> bool:
        """Whether the stopping rule was met, or none was needed."""
        return self.stopped in ("tolerance", "closed form")


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
    progress: Progress = no_progress,
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
    progress : Progress
        Called after every pass with 1 (a pass) and {"train": seconds}.

    Returns
    -------
    TrainResult

    Raises
    ------
    DataError
        Moments or encoder do not fit the stream, or the loss is not finite.
    BackendUnavailableError, ConfigError
        The backend cannot run here, or there is none of that name.
    """
    _check_fit(stream, moments, encoder)
    backend, reason = resolve_backend(settings.backend)
    started = time.perf_counter()
    metric = within_class_metric(moments)
    l2 = settings.resolved_l2(int((stream.class_shares > 0).sum()))
    center = stream.class_shares @ moments.means
    objective = Objective(
        stream,
        metric,
        center,
        tau=settings.resolved_tau,
        l2=l2,
        penalty=settings.penalty,
        backend=backend,
        implicit=_implicit_term(moments, settings.implicit),
    )
    solution = minimize(
        objective,
        metric,
        n_features=stream.n_features,
        l2=l2,
        max_passes=settings.max_passes,
        tolerance=settings.tolerance,
        on_pass=lambda done: progress(1, {"train": done.seconds}),
    )
    seconds = time.perf_counter() - started
    if solution.stopped != "tolerance":
        advice = "raise max_passes or l2" if solution.stopped == "max_passes" else "float32 gives no more"
        _log.warning(
            "training stopped after %d passes before tolerance %g was reached: %s",
            len(solution.passes),
            settings.tolerance,
            advice,
        )
    bias = solution.bias - solution.weight @ center - lean(stream.real_counts, settings.posthoc_tau)
    resolved = {
        "head": "linear",
        **settings.to_mapping(),
        "l2": l2,
        "backend": backend,
        "backend_reason": reason,
        "n_real": stream.n_real,
        "n_synthetic": stream.n_synthetic,
        "n_unlabelled": stream.n_unlabelled,
        "n_passes": len(solution.passes),
        "stopped": solution.stopped,
    }
    model = LinearModel(
        weight=np.where(objective.empty[:, None], 0.0, solution.weight).astype(np.float32),
        bias=np.where(objective.empty, EMPTY_CLASS_BIAS, bias).astype(np.float32),
        class_names=stream.class_names,
        encoder=encoder,
        encoder_spec=encoder_spec,
        normalized=normalized,
        class_counts=(stream.real_counts if class_counts is None else class_counts).astype(np.int64),
        record=record("model", settings=resolved, made_from=made_from or {}, seed=settings.seed),
    )
    rows = stream.n_samples * len(solution.passes)
    return TrainResult(
        model, solution.passes, len(solution.passes), seconds, solution.stopped, rows / max(seconds, 1e-9)
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


def lean(counts: IntArray, posthoc_tau: float) -> DoubleArray:
    """Return (C,) what post-hoc logit adjustment takes from each bias: posthoc_tau * log(n_c / N), 0 without rows."""
    shares = np.maximum(counts, 1) / max(int(counts.sum()), 1)
    taken: DoubleArray = np.where(counts > 0, posthoc_tau * np.log(shares), 0.0)
    return taken


def _implicit_term(moments: Moments, strength: float) -> ImplicitTerm | None:
    """Class covariances shrunk toward the pooled one as in neighbor-gauss, without donors."""
    if not strength:
        return None
    lending = Lending.none(len(moments.counts))
    nu = NeighborGaussSettings().nu
    return ImplicitTerm(borrowed_covariance(moments, lending, nu=nu, donor_share=0.0), float(strength))


def _check_fit(stream: TrainingStream, moments: Moments, encoder: EncoderIdentity) -> None:
    expected = (stream.n_classes, stream.n_features)
    if moments.means.shape != expected:
        raise DataError(
            f"moments are of {moments.means.shape} (classes, features) and the stream of {expected}: "
            "compute them from the stream's real rows"
        )
    if encoder.n_features != stream.n_features:
        raise DataError(
            f"the encoder gives {encoder.n_features} features and the stream has {stream.n_features}"
        )
