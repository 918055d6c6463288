"""What an artefact (index, moments, synthetic rows, model, report) says of where it came from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("ltstore", "numpy", "zarr", "numba", "torch", "open_clip_torch", "faiss-gpu", "faiss-cpu")


def versions() -> dict[str, str]:
    """Return {"python": ..., package: version} of what is installed, without importing any of it."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def record(
    kind: str, *, settings: Mapping[str, Any], made_from: Mapping[str, Any], seed: int | None = None
) -> dict[str, Any]:
    """Return the JSON record that is stored with an artefact.

    Parameters
    ----------
    kind : str
        "index", "moments", "synthetic", "model", ...
    settings : mapping
        Resolved settings: no "auto" left in it.
    made_from : mapping
        Names and digests of what it was made from, e.g. {"split": "train", "rows": "sha256:..."}.
    seed : int, optional
    """
    return {
        "kind": kind,
        "settings": dict(settings),
        "made_from": dict(made_from),
        "seed": seed,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
