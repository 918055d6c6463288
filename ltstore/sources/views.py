"""Sources made from another source: some of its rows, or its rows under other class numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, LabelError, SourceError, SourceNotFoundError
from ltstore.sources.base import Fetched, LabelledSource, Parts, check_unique
from ltstore.sources.texts import LazyTexts
from ltstore.types import UNLABELLED, ImageSource, IntArray

_ROW_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")
_LARGEST_ROW = 2**63 - 1


class SelectedSource(LabelledSource):
    """The rows of another source at given positions, in the order given.

    Parameters
    ----------
    source : ImageSource
    positions : (n,) ints
        0..N-1 of `source`; at least one.
    copy : bool
        Keep a copy of the positions; without, int64 ones are kept as they are, and must not be modified.

    Raises
    ------
    ConfigError
        No positions, or one outside the source.
    """

    def __init__(self, source: ImageSource, positions: ArrayLike, *, copy: bool = True) -> None:
        self._source = source
        self._positions = _checked_positions(positions, source.n_samples, copy=copy)
        super().__init__(_KeysOf(source, self._positions), source.labels[self._positions], source.class_names)

    def content(self, positions: IntArray) -> bytes:
        """Return what the other source says of its rows."""
        return _content(self._source, self._positions[positions])

    def is_present(self, positions: IntArray) -> bool:
        """Ask the other source."""
        return not isinstance(self._source, LabelledSource) or self._source.is_present(
            self._positions[positions]
        )

    @property
    def parts(self) -> Parts:
        """Those of the other source where rows are in its order, else one."""
        if (self._positions[1:] < self._positions[:-1]).any():
            return super().parts
        starts, at_once = parts_of(self._source)
        return Parts(np.searchsorted(self._positions, starts), at_once)

    @property
    def knows_missing(self) -> bool:
        """Ask the other source."""
        return isinstance(self._source, LabelledSource) and self._source.knows_missing

    def place(self, position: int) -> str:
        """Ask the other source."""
        return _place(self._source, int(self._positions[position]))

    def fetch(self, position: int) -> Fetched:
        """Return the row as the other source does."""
        return _fetched(self._source, int(self._positions[position]))


class RelabelledSource(LabelledSource):
    """The rows of another source with labels mapped, by name, to positions in other class names.

    Parameters
    ----------
    source : ImageSource
    class_names : sequence of str
        The new classes; every class of `source` that has rows must be among them.

    Raises
    ------
    LabelError
        A class that has rows is not among them: names it.
    """

    def __init__(self, source: ImageSource, class_names: Sequence[str]) -> None:
        check_unique(class_names)
        self._source = source
        position_of = {name: i for i, name in enumerate(class_names)}
        moved = np.array([position_of.get(name, -2) for name in source.class_names] + [UNLABELLED], np.int64)
        labels = moved[source.labels]  # UNLABELLED is -1: the last entry
        foreign = sorted({source.class_names[y] for y in np.unique(source.labels[labels == -2])})
        if foreign:
            some = ", ".join(map(repr, foreign[:3])) + (", ..." if len(foreign) > 3 else "")
            raise LabelError(
                f"{len(foreign)} of the source's classes are not among the {len(class_names)} expected ones: "
                f"{some}; rename them, leave their rows out (indices), or use a new store"
            )
        super().__init__(_KeysOf(source, range(source.n_samples)), labels, class_names)

    def content(self, positions: IntArray) -> bytes:
        """Return what the other source says of its rows."""
        return _content(self._source, positions)

    def is_present(self, positions: IntArray) -> bool:
        """Ask the other source."""
        return not isinstance(self._source, LabelledSource) or self._source.is_present(positions)

    @property
    def parts(self) -> Parts:
        """Those of the other source."""
        return parts_of(self._source)

    @property
    def knows_missing(self) -> bool:
        """Ask the other source."""
        return isinstance(self._source, LabelledSource) and self._source.knows_missing

    def place(self, position: int) -> str:
        """Ask the other source."""
        return _place(self._source, position)

    def fetch(self, position: int) -> Fetched:
        """Return the row as the other source does."""
        return _fetched(self._source, position)


class _KeysOf(LazyTexts):
    """The keys of another source's rows."""

    def __init__(self, source: ImageSource, positions: IntArray | range) -> None:
        self._source, self._positions = source, positions

    def __len__(self) -> int:
        return len(self._positions)

    def text(self, position: int) -> str:
        return self._source.key(int(self._positions[position]))


def read_indices(path: str | Path) -> IntArray:
    """Return row numbers from a .npy file of integers, or from a text file with one a line.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        It does not hold one row of integers: names the line, or what it holds.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceNotFoundError(f"no file {path}: expected row numbers, .npy or one a line")
    if path.suffix == ".npy":
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, OverflowError, MemoryError) as err:
            raise SourceError(f"cannot read {path}: {err}") from err
        if not isinstance(found, np.ndarray):  # an .npz under another name
            found.close()
            raise SourceError(f"{path} must hold one row of integers, found an archive of several arrays")
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise SourceError(
                f"{path} must hold one row of integers, found {found.dtype} of shape {found.shape}"
            )
        if found.size and int(found.max()) > _LARGEST_ROW:
            raise SourceError(f"{path}: {found.max()} is no row number")
        return found.astype(np.int64)
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err
    numbers = []
    for line_number, line in enumerate(text.splitlines(), 1):
        if not _ROW_NUMBER.fullmatch(line) or abs(int(line)) > _LARGEST_ROW:
            raise SourceError(f"{path}, line {line_number}: expected a row number, found {line[:80]!r}")
        numbers.append(int(line))
    return np.array(numbers, np.int64)


def relabelled(source: ImageSource, class_names: Sequence[str]) -> ImageSource:
    """Return `source` itself where its classes are `class_names` already, else a `RelabelledSource`."""
    return source if source.class_names == tuple(class_names) else RelabelledSource(source, class_names)


def parts_of(source: ImageSource) -> Parts:
    """Return what a source is best read in the order of; see `LabelledSource.parts`."""
    return source.parts if isinstance(source, LabelledSource) else Parts(np.array([0, source.n_samples]))


def _fetched(source: ImageSource, position: int) -> Fetched:
    return source.fetch(position) if isinstance(source, LabelledSource) else source.read(position)


def _content(source: ImageSource, positions: IntArray) -> bytes:
    return source.content(positions) if isinstance(source, LabelledSource) else source.digest.encode()


def _place(source: ImageSource, position: int) -> str:
    return source.place(position) if isinstance(source, LabelledSource) else source.key(position)


def _checked_positions(positions: ArrayLike, n_samples: int, *, copy: bool) -> IntArray:
    chosen = np.asarray(positions)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen):
        raise ConfigError(
            f"indices must be one non-empty row of integers, found shape {chosen.shape} of {chosen.dtype}"
        )
    chosen = chosen.astype(np.int64, copy=copy)
    bad = np.flatnonzero((chosen < 0) | (chosen >= n_samples))
    if len(bad):
        raise ConfigError(
            f"index {chosen[bad[0]]} (entry {bad[0]}) is outside the source's rows, 0..{n_samples - 1}"
        )
    return chosen
