"""scikit-learn's 1,797 handwritten digits: 8 x 8 grey images that need no download."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError
from ltstore.rng import stream
from ltstore.sources.base import LabelledSource
from ltstore.types import ByteArray

SPLITS = ("train", "test")
TRAIN_SHARE = 0.7


class DigitsSource(LabelledSource):
    """The digits of ``sklearn.datasets.load_digits``, cut once and for all into train and test.

    The cut is stratified: of each class, round(0.7 n) rows drawn by seed 0 of the seed tree are "train", the
    rest "test"; rows keep scikit-learn's order. Keys are "digits/0123", the row number there. Pixels 0..16
    are scaled to ``round(value * 255 / 16)``, and ``round(pixel * 16 / 255)`` gives them back.

    Parameters
    ----------
    split : str
        "train" (1,258 rows) or "test" (539).

    Raises
    ------
    ConfigError
        Another split.
    """

    def __init__(self, split: str = "train") -> None:
        if split not in SPLITS:
            raise ConfigError(f"digits has the splits {' and '.join(SPLITS)}, found {split!r}")
        from sklearn.datasets import load_digits

        digits = load_digits()
        labels = digits.target.astype(np.int64)
        train = np.zeros(len(labels), bool)
        for class_id in range(10):
            members = np.flatnonzero(labels == class_id)
            n_train = int(np.floor(TRAIN_SHARE * len(members) + 0.5))
            train[stream(0, "digits.split", class_id).permutation(members)[:n_train]] = True
        chosen = np.flatnonzero(train if split == "train" else ~train)
        super().__init__([f"digits/{row:04d}" for row in chosen], labels[chosen], [str(d) for d in range(10)])
        self._images: ByteArray = np.floor(digits.images[chosen] * (255 / 16) + 0.5).astype(np.uint8)

    def fetch(self, position: int) -> ByteArray:
        """Return the (8, 8) uint8 pixels."""
        pixels: ByteArray = self._images[position]
        return pixels
