"""`LongTailClassifier`: a linear head with the methods and checks of scikit-learn's classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.estimators.seeding import seed_of
from ltstore.linear import (
    LinearModel,
    Origin,
    TrainResult,
    TrainSettings,
    refit_linear,
    train_closed_form,
    train_linear,
)
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.rows import ArrayRows, normalize_rows
from ltstore.sampling import balance_targets, make_sampler
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from ltstore.types import FloatArray, IntArray, Moments

_Seen = tuple[FloatArray, IntArray, FloatArray]  # X, labels, weights
_SETTINGS = (
    *("loss", "tau", "posthoc_tau", "smoothing", "class_weights", "beta", "margin", "implicit", "scale"),
    *("l2", "penalty", "init", "solver", "max_passes", "tolerance", "device"),
)


class LongTailClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear classifier of embeddings whose classes differ in size; the model is that of `ltstore train`.

    Parameters
    ----------
    head : {"linear", "cosine", "ncm", "gda", "ridge"}
        A softmax head by a solver, or a closed form of the class moments, which takes none of the other settings.
    loss, tau, posthoc_tau, smoothing, class_weights, beta, margin, implicit, scale, l2, penalty, init, solver,
    max_passes, tolerance, device
        As in `ltstore.TrainSettings`.
    minibatch : mapping, optional
        `ltstore.linear.MinibatchSettings` of solver "sgd" or "adam".
    sampler : str, optional
        Train with rows of this sampler too, as many as fill every class up to the largest one.
    sampler_settings : mapping, optional
        Of the sampler.
    per_class, max_ratio : optional
        Synthetic rows of each class instead, and at most how many for each real row.
    normalize : bool
        Take rows at unit norm, in training and prediction.
    random_state : int, RandomState or None
        An integer is the seed of the command line. Without sampler and minibatches nothing is drawn.

    Attributes
    ----------
    classes_ : (C,) array
        Labels, sorted.
    coef_, intercept_ : (C, D) and (C,) float32
        For two classes (1, D) and (1,): the second less the first.
    model_ : LinearModel
        What can be saved, and evaluated by the command line; its class names are the labels as text.
    result_ : TrainResult
        How training went.
    n_iter_, n_features_in_ : int
        Passes that were made; D.

    Notes
    -----
    Rows are worked on in float32. Sample weights weigh the loss; the class moments, which scale the penalty, count
    every row once, so that a weight of 2 is not quite a row given twice.
    """

    def __init__(
        self,
        *,
        head: str = "linear",
        loss: str = "la",
        tau: float | None = None,
        posthoc_tau: float = 0.0,
        smoothing: float = 0.0,
        class_weights: str = "none",
        beta: float | None = None,
        margin: float = 0.0,
        implicit: float = 0.0,
        scale: float | None = None,
        l2: float | None = None,
        penalty: str = "plain",
        init: str | None = None,
        solver: str = "lbfgs",
        max_passes: int = 200,
        tolerance: float = 1e-3,
        minibatch: Mapping[str, Any] | None = None,
        device: str = "auto",
        sampler: str | None = None,
        sampler_settings: Mapping[str, Any] | None = None,
        per_class: int | None = None,
        max_ratio: float | None = None,
        normalize: bool = True,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.head = head
        self.loss = loss
        self.tau = tau
        self.posthoc_tau = posthoc_tau
        self.smoothing = smoothing
        self.class_weights = class_weights
        self.beta = beta
        self.margin = margin
        self.implicit = implicit
        self.scale = scale
        self.l2 = l2
        self.penalty = penalty
        self.init = init
        self.solver = solver
        self.max_passes = max_passes
        self.tolerance = tolerance
        self.minibatch = minibatch
        self.device = device
        self.sampler = sampler
        self.sampler_settings = sampler_settings
        self.per_class = per_class
        self.max_ratio = max_ratio
        self.normalize = normalize
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on these rows.

        Parameters
        ----------
        X : (N, D) array of floats
        y : (N,) labels
            Of at least two classes.
        sample_weight : (N,) floats, optional
            At least 0, in the loss; synthetic rows weigh 1.

        Raises
        ------
        ConfigError, DataError
            As `ltstore.train`; both are ValueErrors.
        """
        rows, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._seen: _Seen | None = None
        return self._train((rows, labels, _check_sample_weight(sample_weight, rows, dtype=np.float32)))

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add rows and train on all that were given so far, from where the head is.

        The head is the one that `fit` finds on all of these rows together, within the tolerance of the solver; the
        start saves passes. So the rows are kept, 4 D bytes each, and pickled with the estimator until `fit` is
        called. `fit` itself keeps none: after it the first call begins anew, with its classes.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; a class may have no rows yet.
        classes : (C,) labels
            All that there will be; needed at the first call.

        Raises
        ------
        ConfigError, DataError
            As `fit`.
        LabelError
            A label is not among the classes.
        """
        before = getattr(self, "_seen", None)
        rows, y = validate_data(self, X, y, dtype=np.float32, reset=before is None)
        check_classification_targets(y)
        _check_partial_fit_first_call(self, classes)
        unknown = np.setdiff1d(y, self.classes_).tolist()
        if unknown:
            raise LabelError(
                f"label {unknown[0]!r} is not among the classes of the first call: {self.classes_}"
            )
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float32)
        seen = (rows, np.searchsorted(self.classes_, y), weights)
        if before is not None:
            X_seen, labels_seen, weights_seen = map(np.concatenate, zip(before, seen, strict=True))
            seen = (X_seen, labels_seen, weights_seen)
        self._train(seen, start=None if before is None else self.result_)
        self._seen = seen
        return self

    def _train(self, seen: _Seen, start: TrainResult | None = None) -> Self:
        X, labels, sample_weight = seen
        if len(self.classes_) < 2:
            only = self.classes_.tolist()[0]
            raise DataError(f"a classifier needs rows of at least 2 classes, found 1 class: {only!r}")
        weights = None if (sample_weight == 1).all() else sample_weight
        settings = self._settings(weights)
        rows = ArrayRows(X, labels, class_names=[str(c) for c in self.classes_], normalize=self.normalize)
        moments = class_moments(rows)
        if self.head in CLOSED_FORMS:
            origin = Origin.of(rows)
            self.result_ = train_closed_form(
                self.head, moments, class_names=rows.class_names, origin=origin, rows=rows
            )
            return self
        stream = self._stream(rows, moments, weights, settings.seed)
        if start is None:
            self.result_ = train_linear(stream, settings, moments)
        else:
            self.result_ = refit_linear(stream, settings, moments, start)
        return self

    def _settings(self, weights: FloatArray | None) -> TrainSettings:
        """Return the settings of a solver, or the default ones; ConfigError for what would do nothing."""
        chosen = {name: getattr(self, name) for name in _SETTINGS} | {"minibatch": self.minibatch or {}}
        if self.sampler is None and (self.sampler_settings or self.per_class or self.max_ratio):
            raise ConfigError(
                "sampler_settings, per_class and max_ratio would do nothing without a sampler: name one"
            )
        if self.head not in CLOSED_FORMS:
            return TrainSettings.from_mapping(chosen | {"head": self.head, "seed": seed_of(self.random_state)})
        settings = TrainSettings.from_mapping(chosen)
        if settings != TrainSettings() or self.sampler is not None or weights is not None:
            raise ConfigError(
                f"head {self.head!r} is a closed form of the class moments: it takes no loss, penalty or solver "
                "settings, no sample weights and no sampler"
            )
        return settings

    def _stream(
        self, rows: ArrayRows, moments: Moments, weights: FloatArray | None, seed: int
    ) -> TrainingStream:
        if self.sampler is None:
            return TrainingStream(rows, weights=weights, seed=seed)
        sampler = make_sampler(self.sampler, **(self.sampler_settings or {})).fit(rows, moments)
        targets = balance_targets(
            moments.counts,
            mode="balance" if self.per_class is None else "per-class",
            per_class=self.per_class,
            max_ratio=self.max_ratio,
        )
        return TrainingStream(rows, sampler=sampler, targets=targets, weights=weights, seed=seed)

    @property
    def model_(self) -> LinearModel:
        """The model."""
        return self.result_.model

    @property
    def coef_(self) -> FloatArray:
        """(C, D) float32, or (1, D) for two classes."""
        return _for_two(self.model_.weight.T).T

    @property
    def intercept_(self) -> FloatArray:
        """(C,) float32, or (1,) for two classes."""
        return _for_two(self.model_.bias)

    @property
    def n_iter_(self) -> int:
        """Passes over the rows."""
        return self.result_.n_passes

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the logits, (n, C) float32; for two classes (n,), the second less the first."""
        rows = self._rows(X)
        logits = _for_two(self.model_.decision_function(rows))
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return softmax(logits), (n, C) float32."""
        rows = self._rows(X)
        return self.model_.predict_proba(rows)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the (n,) labels of the largest logits; of equal ones the first."""
        rows = self._rows(X)
        labels: NDArray[Any] = self.classes_[self.model_.predict(rows)]
        return labels

    def _rows(self, X: ArrayLike) -> FloatArray:
        """Return rows as the model takes them, new."""
        check_is_fitted(self)
        rows = np.array(validate_data(self, X, dtype=np.float32, reset=False), order="C")
        return normalize_rows(rows) if self.model_.normalized else rows


def _for_two(columns: FloatArray) -> FloatArray:
    """Return (..., C) as it is; of two columns the second less the first, (..., 1)."""
    return columns[..., 1:] - columns[..., :1] if columns.shape[-1] == 2 else columns
