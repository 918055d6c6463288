"""What all samplers share: validation, the row sequence, renormalisation. A strategy adds `_fit`, `_draw`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ltstore import rng
from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.kernels.normals import RowKey, gauss_around, normal_rows
from ltstore.kernels.rows import scale_rows
from ltstore.neighbors import class_donors
from ltstore.types import Donors, DoubleArray, FloatArray, IntArray, Moments, Rows, SyntheticRows


@dataclass(frozen=True, kw_only=True)
class DrawKey:
    """The randomness of rows [start, stop) of one class: whatever is drawn belongs to a row by its number."""

    purpose: str
    class_id: int
    start: int
    stop: int
    seed: int
    epoch: int

    def uniforms(self, n_draws: int, what: str = "uniform") -> DoubleArray:
        """Return (stop - start, n_draws) uniforms in (0, 1); another `what` gives independent ones."""
        return rng.row_uniforms(
            self.seed, f"{self.purpose}.{what}", self.class_id, self.epoch, self.start, self.stop, n_draws
        )

    def normals(self, n_draws: int, what: str = "normal") -> FloatArray:
        """Return (stop - start, n_draws) standard normals, float32; another `what` gives independent ones."""
        return normal_rows(self._words(what), self.start, self.stop, n_draws)

    def gauss_around(
        self,
        X: FloatArray,
        *,
        scale: float,
        shift: DoubleArray,
        factor: DoubleArray,
        deviation: DoubleArray,
        what: str = "normal",
    ) -> None:
        """Make of each of the key's rows, in place, ``scale x + shift + noise``.

        Parameters
        ----------
        X : (stop - start, D) float32
        scale : float
        shift : (D,) float64
        factor : (r, D) float64
            The noise has covariance ``factor' factor + diag(deviation^2)``.
        deviation : (D,) float64
        """
        shift32, factor32, deviation32 = (
            np.ascontiguousarray(each, np.float32) for each in (shift, factor, deviation)
        )
        gauss_around(
            X,
            self._words(what),
            self.start,
            scale=scale,
            shift=shift32,
            factor=factor32,
            deviation=deviation32,
        )

    def _words(self, what: str) -> RowKey:
        return rng.row_key(self.seed, f"{self.purpose}.{what}", self.class_id, self.epoch)


def nth_of(uniforms: DoubleArray, n: int | IntArray) -> IntArray:
    """Return floor(u n), never n: which of n things each uniform picks."""
    nth: IntArray = np.minimum((uniforms * n).astype(np.int64), n - 1)
    return nth


def slot_of(uniforms: DoubleArray, weights: DoubleArray) -> IntArray:
    """Return which of the weights, some of them not 0, each uniform picks, in proportion to them."""
    cumulative = np.cumsum(weights)
    slots: IntArray = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    return np.minimum(slots, int(np.flatnonzero(weights)[-1]))


class BaseSampler(ABC):
    """A sampler as `ltstore.types.Sampler`; public methods validate, `_fit` and `_draw` do the work.

    The random words depend on the sampler's name, not on its settings: two settings of one sampler are compared
    with the same noise.

    Parameters
    ----------
    settings : the sampler's settings dataclass, optional
        Its defaults if left out.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Any]]

    def __init__(self, settings: Any = None) -> None:
        if settings is not None and not isinstance(settings, self.settings_type):
            raise ConfigError(
                f"sampler {self.name} takes {self.settings_type.__name__}, found {type(settings).__name__}"
            )
        self._settings: Any = self.settings_type() if settings is None else settings
        self._rows: Rows | None = None
        self._resolved: dict[str, Any] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings, JSON values only; once fitted, what `_fit` estimated or read from a file is among them."""
        return asdict(self._settings) | self._resolved

    def fit(self, rows: Rows, moments: Moments, donors: Donors | None = None) -> Self:
        """Keep what sampling needs of the real rows.

        Parameters
        ----------
        rows : Rows
            Kept by reference; anchors are read from it when rows are drawn.
        moments : Moments
            Of the same rows.
        donors : Donors, optional
            Of the same rows; default: those of the nearest class means (`ltstore.neighbors.class_donors`).

        Raises
        ------
        DataError
            Rows, moments and donors do not describe the same classes and features.
        """
        labels, n_classes = rows.labels, len(rows.class_names)
        # Position lists per class in one array: `_class_positions[_first[c]:_first[c + 1]]`, ascending.
        self._class_positions = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        self._counts = np.bincount(labels[labels >= 0], minlength=n_classes).astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._counts)])
        if moments.means.shape != (n_classes, rows.n_features):
            raise DataError(
                f"moments have shape (classes, features) {moments.means.shape}, the rows have "
                f"{(n_classes, rows.n_features)}: compute them from these rows"
            )
        if not np.array_equal(moments.counts, self._counts):
            c = int(np.flatnonzero(moments.counts != self._counts)[0])
            raise DataError(
                f"moments count {moments.counts[c]} rows of class {rows.class_names[c]!r}, the rows have "
                f"{self._counts[c]}: compute them from these rows"
            )
        if donors is None:
            donors = class_donors(moments.means, moments.counts)
        if len(donors.class_ids) != n_classes:
            raise DataError(f"donors are of {len(donors.class_ids)} classes, the rows of {n_classes}")
        self._rows = rows
        self._fit(moments, donors)
        return self

    def sample(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> SyntheticRows:
        """Return rows [start, stop) of the class's endless sequence: slices of it agree however it is cut.

        Rows have unit norm where the real rows have.

        Raises
        ------
        DataError
            The sampler has not been fitted, or the class has no rows.
        LabelError
            `class_id` is not one of the classes.
        ConfigError
            `start`, `stop`, `seed` or `epoch` is negative, or start > stop.
        """
        made = self._draw(class_id, self._key(class_id, start, stop, seed, epoch))
        if self.rows.normalized:
            scale_rows(made.X)
        return made

    def _key(self, class_id: int, start: int, stop: int, seed: int, epoch: int) -> DrawKey:
        """Return the key of rows [start, stop), or raise what `sample` raises."""
        rows = self.rows
        n_classes = len(rows.class_names)
        if not 0 <= class_id < n_classes:
            raise LabelError(f"class {class_id} is outside the {n_classes} classes")
        if not 0 <= start <= stop or seed < 0 or epoch < 0:
            raise ConfigError(
                f"need 0 <= start <= stop, seed >= 0, epoch >= 0; found {start}, {stop}, {seed}, {epoch}"
            )
        if not self._counts[class_id]:
            raise DataError(
                f"class {rows.class_names[class_id]!r} has no rows to sample from: give it a target of 0 rows"
            )
        return DrawKey(
            purpose=f"sample.{self.name}", class_id=class_id, start=start, stop=stop, seed=seed, epoch=epoch
        )

    @property
    def rows(self) -> Rows:
        """The real rows it was fitted to; DataError before `fit`."""
        if self._rows is None:
            raise DataError(f"sampler {self.name} has not been fitted: call fit(rows, moments) first")
        return self._rows

    def _pick(self, class_id: int | IntArray, uniforms: DoubleArray) -> IntArray:
        """Return positions (in the rows) of real rows of the class, or of a class each, one for each uniform."""
        positions: IntArray = self._class_positions[
            self._first[class_id] + nth_of(uniforms, self._counts[class_id])
        ]
        return positions

    @abstractmethod
    def _fit(self, moments: Moments, donors: Donors) -> None:
        """Keep what `_draw` needs; everything has been validated."""

    @abstractmethod
    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        """Return the key's rows of a class with at least one real row; not renormalised."""
