"""Every sampler of the registry, and some with a judge over them, ready to be fitted; with a file if they need one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ltstore.linear import gda
from ltstore.sampling import SAMPLERS, AcceptingSampler, BaseSampler, LinearJudge, NearestJudge, make_sampler
from ltstore.types import Rows

ACCEPTING = ("neighbor-gauss, gda", "kde, nearest", "smote, gda", "vmf, nearest")
"""A sampler, and the judge of its rows."""
EVERY = (*SAMPLERS, *ACCEPTING)

_FILES = tempfile.TemporaryDirectory(prefix="ltstore-test-")


def text_vectors(n_classes: int, n_features: int) -> Path:
    """A file of made text vectors, the same each time."""
    path = Path(_FILES.name) / f"{n_classes}x{n_features}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(1).normal(size=(n_classes, n_features)))
    return path


def ready(name: str, rows: Rows) -> BaseSampler:
    """Return the sampler with default settings, its judge, and text vectors if it cannot do without."""
    name, _, judge = name.partition(", ")
    if judge:
        return AcceptingSampler(
            ready(name, rows), LinearJudge("gda", gda) if judge == "gda" else NearestJudge(3), max_draws=3
        )
    if name != "text":
        return make_sampler(name)
    return make_sampler(name, vectors=str(text_vectors(len(rows.class_names), rows.n_features)))
