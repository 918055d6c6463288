"""Carry a plan out: read real rows, draw synthetic ones, keep them where they fit."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ConfigError, DataError
from ltstore.rows import BLOCK_ROWS, class_counts
from ltstore.sampling import AffineSampler
from ltstore.stream.batches import read_ahead
from ltstore.stream.combined import COMBINED_BYTES, CombinedRows, combined_rows, why_not_combined
from ltstore.stream.plan import (
    RealBlock,
    SyntheticBlock,
    SyntheticPiece,
    plan_part,
    plan_real,
    plan_synthetic,
)
from ltstore.types import UNLABELLED, DoubleArray, FloatArray, IntArray, Rows, Sampler

CACHE_BYTES = 2 << 30

Block = tuple[FloatArray, IntArray, FloatArray | None]


class TrainingStream:
    """Real rows in their order, then synthetic rows class by class; every pass gives the same blocks.

    Iterating yields (X, labels, weights): X (n, D) float32, labels (n,) int64, weights (n,) float32 or None
    for ones. The arrays are read-only, and valid until the next step only.

    Parameters
    ----------
    rows : Rows
        Real rows. Unlabelled ones are left out and counted in `n_unlabelled`.
    sampler : Sampler, optional
        A fitted sampler; needs `targets`.
    targets : (C,) int64, optional
        How many synthetic rows each class gets on top of its real ones.
    weights : (N,) float32, optional
        Weight of each real row in the loss, finite and at least 0; synthetic rows weigh 1. Default: ones.
    seed, epoch : int
        Passed to the sampler: they decide which synthetic rows.
    block_rows : int
        Rows of a block. A result summed over the stream depends on it by rounding only.
    cache_bytes : int
        The stream keeps its real blocks in memory if they fit into this, and its synthetic ones if all do; otherwise
        every pass reads or draws them again.
    combine : bool
        Let `combined` give synthetic rows as sums where that is possible.

    Raises
    ------
    ConfigError
        A sampler without targets, targets without a sampler, or targets of another shape or negative.
    DataError
        No labelled row at all, weights that are none, or the sampler gives something else than it was asked for.

    Notes
    -----
    Memory: 4 D bytes a row where cached, otherwise 8 D bytes times `block_rows` (half as much again if some rows are
    unlabelled): a thread of its own loads the next block while one is worked on. One iteration at a time then.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        sampler: Sampler | None = None,
        targets: IntArray | None = None,
        weights: FloatArray | None = None,
        seed: int = 0,
        epoch: int = 0,
        block_rows: int = BLOCK_ROWS,
        cache_bytes: int = CACHE_BYTES,
        combine: bool = True,
    ) -> None:
        n_classes = len(rows.class_names)
        self._rows = rows
        self._sampler = sampler
        self._targets = _checked_targets(sampler, targets, n_classes)
        self._weights = None if weights is None else check_weights(weights, rows)
        self._seed, self._epoch = seed, epoch
        self._block_rows = block_rows
        self._combine = combine
        self._real_counts = class_counts(rows)
        self._n_real = int(self._real_counts.sum())
        if self._n_real == 0:
            raise DataError(
                f"training needs labelled rows, found none among {rows.n_samples} rows of {n_classes} classes"
            )
        self._cache_bytes, self._combined_bytes = cache_bytes, COMBINED_BYTES
        self._lay_out(0, 1)

    def _lay_out(self, number: int, n_parts: int) -> None:
        """Plan the blocks of a part, with nothing read yet."""
        labels = self._rows.labels
        self._n_parts = n_parts
        self._part = part = plan_part(labels, self._targets, number, n_parts)
        real = plan_real(part.stop, self._block_rows, start=part.start)
        self._n_real_blocks = len(real)
        self._plan: tuple[RealBlock | SyntheticBlock, ...] = (
            *real,
            *plan_synthetic(part.last, self._block_rows, first=part.first),
        )
        row_bytes = 4 * self._rows.n_features
        self._n_given = n_real = int(np.count_nonzero(labels[part.start : part.stop] != UNLABELLED))
        self._real_cached = row_bytes * n_real <= self._cache_bytes
        self._cached = row_bytes * (n_real + part.n_synthetic) <= self._cache_bytes
        self._largest = min(self._block_rows, max(part.stop - part.start, part.n_synthetic))
        self._forget()

    def _forget(self) -> None:
        """Drop what is kept of the rows."""
        self._cache: list[Block | None] = [None] * len(self._plan)
        self._buffers: FloatArray | None = None  # two blocks: one is worked on, one is loaded
        self._combined: CombinedRows | None = None
        self._why_not: dict[int, str] = {}  # by columns

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept of the rows: it is read again."""
        other = copy.copy(self)
        other._forget()
        return vars(other)

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def part(self, number: int, n_parts: int, *, sharing: int = 1) -> Self:
        """Return a stream that gives one part of the blocks, and is the whole one in all it says of a pass.

        What is added up over the blocks of all parts is what is added up over those of the whole, within rounding; a
        part may be empty. Nothing is shared that is read or drawn.

        Parameters
        ----------
        number, n_parts : int
            Parts are numbered from 0 (`ltstore.stream.plan.plan_part`).
        sharing : int
            How many parts share one memory: this one keeps at most that share of what the whole may.
        """
        other = copy.copy(self)
        other._cache_bytes //= sharing
        other._combined_bytes //= sharing
        other._lay_out(number, n_parts)
        return other

    @property
    def rows(self) -> Rows:
        """The real rows."""
        return self._rows

    @property
    def n_real(self) -> int:
        """Labelled real rows in a pass."""
        return self._n_real

    @property
    def n_unlabelled(self) -> int:
        """Real rows left out because they have no label."""
        return self._rows.n_samples - self._n_real

    @property
    def n_synthetic(self) -> int:
        """Synthetic rows in a pass."""
        return int(self._targets.sum())

    @property
    def n_samples(self) -> int:
        """All rows of a pass."""
        return self._n_real + self.n_synthetic

    def n_given(self, *, real_only: bool = False) -> int:
        """Return how many rows the blocks give; those of a part are its own."""
        return self._n_given + (0 if real_only else self._part.n_synthetic)

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self._rows.class_names)

    @property
    def n_features(self) -> int:
        """D."""
        return self._rows.n_features

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._rows.class_names

    @property
    def real_counts(self) -> IntArray:
        """(C,) int64: real rows of each class."""
        return self._real_counts

    @property
    def targets(self) -> IntArray:
        """(C,) int64: synthetic rows of each class. Read-only."""
        return self._targets

    def identity(self) -> dict[str, Any]:
        """Return what decides the rows of a pass and the order of sums, as JSON values; may read all rows once."""
        return {
            "rows": self._rows.digest,
            "row_weights": None if self._weights is None else _digest(self._weights),
            "sampler": None if self._sampler is None else self._sampler.name,
            "sampler_settings": None if self._sampler is None else dict(self._sampler.settings),
            "targets": _digest(self._targets),
            "seed": self._seed,
            "epoch": self._epoch,
            "block_rows": self._block_rows,
            "combine": self._combine,
            "real_cached": self._real_cached,
        }

    @property
    def class_counts(self) -> IntArray:
        """(C,) int64: rows of each class in a pass, real and synthetic."""
        return self._real_counts + self._targets

    @property
    def class_shares(self) -> DoubleArray:
        """(C,) float64: each class's share of the weight of a pass, the prior q that the loss is adjusted by."""
        shares: DoubleArray = self._class_mass / self._class_mass.sum()
        return shares

    @property
    def mean_weight(self) -> float:
        """Weight of a row of a pass on average; 1 unless weights were given."""
        return float(self._class_mass.sum()) / self.n_samples

    @property
    def row_weights(self) -> FloatArray | None:
        """(N,) float32 weights of the real rows, None for ones. Read-only."""
        return self._weights

    @property
    def _class_mass(self) -> DoubleArray:
        if self._weights is None:
            return self.class_counts.astype(np.float64)
        known = self._rows.labels != UNLABELLED
        mass: DoubleArray = self._targets.astype(np.float64)
        mass += np.bincount(self._rows.labels[known], self._weights[known], minlength=self.n_classes)
        return mass

    @property
    def real_cached(self) -> bool:
        """Whether the real rows are kept in memory."""
        return self._real_cached

    def __iter__(self) -> Iterator[Block]:
        yield from self.real_blocks()
        yield from self._blocks(range(self._n_real_blocks, len(self._plan)), keep=self._cached)

    def real_blocks(self) -> Iterator[Block]:
        """Yield the blocks of real rows alone."""
        yield from self._blocks(range(self._n_real_blocks), keep=self._real_cached)

    def why_not_combined(self, n_columns: int) -> str:
        """Return why a pass has to make its synthetic rows, "" where `combined` is enough, or there are none.

        Parameters
        ----------
        n_columns : int
            Logits of a row, of all heads that are trained together.
        """
        if not self._part.n_synthetic:
            return ""
        if not self._combine:
            return "asked for"
        if n_columns not in self._why_not:  # asked in every pass, and a row is drawn to answer
            n_drawn = self._part.last - self._part.first
            self._why_not[n_columns] = why_not_combined(
                self._sampler, self._rows, n_drawn, n_columns, self._combined_bytes
            )
        if why := self._why_not[n_columns]:
            return why
        if self._n_parts == 1 or self._sums.n_beyond < self._part.n_synthetic:
            return ""
        return f"a part of {self._part.n_synthetic} would need {self._sums.n_beyond} real rows of other parts"

    def combined(self, n_columns: int) -> CombinedRows | None:
        """Return the synthetic rows of a pass as sums; None where they have to be made, or there are none.

        The real rows among the atoms are all of those of `real_blocks`, in that order, where they are cached; else
        those that are needed.
        """
        if not self._part.n_synthetic or self.why_not_combined(n_columns):
            return None
        return self._sums

    @property
    def _sums(self) -> CombinedRows:
        """The synthetic rows as sums, made once."""
        if self._combined is None:
            assert isinstance(self._sampler, AffineSampler)
            positions = None
            if self._real_cached:
                own = self._rows.labels[self._part.start : self._part.stop]
                positions = self._part.start + np.flatnonzero(own != UNLABELLED)
            self._combined = combined_rows(
                self._sampler,
                self._part.last,
                first=self._part.first,
                seed=self._seed,
                epoch=self._epoch,
                positions=positions,
            )
        return self._combined

    def _blocks(self, positions: range, *, keep: bool) -> Iterator[Block]:
        """Yield blocks that have rows; those that are not kept are loaded while the one before is worked on."""
        found = map(self._keep, positions) if keep else self._ahead(positions)
        yield from (loaded for loaded in found if len(loaded[1]))

    def _keep(self, position: int) -> Block:
        loaded = self._cache[position]
        if loaded is None:
            loaded = self._cache[position] = self._load(position, None)
        return loaded

    def _ahead(self, positions: range) -> Iterator[Block]:
        if self._buffers is None:
            self._buffers = np.empty((2, self._largest, self.n_features), np.float32)
        wanted = zip(positions, cycle(self._buffers), strict=False)
        return read_ahead(lambda one: self._load(*one), wanted, 1)

    def _load(self, position: int, buffer: FloatArray | None) -> Block:
        block = self._plan[position]
        if isinstance(block, RealBlock):
            loaded = self._load_real(block, buffer)
        else:
            loaded = self._load_synthetic(block, buffer)
        for array in loaded[:2]:
            array.flags.writeable = False
        return loaded

    def _load_real(self, block: RealBlock, buffer: FloatArray | None) -> Block:
        labels = self._rows.labels[block.start : block.stop]
        X = self._rows.read(block.start, block.stop, out=_start(buffer, block.stop - block.start))
        weights = None if self._weights is None else self._weights[block.start : block.stop]
        known = labels != UNLABELLED
        if known.all():
            return X, labels.view(), weights
        return X[known], labels[known], None if weights is None else weights[known]

    def gather(self, real: IntArray, first: IntArray, n_drawn: IntArray) -> Block:
        """Return rows of the pass by number, as a new block.

        Parameters
        ----------
        real : (n,) int64
            Positions in `rows`, each with a label.
        first, n_drawn : (C,) int64
            Synthetic rows [first, first + n_drawn) of each class follow them.
        """
        pieces = tuple(
            SyntheticPiece(c, int(first[c]), int(first[c] + n_drawn[c]))
            for c in np.flatnonzero(n_drawn).tolist()
        )
        n = len(real) + int(n_drawn.sum())
        X, labels = np.empty((n, self.n_features), np.float32), np.empty(n, np.int64)
        self._rows.take(real, out=X[: len(real)])
        labels[: len(real)] = self._rows.labels[real]
        self._draw(pieces, X[len(real) :], labels[len(real) :])
        if self._weights is None:
            return X, labels, None
        return X, labels, np.concatenate([self._weights[real], np.ones(n - len(real), np.float32)])

    def _load_synthetic(self, block: SyntheticBlock, buffer: FloatArray | None) -> Block:
        X = _start(buffer, block.n_rows)
        if X is None:
            X = np.empty((block.n_rows, self.n_features), np.float32)
        labels = np.empty(block.n_rows, np.int64)
        self._draw(block.pieces, X, labels)
        return X, labels, None

    def _draw(self, pieces: tuple[SyntheticPiece, ...], X: FloatArray, labels: IntArray) -> None:
        """Draw pieces one after the other into X and labels."""
        at = 0
        for piece in pieces:
            assert self._sampler is not None
            n = piece.stop - piece.start
            made = self._sampler.sample(
                piece.class_id, piece.start, piece.stop, seed=self._seed, epoch=self._epoch
            )
            if made.X.shape != (n, self.n_features) or (made.labels != piece.class_id).any():
                raise DataError(
                    f"sampler {self._sampler.name!r} was asked for {n} rows of class {piece.class_id} with "
                    f"{self.n_features} features and gave {made.X.shape} with labels "
                    f"{np.unique(made.labels).tolist()}: it was fitted on other rows"
                )
            X[at : at + n] = made.X
            labels[at : at + n] = piece.class_id
            at += n


def _start(buffer: FloatArray | None, n: int) -> FloatArray | None:
    return None if buffer is None else buffer[:n]


def _checked_targets(sampler: Sampler | None, targets: IntArray | None, n_classes: int) -> IntArray:
    if sampler is None:
        if targets is not None and np.any(targets):
            raise ConfigError("targets ask for synthetic rows and there is no sampler: give both or neither")
        return np.zeros(n_classes, np.int64)
    if targets is None:
        raise ConfigError(f"sampler {sampler.name!r} needs targets: how many rows each class gets")
    checked = np.asarray(targets)
    if checked.shape != (n_classes,) or checked.dtype.kind not in "iu" or (checked < 0).any():
        raise ConfigError(
            f"targets must be {n_classes} non-negative integers, one per class; "
            f"found shape {checked.shape} of {checked.dtype}"
        )
    return checked.astype(np.int64)


def check_weights(weights: FloatArray, rows: Rows) -> FloatArray:
    """Return a read-only copy of (N,) row weights; DataError where they are none."""
    column = np.array(weights, np.float32)
    if column.shape != (rows.n_samples,) or not np.isfinite(column).all() or (column < 0).any():
        raise DataError(
            f"row weights must be {rows.n_samples} finite numbers of at least 0, one per row; found shape "
            f"{column.shape}, values from {column.min(initial=0):g} to {column.max(initial=0):g}"
        )
    if not column[rows.labels != UNLABELLED].any():
        raise DataError("row weights are all 0: nothing would be trained on")
    column.flags.writeable = False
    return column


def _digest(array: NDArray[Any]) -> str:
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
