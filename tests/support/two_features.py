"""An encoder of two kinds of features in one pass, without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ltstore.encode import PixelEncoder
from ltstore.encode.options import FEATURES
from ltstore.types import ByteArray, EncoderIdentity, FloatArray


class TwoFeatures(PixelEncoder):
    """Pixels, called projected, and beside them their squares and cubes, called penultimate; or one of both."""

    def __init__(self, height: int, width: int, *kinds: str) -> None:
        super().__init__(height, width)
        self._kinds = kinds or FEATURES

    @property
    def parts(self) -> tuple[EncoderIdentity, ...]:
        """Of D and 2 D columns."""
        own = super().identity
        widths = dict(zip(FEATURES, (own.n_features, 2 * own.n_features), strict=True))
        return tuple(replace(own, features=kind, n_features=widths[kind]) for kind in self._kinds)

    @property
    def identity(self) -> EncoderIdentity:  # type: ignore[override]
        """Of all columns."""
        n_features = sum(part.n_features for part in self.parts)
        return replace(self.parts[0], features=",".join(self._kinds), n_features=n_features)

    def encode(self, batch: ByteArray) -> FloatArray:
        """(n, D) uint8 -> (n, D), (n, 2 D) or (n, 3 D) float32."""
        X = super().encode(batch)
        found = {"projected": [X], "penultimate": [X**2, X**3]}
        return np.concatenate([column for kind in self._kinds for column in found[kind]], axis=1)
