"""Every sampler of the registry, and some with a judge over them, ready to be fitted; with a file if they need one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.linear import gda
from ltstore.sampling import SAMPLERS, AcceptingSampler, BaseSampler, LinearJudge, NearestJudge, make_sampler
from ltstore.types import Rows

_FILES = tempfile.TemporaryDirectory(prefix="ltstore-test-")


def text_vectors(n_classes: int, n_features: int) -> Path:
    """A file of made text vectors, the same each time."""
    path = Path(_FILES.name) / f"{n_classes}x{n_features}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(1).normal(size=(n_classes, n_features)))
    return path


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SAMPLERS},
    "neighbor-gauss of residuals": ("neighbor-gauss", {"noise": "residuals"}),
    "kde of residuals": ("kde", {"noise": "residuals", "terms": 1}),
    "spherical smote": ("smote", {"spherical": True}),
}
"""Every sampler with default settings, and those settings that draw in another way."""
ACCEPTING = ("neighbor-gauss, gda", "kde, nearest", "smote, gda", "vmf, nearest")
"""A sampler, and the judge of its rows."""
EVERY = (*VARIANTS, *ACCEPTING)
AFFINE = (
    "duplicate",
    "smote",
    "spherical smote",
    "residual-transfer",
    "kde of residuals",
    "neighbor-gauss of residuals",
)
"""Those whose rows are sums of real rows."""


def ready(variant: str, rows: Rows) -> BaseSampler:
    """Return the sampler with its judge, and text vectors if it cannot do without."""
    variant, _, judge = variant.partition(", ")
    if judge:
        return AcceptingSampler(
            ready(variant, rows), LinearJudge("gda", gda) if judge == "gda" else NearestJudge(3), max_draws=3
        )
    name, settings = VARIANTS[variant]
    if name != "text":
        return make_sampler(name, **settings)
    return make_sampler(name, vectors=str(text_vectors(len(rows.class_names), rows.n_features)))
