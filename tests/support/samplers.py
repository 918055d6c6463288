"""Every sampler of the registry, ready to be fitted: those that need a file get one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ltstore.sampling import BaseSampler, make_sampler
from ltstore.types import Rows

_FILES = tempfile.TemporaryDirectory(prefix="ltstore-test-")


def text_vectors(n_classes: int, n_features: int) -> Path:
    """A file of made text vectors, the same each time."""
    path = Path(_FILES.name) / f"{n_classes}x{n_features}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(1).normal(size=(n_classes, n_features)))
    return path


def ready(name: str, rows: Rows) -> BaseSampler:
    """Return the sampler with default settings, and text vectors if it cannot do without."""
    if name != "text":
        return make_sampler(name)
    return make_sampler(name, vectors=str(text_vectors(len(rows.class_names), rows.n_features)))
