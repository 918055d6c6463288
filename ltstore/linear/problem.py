"""A training set and settings made ready for a solver: objective, start, preconditioner, and the way to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.kernels import resolve_backend
from ltstore.kernels.dispatch import GPU_BACKEND
from ltstore.linear.closed_form import calibrated, gda, nearest_class_mean, ridge
from ltstore.linear.device import Placement, resolve_device
from ltstore.linear.heads import CosineForm, HeadForm, LinearForm
from ltstore.linear.metric import Metric, within_class_metric
from ltstore.linear.model import LinearModel
from ltstore.linear.objective import EMPTY_CLASS_BIAS, ImplicitTerm, Objective
from ltstore.linear.reweighting import BETA, class_margins, class_weights
from ltstore.linear.settings import TrainSettings
from ltstore.linear.solver import Preconditioner, Vector
from ltstore.sampling import NeighborGaussSettings
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.stream import TrainingStream
from ltstore.types import DoubleArray, EncoderIdentity, FloatArray, IntArray, Moments

_STARTS = {"means": nearest_class_mean, "gda": gda, "ridge": ridge}


class Problem:
    """What a solver works on.

    Parameters
    ----------
    stream : TrainingStream
    settings : TrainSettings
    moments : Moments
        Of the stream's real rows.
    metric : Metric, optional
        Of the moments, where it is there already.
    placement : Placement, optional
        Where passes are made, where that is known already: heads that are trained together share it.

    Raises
    ------
    DataError
        Moments do not fit the stream.
    ConfigError
        A cosine head and rows that are not of unit norm, or no backend of that name.
    BackendUnavailableError
        The backend or the device cannot be used here.
    """

    def __init__(
        self,
        stream: TrainingStream,
        settings: TrainSettings,
        moments: Moments,
        metric: Metric | None = None,
        placement: Placement | None = None,
    ) -> None:
        _check_fit(stream, moments)
        if settings.head == "cosine" and not stream.rows.normalized:
            raise ConfigError("the cosine head needs rows of unit norm: open them with normalize=True")
        self.stream = stream
        self.settings = settings
        self.moments = moments
        self.metric = within_class_metric(moments) if metric is None else metric
        self.placement = resolve_device(settings, stream, moments) if placement is None else placement
        if self.placement.on_gpu:
            self.backend, self._backend_reason = GPU_BACKEND, "that of a GPU"
        else:
            self.backend, self._backend_reason = resolve_backend(settings.backend)
        self.l2 = settings.resolved_l2(int((stream.class_shares > 0).sum()))
        counts, scale = stream.class_counts, settings.resolved_scale
        form: HeadForm = LinearForm() if settings.head == "linear" else CosineForm(scale)
        beta = BETA if settings.beta is None else settings.beta
        self.objective = Objective(
            stream,
            self.metric,
            stream.class_shares @ moments.means,
            tau=settings.resolved_tau,
            l2=self.l2,
            penalty=settings.penalty,
            backend=self.backend,
            implicit=_implicit_term(moments, settings.implicit),
            smoothing=settings.smoothing,
            margins=class_margins(scale * settings.margin, counts),
            class_weights=class_weights(settings.class_weights, counts, beta),
            form=form,
            evaluator=self.placement.evaluator,
            class_means=moments.means if _tell_all(moments, stream) else None,
        )

    def start(self) -> Vector:
        """Return the (C, D + 1) point that a solver begins at: every class as likely as another, or a closed form."""
        objective = self.objective
        point = np.zeros((self.stream.n_classes, self.stream.n_features + 1))
        if self.settings.resolved_init == "zero":
            point[:, -1] = objective.even_bias
            return point
        point[:, -1] = objective.prior_bias
        head = _STARTS[self.settings.resolved_init](self.moments)
        if not objective.form.has_bias:
            point[:, :-1] = _unit(head.weight)
            return point
        head = calibrated(head, self.stream.rows)
        point[:, :-1] = head.weight
        point[:, -1] += np.where(objective.empty, 0.0, head.bias + head.weight @ objective.center)
        return point

    def point_of(self, model: LinearModel) -> Vector:
        """Return the (C, D + 1) point that `finish` makes a model of; a class that was empty begins as at zero."""
        objective = self.objective
        weight, bias = model.arrays
        point = np.zeros((self.stream.n_classes, self.stream.n_features + 1))
        if not objective.form.has_bias:
            point[:, :-1] = _unit(weight)
            return point
        raised = bias + weight @ objective.center + lean(self.stream.real_counts, self.settings.posthoc_tau)
        point[:, :-1] = weight
        point[:, -1] = np.where(bias == EMPTY_CLASS_BIAS, objective.even_bias, raised)
        return point

    def preconditioner(self) -> Preconditioner:
        """Return what the moments say of the inverse Hessian."""
        shares = self.objective.shares
        spread = shares * (1.0 - shares)
        least, plain = np.finfo(np.float32).eps, 0.0
        if self.objective.form.has_bias:
            curvature = spread + self.l2
            if self.settings.penalty == "plain":  # of the class of average size
                plain = self.l2 / (float(spread.sum()) / np.count_nonzero(shares) + self.l2)
        else:  # directions of length 1 at the start
            curvature = self.settings.resolved_scale**2 * np.maximum(spread, 1e-2 / len(spread))
        return Preconditioner(self.metric.inverse(plain), curvature[:, None], np.maximum(spread, least))

    def finish(self, point: Vector) -> tuple[FloatArray, FloatArray]:
        """Return the weight (C, D) and bias (C,) float32 of the model at a point, for rows as they are."""
        objective = self.objective
        weight = objective.form.weights(point[:, :-1])
        bias = point[:, -1] - weight @ objective.center
        bias = bias - lean(self.stream.real_counts, self.settings.posthoc_tau)
        return (
            np.where(objective.empty[:, None], 0.0, weight).astype(np.float32),
            np.where(objective.empty, EMPTY_CLASS_BIAS, bias).astype(np.float32),
        )

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide how a solver goes, as JSON values."""
        device = "cuda" if self.placement.on_gpu else "cpu"
        resolved = {"l2": self.l2, "backend": self.backend, "device": device}
        return self.settings.to_mapping() | resolved | {"precision": self.placement.precision}

    @property
    def resolved(self) -> Mapping[str, Any]:
        """Settings without anything left open, and what they were applied to."""
        settings = self.settings
        relevant: dict[str, Any] = {}
        if settings.head == "cosine":
            relevant["scale"] = settings.resolved_scale
        if settings.class_weights == "effective-number":
            relevant["beta"] = BETA if settings.beta is None else settings.beta
        mapping = settings.to_mapping()
        minibatch = mapping.pop("minibatch")
        if settings.solver != "lbfgs":
            rate = settings.minibatch.resolved_rate(settings.solver)
            relevant["minibatch"] = minibatch | {"learning_rate": rate}
        return {
            **mapping,
            **relevant,
            "init": settings.resolved_init,
            "l2": self.l2,
            "backend": self.backend,
            "backend_reason": self._backend_reason,
            "device": self.placement.device,
            "device_reason": self.placement.reason,
            "precision": self.placement.precision,
            "precision_reason": self.placement.precision_reason,
            **self._device_rows(),
            "n_real": self.stream.n_real,
            "n_synthetic": self.stream.n_synthetic,
            **self._synthesis(),
            "n_unlabelled": self.stream.n_unlabelled,
        }

    def _device_rows(self) -> dict[str, str]:
        """Say what becomes of the rows, where they leave NumPy."""
        evaluator = self.placement.evaluator
        return {} if evaluator is None else {"device_rows": evaluator.rows_are}

    def _synthesis(self) -> dict[str, str]:
        """Say whether synthetic rows are made, where there are any."""
        if not self.stream.n_synthetic:
            return {}
        why = self.stream.why_not_combined(self.stream.n_classes)
        if self.settings.solver != "lbfgs":
            why = "in minibatches they always are"
        return {"synthesis": said_of_synthesis(why)}


def identity_of(problems: Sequence[Problem]) -> dict[str, Any]:
    """Return all that decides how solvers go on problems of one stream, as JSON values; may read all rows once."""
    stream, moments = problems[0].stream, problems[0].moments
    digest = hashlib.sha256()
    for array in (moments.counts, moments.means, moments.pooled):
        digest.update(np.ascontiguousarray(array).data)
    several = len(problems) > 1
    settings = {
        f"settings of head {number}" if several else "settings": problem.deciding
        for number, problem in enumerate(problems, start=1)
    }
    return {**stream.identity(), "moments": "sha256:" + digest.hexdigest(), **settings}


def said_of_synthesis(why_made: str) -> str:
    """Return what a record says of the synthetic rows of passes: made for that reason, or, "", not made."""
    return f"rows are made: {why_made}" if why_made else "in the step, as sums of real rows"


def lean(counts: IntArray, posthoc_tau: float) -> DoubleArray:
    """Return (C,) what post-hoc logit adjustment takes from each bias: posthoc_tau * log(n_c / N), 0 without rows."""
    shares = np.maximum(counts, 1) / max(int(counts.sum()), 1)
    taken: DoubleArray = np.where(counts > 0, posthoc_tau * np.log(shares), 0.0)
    return taken


def check_encoder(stream: TrainingStream, encoder: EncoderIdentity) -> None:
    """Raise DataError where the rows cannot be those of the encoder."""
    if encoder.n_features != stream.n_features:
        raise DataError(
            f"the encoder gives {encoder.n_features} features and the stream has {stream.n_features}"
        )


def _unit(weight: DoubleArray) -> DoubleArray:
    """Return rows of norm 1; one of zeros stays."""
    norms = np.linalg.norm(weight, axis=1, keepdims=True)
    return weight / np.where(norms > 0, norms, 1.0)


def _implicit_term(moments: Moments, strength: float) -> ImplicitTerm | None:
    """Class covariances shrunk toward the pooled one as in neighbor-gauss, without donors."""
    if not strength:
        return None
    lending = Lending.none(len(moments.counts))
    nu = NeighborGaussSettings().nu
    return ImplicitTerm(borrowed_covariance(moments, lending, nu=nu, donor_share=0.0), float(strength))


def _tell_all(moments: Moments, stream: TrainingStream) -> bool:
    """Return whether the class means are those of all rows of a pass, each of which counts once."""
    return stream.row_weights is None and np.array_equal(moments.counts, stream.class_counts)


def _check_fit(stream: TrainingStream, moments: Moments) -> None:
    expected = (stream.n_classes, stream.n_features)
    if moments.means.shape != expected:
        raise DataError(
            f"moments are of {moments.means.shape} (classes, features) and the stream of {expected}: "
            "compute them from the stream's real rows"
        )
