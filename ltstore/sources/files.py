"""Rows that are files under one directory: what the folder, list and images sources have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ltstore.sources.base import LabelledSource
from ltstore.sources.decode import file_size, read_file
from ltstore.sources.keys import key_of
from ltstore.sources.texts import LazyTexts, PackedTexts
from ltstore.types import IntArray


class FileSource(LabelledSource):
    """Files named by paths; the keys are those paths as `ltstore.sources.keys.key_of` writes them.

    Parameters
    ----------
    root : Path
        Where relative paths start.
    paths : sequence of str
        N paths, in the order of the rows.
    labels, class_names
        As in `LabelledSource`.

    Notes
    -----
    Paths are held as `PackedTexts`, and keys are made of them when they are asked for: a row takes the bytes of its
    path and 24 more.
    """

    def __init__(self, root: Path, paths: Sequence[str], labels: ArrayLike, class_names: Sequence[str]) -> None:
        self._root = root
        self._paths = PackedTexts.of(paths)
        super().__init__(_PathKeys(self._paths), labels, class_names)

    def fetch(self, position: int) -> bytes:
        """Return the file's bytes."""
        return read_file(self._root / self._paths[position], self._keys[position])

    def content(self, positions: IntArray) -> bytes:
        """Return the sizes of the files, -1 where there is none."""
        return self._sizes[positions].tobytes()

    def is_present(self, positions: IntArray) -> bool:
        """Tell whether any of the files is there."""
        return bool((self._sizes[positions] >= 0).any())

    def place(self, position: int) -> str:
        """Return the whole path."""
        return key_of(str((self._root / self._paths[position]).absolute()))

    @cached_property
    def _sizes(self) -> IntArray:
        sizes = (file_size(self._root / path) for path in self._paths)
        return np.fromiter(sizes, "<i8", len(self._paths))


class _PathKeys(LazyTexts):
    """The keys of paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def text(self, position: int) -> str:
        return key_of(self._paths[position])
