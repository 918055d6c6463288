"""Heads from class moments alone: no pass over rows, milliseconds.

They are printed beside every trained head. A class without rows has no mean: its weight is zero and its bias
EMPTY_CLASS_BIAS, finite in the file and never predicted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.linear.metric import between_variance, shrunk_covariance
from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.linear.origin import Origin
from ltstore.linear.result import TrainResult
from ltstore.linear.temperature import best_factor, scaled
from ltstore.types import DoubleArray, Moments, Rows


class Head(NamedTuple):
    """A linear head: logits are X @ weight.T + bias.

    Attributes
    ----------
    weight : (C, D) float64
    bias : (C,) float64
    settings : mapping
        The settings it was made with, estimated ones included.
    """

    weight: DoubleArray
    bias: DoubleArray
    settings: Mapping[str, Any]


def nearest_class_mean(moments: Moments) -> Head:
    """Predict the class whose mean is nearest: logits x mu_c - |mu_c|^2 / 2.

    Squared distance is |x|^2 - 2 (x mu_c - |mu_c|^2 / 2), so the largest logit is the smallest distance.

    References
    ----------
    Mensink et al. 2013, "Distance-based image classification: generalizing to new classes at near-zero cost".
    """
    _check(moments)
    return _masked(moments.means, -0.5 * np.einsum("cd,cd->c", moments.means, moments.means), moments, {})


def gda(moments: Moments, *, shrinkage: float = 0.2, mean_shrinkage: float | None = None) -> Head:
    """Gaussian discriminant analysis: one shrunk covariance S for all classes, uniform prior, shrunk means.

    With m the mean of all rows, mu_c' = m + n_c / (n_c + kappa) (mu_c - m) and

        weight_c = S^-1 (mu_c' - m),   bias_c = -(mu_c' - m)' S^-1 (mu_c' - m) / 2 - weight_c m

    Parameters
    ----------
    moments : Moments
    shrinkage : float in [0, 1]
        S = (1 - shrinkage) pooled + shrinkage * mean eigenvalue * identity.
    mean_shrinkage : float, at least 0, optional
        kappa: how many rows' weight the mean of all rows has in each class mean. Default: estimated by
        `estimate_mean_shrinkage`.

    Raises
    ------
    ConfigError
        A setting is out of range.
    DataError
        No class has rows, or moments are not finite.

    Notes
    -----
    O(D^3 + C D^2). The kappa is what a class of few rows needs: the error of its mean, S / n_c, enters the
    bias squared, and without shrinking it is counted as distance from all others.

    References
    ----------
    Friedman 1989, "Regularized discriminant analysis".
    """
    from scipy.linalg import cho_factor, cho_solve

    _check(moments)
    _in_range("shrinkage", shrinkage, 1.0)
    if mean_shrinkage is not None:
        _in_range("mean_shrinkage", mean_shrinkage, float("inf"))
    counts = moments.counts.astype(np.float64)
    center = counts @ moments.means / counts.sum()
    factor = cho_factor(
        _invertible(shrunk_covariance(moments.pooled, shrinkage, between_variance(moments))), lower=True
    )
    if mean_shrinkage is None:
        mean_shrinkage = estimate_mean_shrinkage(moments, cho_solve(factor, np.eye(len(moments.pooled))))
    trust = counts / np.maximum(counts + mean_shrinkage, 1.0)
    deviations = trust[:, None] * (moments.means - center)
    weight = cho_solve(factor, deviations.T).T
    bias = -0.5 * np.einsum("cd,cd->c", weight, deviations) - weight @ center
    resolved = {"shrinkage": float(shrinkage), "mean_shrinkage": float(mean_shrinkage)}
    return _masked(weight, bias, moments, resolved)


def estimate_mean_shrinkage(moments: Moments, inverse: DoubleArray) -> float:
    """Return kappa = within / between: the variance of a row around its class mean over that of class means.

    In the metric `inverse`, within = tr(inverse pooled), and between is the mean over classes with rows of
    |mu_c - m|^2 less within / n_c, the part of it that is the error of mu_c. With it n_c / (n_c + kappa) is
    the share of a class mean's deviation that is real. Where nothing real is left kappa is the largest count.

    Parameters
    ----------
    moments : Moments
    inverse : (D, D) float64

    References
    ----------
    Efron & Morris 1973, "Stein's estimation rule and its competitors: an empirical Bayes approach".
    """
    counts = moments.counts[moments.counts > 0].astype(np.float64)
    means = moments.means[moments.counts > 0]
    deviations = means - counts @ means / counts.sum()
    within = float(np.einsum("ij,ij->", inverse, moments.pooled))
    squares = np.einsum("cd,cd->c", deviations @ inverse, deviations)
    between = float(np.mean(squares - within / counts))
    largest = float(counts.max())
    return within / between if between * largest > within else largest * (within > 0)


def ridge(moments: Moments, *, l2: float = 0.1, balanced: bool = True) -> Head:
    """Least squares on one-hot labels, from the moments: minimise sum_c a_c sum_i |W x_i + b - e_c|^2 + penalty.

    Parameters
    ----------
    moments : Moments
    l2 : float, above 0
        The penalty is l2 times the mean eigenvalue of the second moment times |W|^2.
    balanced : bool
        Rows of class c weigh a_c = 1 / (n_c C'), C' the number of classes that have rows; else 1 / N. The
        covariance inside classes is the pooled one either way.

    Notes
    -----
    O(D^3 + C D^2).

    References
    ----------
    Hoerl & Kennard 1970, "Ridge regression".
    """
    from scipy.linalg import cho_factor, cho_solve

    _check(moments)
    if not (np.isfinite(l2) and l2 > 0):
        raise ConfigError(f"l2 must be a finite number above 0, found {l2!r}")
    present = moments.counts > 0
    shares = present / present.sum() if balanced else moments.counts / moments.counts.sum()
    center = shares @ moments.means
    deviations = moments.means - center
    second = moments.pooled + (deviations * shares[:, None]).T @ deviations
    scale = float(np.trace(second)) / len(second)
    second[np.diag_indices(len(second))] += l2 * (scale if scale > 0 else 1.0)
    weight = cho_solve(cho_factor(second, lower=True), (shares[:, None] * deviations).T).T
    return _masked(weight, shares - weight @ center, moments, {"l2": float(l2), "balanced": bool(balanced)})


def calibrated(head: Head, rows: Rows) -> Head:
    """Scale the logits by the factor under which their softmax explains the rows best (`best_factor`).

    Closed forms rank classes; the size of their logits is arbitrary (nearest class mean, ridge) or too sure of
    itself (GDA). Predictions stay.
    """
    factor = best_factor(head.weight, head.bias, rows, held_out=False)
    return Head(*scaled(head.weight, head.bias, factor), {**head.settings, "calibration": factor})


CLOSED_FORMS: dict[str, Callable[..., Head]] = {"ncm": nearest_class_mean, "gda": gda, "ridge": ridge}


def train_closed_form(
    method: str,
    moments: Moments,
    *,
    class_names: tuple[str, ...],
    origin: Origin,
    rows: Rows | None = None,
    **options: float | bool,
) -> TrainResult:
    """Make a model from moments alone.

    Parameters
    ----------
    method : {"ncm", "gda", "ridge"}
    moments : Moments
    class_names : tuple of str
    origin : Origin
        Of the rows of the moments.
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
    settings = {"head": method, **head.settings}
    model = origin.model(head.weight, head.bias, class_names, moments.counts, settings=settings)
    return TrainResult(model, (), 0, seconds, "closed form", 0.0)


def _masked(weight: DoubleArray, bias: DoubleArray, moments: Moments, settings: Mapping[str, Any]) -> Head:
    empty = moments.counts == 0
    return Head(np.where(empty[:, None], 0.0, weight), np.where(empty, EMPTY_CLASS_BIAS, bias), settings)


def _check(moments: Moments) -> None:
    if moments.counts.sum() == 0:
        raise DataError(f"moments of {len(moments.counts)} classes hold no row: label some rows first")
    if not (np.isfinite(moments.means).all() and np.isfinite(moments.pooled).all()):
        raise DataError("moments have NaN or Inf: look for NaN, Inf or huge values in the rows")


def _in_range(name: str, value: float, high: float) -> None:
    if not (np.isfinite(value) and 0 <= value <= high):
        raise ConfigError(f"{name} must be a finite number in [0, {high:g}], found {value!r}")


def _invertible(covariance: DoubleArray) -> DoubleArray:
    """Lift a covariance that was not shrunk, and may be singular, by rounding error."""
    lift = 1e-10 * float(np.trace(covariance)) / len(covariance)
    return covariance + lift * np.eye(len(covariance))
