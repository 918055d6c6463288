"""`LatentSampler` and one class for each sampler, with imbalanced-learn's methods; it need not be installed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils import InputTags, Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d, validate_data

from ltstore.errors import DataError
from ltstore.estimators.seeding import seed_of
from ltstore.estimators.strategy import SamplingStrategy, rows_to_make
from ltstore.rows import ArrayRows
from ltstore.sampling import make_sampler, read_synthetic
from ltstore.stats import class_moments
from ltstore.types import IntArray, SyntheticRows


@dataclass(kw_only=True, eq=False, repr=False)
class LatentSampler(OneToOneFeatureMixin, BaseEstimator):  # type: ignore[misc]
    """What the samplers share: not one itself, its subclasses have the settings of a sampler of `ltstore sample`.

    Parameters
    ----------
    sampling_strategy : float, str, mapping or callable
        As in imbalanced-learn: by default every class is filled up to the largest one.
    normalize : bool
        Take the rows at unit norm, as a store gives them, and give all out so, real ones too.
    random_state : int, RandomState or None
        An integer is the seed of the command line.

    Attributes
    ----------
    sampling_strategy_ : dict
        New rows of each class that the strategy is about.
    parent_ids_ : (n, p) int64
        Rows of X that each of the n new rows was made of; -1 where there are fewer than p.
    donor_ids_ : (n, q) int64
        Positions, among the sorted labels, of the classes that lent to it; -1 where there are fewer than q.
    n_features_in_ : int
        D.

    Notes
    -----
    The new rows are those of `ltstore sample` for the same rows and seed; they are drawn in float32.
    """

    sampling_strategy: SamplingStrategy = "auto"
    normalize: bool = True
    random_state: int | RandomState | None = None

    sampler: ClassVar[str]

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Check rows, labels and strategy; `fit_resample` does this too."""
        self._checked(X, y)
        return self

    def fit_resample(self, X: ArrayLike, y: ArrayLike) -> tuple[Any, Any]:
        """Return the rows with new ones after them, class by class, and the labels of all.

        Parameters
        ----------
        X : (N, D) array of floats
        y : (N,) labels, or (N, C) with a 1 in every row

        Returns
        -------
        X : (N + n, D) of the dtype of X
        y : (N + n,) or (N + n, C) of the dtype of y
            Lists where X or y is a list, arrays otherwise.

        Raises
        ------
        ConfigError, DataError
            The strategy, a setting, or the rows cannot be used; both are ValueErrors.
        """
        rows, labels, one_hot = self._checked(X, y)
        classes, positions = np.unique(labels, return_inverse=True)
        real = ArrayRows(rows, positions, class_names=[str(c) for c in classes], normalize=self.normalize)
        targets = np.array([self.sampling_strategy_.get(label, 0) for label in classes.tolist()], np.int64)
        made = self._sample(real, targets)
        self.parent_ids_, self.donor_ids_ = made.parent_ids, made.donor_ids
        kept = real.read(0, real.n_samples) if self.normalize else rows
        all_rows = np.concatenate([kept, made.X]).astype(rows.dtype, copy=False)
        all_labels = np.concatenate([labels, classes[made.labels]])
        if one_hot is not None:
            all_labels = one_hot[all_labels]
        return (
            all_rows.tolist() if isinstance(X, list) else all_rows,
            all_labels.tolist() if isinstance(y, list) else all_labels,
        )

    def _checked(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
        """Return rows, labels, and where y is columns what makes it of labels; set the strategy."""
        check_classification_targets(y)
        one_hot = None
        if type_of_target(y) == "multilabel-indicator":
            columns = np.asarray(y)
            if (columns.sum(axis=1) != 1).any():
                raise DataError(
                    "Multilabel and multioutput targets are not supported: give every row one class"
                )
            one_hot, labels = np.eye(columns.shape[1], dtype=columns.dtype), columns.argmax(axis=1)
        else:
            labels = column_or_1d(y)
        rows, labels = validate_data(self, X, labels, dtype=[np.float64, np.float32])
        self.sampling_strategy_ = rows_to_make(self.sampling_strategy, labels)
        return rows, labels, one_hot

    def _sample(self, rows: ArrayRows, targets: IntArray) -> SyntheticRows:
        shared = {one.name for one in fields(LatentSampler)}
        settings = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in shared}
        sampler = make_sampler(self.sampler, **settings).fit(rows, class_moments(rows))
        if targets.any():
            return read_synthetic(sampler, targets, 0, int(targets.sum()), seed=seed_of(self.random_state))
        none = np.zeros((0, 0), np.int64)
        return SyntheticRows(X=rows.read(0, 0), labels=none.ravel(), parent_ids=none, donor_ids=none)

    def __sklearn_tags__(self) -> Tags:
        """Return tags with the two that imbalanced-learn looks for."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return _SamplerTags(estimator_type="sampler", target_tags=tags.target_tags, input_tags=_ArrayTags())


@dataclass(slots=True)
class _ArrayTags(InputTags):  # type: ignore[misc]
    dataframe: bool = False


@dataclass(slots=True)
class _GivesNoIndices:
    sample_indices: bool = False


@dataclass(slots=True)
class _SamplerTags(Tags):  # type: ignore[misc]
    sampler_tags: _GivesNoIndices = field(default_factory=_GivesNoIndices)


@dataclass(kw_only=True, eq=False, repr=False)
class NeighborGaussOverSampler(LatentSampler):
    """Gaussians whose mean and covariance lean on donor classes; `ltstore.sampling.NeighborGaussSettings`."""

    anchor: float = 0.5
    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None
    spread: float = 1.0
    noise: str = "gauss"
    terms: int = 4

    sampler: ClassVar[str] = "neighbor-gauss"


@dataclass(kw_only=True, eq=False, repr=False)
class VmfOverSampler(LatentSampler):
    """Directions around the mean of each class; `ltstore.sampling.VmfSettings`."""

    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None

    sampler: ClassVar[str] = "vmf"


@dataclass(kw_only=True, eq=False, repr=False)
class KdeOverSampler(LatentSampler):
    """Gaussian noise around real rows; `ltstore.sampling.KdeSettings`."""

    bandwidth: float | None = None
    nu: float = 20.0
    donor_share: float = 0.5
    noise: str = "gauss"
    terms: int = 4

    sampler: ClassVar[str] = "kde"


@dataclass(kw_only=True, eq=False, repr=False)
class SmoteOverSampler(LatentSampler):
    """Points on the way from a real row to a near one of its class; `ltstore.sampling.SmoteSettings`."""

    k: int = 5
    metric: str = "cosine"
    spherical: bool = False

    sampler: ClassVar[str] = "smote"


@dataclass(kw_only=True, eq=False, repr=False)
class DistributionCalibrationOverSampler(LatentSampler):
    """Gaussians around real rows by the nearest classes; `ltstore.sampling.DistributionCalibrationSettings`."""

    k: int = 2
    alpha: float = 0.21
    tukey: float | None = None

    sampler: ClassVar[str] = "distribution-calibration"


@dataclass(kw_only=True, eq=False, repr=False)
class ResidualTransferOverSampler(LatentSampler):
    """A class mean with the residual of a donor's row; `ltstore.sampling.ResidualTransferSettings`."""

    scale: float = 1.0
    match_variance: bool = False
    nu: float = 20.0
    pull: float = 1.0
    pull_rows: float | None = None

    sampler: ClassVar[str] = "residual-transfer"


@dataclass(kw_only=True, eq=False, repr=False)
class TextOverSampler(LatentSampler):
    """Gaussians whose means lean on text vectors of the sorted labels; `ltstore.sampling.TextSettings`."""

    vectors: str = ""
    vectors_digest: str | None = None
    scale: float | None = None
    anchor: float = 0.5
    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None

    sampler: ClassVar[str] = "text"


@dataclass(kw_only=True, eq=False, repr=False)
class DuplicateOverSampler(LatentSampler):
    """Real rows again, drawn with replacement."""

    sampler: ClassVar[str] = "duplicate"
