"""What every source has in common: keys, labels, class names, and the digest over them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ltstore.errors import LabelError
from ltstore.rows import BLOCK_ROWS
from ltstore.sources.decode import decode_image
from ltstore.sources.texts import LazyTexts
from ltstore.types import UNLABELLED, ByteArray, IntArray

Fetched = bytes | ByteArray | Image.Image
"""What a row is before it is decoded: a file's bytes, an (H, W) or (H, W, 3) array, or already an image."""


class Parts(NamedTuple):
    """What a source is best read in the order of.

    Attributes
    ----------
    starts : (n_parts + 1,) int64
        The first row of each part, and N.
    at_once : int
        Parts that may be read from at the same time.
    """

    starts: IntArray
    at_once: int = 1


class LabelledSource(ABC):
    """A fixed list of keys and labels; a subclass says where a row's bytes or pixels come from.

    Parameters
    ----------
    keys : sequence of str
        N keys, in the order of the rows. Copied, except `LazyTexts`.
    labels : (N,) ints
        Positions in `class_names`, UNLABELLED where unknown. Copied.
    class_names : sequence of str
        C names, unique.

    Raises
    ------
    LabelError
        A label is outside the classes, or a class name comes twice.
    """

    def __init__(self, keys: Sequence[str], labels: ArrayLike, class_names: Sequence[str]) -> None:
        self._keys = keys if isinstance(keys, LazyTexts) else tuple(keys)
        self._labels = np.array(labels, dtype=np.int64).reshape(-1)
        self._class_names = tuple(class_names)
        self._labels.flags.writeable = False
        if len(self._labels) != len(self._keys):
            raise LabelError(
                f"expected one label for each of {len(self._keys)} rows, found {len(self._labels)}"
            )
        check_unique(self._class_names)
        outside = np.flatnonzero((self._labels < UNLABELLED) | (self._labels >= len(self._class_names)))
        if len(outside):
            row = int(outside[0])
            raise LabelError(
                f"label {self._labels[row]} of row {row} ({self._keys[row]}) is outside the "
                f"{len(self._class_names)} classes: give a name for every class"
            )

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self._keys)

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; the label of a row is a position in it."""
        return self._class_names

    @property
    def labels(self) -> IntArray:
        """(N,) int64, UNLABELLED where unknown. Read-only."""
        return self._labels

    @cached_property
    def digest(self) -> str:
        """ "sha256:..." over keys and labels in order, and `content`: what a resumed ingest must find unchanged.

        Computed at the first use: one stat a file (about 5 us on a local disk), or one hash of the pixels where
        they are in memory. Files are not read: one that was changed and kept its size is not noticed.
        """
        state = hashlib.sha256(f"{len(self._keys)}\n".encode())
        for start in range(0, len(self._keys), BLOCK_ROWS):
            state.update("".join(f"{key}\0" for key in self._keys[start : start + BLOCK_ROWS]).encode())
        state.update(self._labels.astype("<i8").tobytes())
        state.update(self.content(np.arange(len(self._keys))))
        return "sha256:" + state.hexdigest()

    def key(self, position: int) -> str:
        """Return where row `position` came from."""
        return self._keys[position]

    def content(self, positions: IntArray) -> bytes:
        """Return what `digest` is to hold of the rows at `positions` beside keys and labels; default nothing."""
        return b""

    def is_present(self, positions: IntArray) -> bool:
        """Tell whether any of the rows at `positions` is there, as far as that shows without reading it."""
        return True

    @property
    def parts(self) -> Parts:
        """What the rows are best read in the order of; default one part, whose rows may be read in any order."""
        return Parts(np.array([0, self.n_samples]))

    @property
    def knows_missing(self) -> bool:
        """Whether the source itself says which rows are MISSING: all of many then do not mean a lost disk."""
        return False

    def place(self, position: int) -> str:
        """Return where row `position` is looked for; default its key."""
        return self._keys[position]

    @abstractmethod
    def fetch(self, position: int) -> Fetched:
        """Return row `position` before decoding, or raise ImageError: the part of `read` that waits."""

    def read(self, position: int) -> Image.Image:
        """Return row `position` as an RGB image, or raise ImageError with the status to keep."""
        return to_image(self.fetch(position), self._keys[position])


def to_image(fetched: Fetched, key: str, least_side: int | None = None) -> Image.Image:
    """Decode what `LabelledSource.fetch` gave into an RGB image; see `decode_image`."""
    if isinstance(fetched, bytes):
        return decode_image(fetched, key, least_side)
    if isinstance(fetched, np.ndarray):
        return Image.fromarray(fetched).convert("RGB")
    return fetched


def check_unique(class_names: Sequence[str]) -> None:
    """Raise LabelError where a class name comes twice: rows are matched to a store's classes by name."""
    if len(set(class_names)) == len(class_names):
        return
    twice = next(name for i, name in enumerate(class_names) if name in class_names[:i])
    raise LabelError(f"class name {twice!r} comes twice among {len(class_names)}: make the names unique")
