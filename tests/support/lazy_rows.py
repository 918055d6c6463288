"""Any number of rows that take no memory: each is a pure function of its number."""

from __future__ import annotations

import numpy as np

from ltstore.types import EncoderIdentity, FloatArray, IntArray

_N_NOISE = 4099


class LazyRows:
    """Clusters of unit-norm rows, as `ltstore.types.Rows`; every tenth class has a row in a thousand of the others'."""

    normalized = True
    digest = "sha256:lazy"

    def __init__(self, n_samples: int, n_features: int, n_classes: int = 200) -> None:
        self.n_samples, self.n_features = n_samples, n_features
        rng = np.random.default_rng(0)
        self._centres = rng.standard_normal((n_classes, n_features), np.float32)
        self._noise = rng.standard_normal((_N_NOISE, n_features), np.float32)
        share = np.where(np.arange(n_classes) % 10 == 0, 1e-3, 1.0)
        self.labels: IntArray = rng.choice(n_classes, n_samples, p=share / share.sum())
        self.row_ids: IntArray = np.arange(n_samples)
        self.class_names = tuple(map(str, range(n_classes)))
        self.encoder = EncoderIdentity(encoder="made", model="lazy", n_features=n_features)

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        return self.take(np.arange(start, stop), out)

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        X = np.empty((len(positions), self.n_features), np.float32) if out is None else out
        np.add(self._centres[self.labels[positions]], self._noise[positions % _N_NOISE], out=X)
        X += 0.5 * self._noise[(positions * 7919 + 1) % (_N_NOISE - 1)]
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        return X
