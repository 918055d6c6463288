"""What an artefact (index, moments, synthetic rows, model, report) says of where it came from."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SEAL = "seal"
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


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document with the digest of all the rest of it under `SEAL`."""
    return {**document, SEAL: _digest(document)}


def seal_holds(document: Mapping[str, Any]) -> bool:
    """Return whether a document read again is as it was sealed (or has no seal: older ones have none)."""
    try:
        return SEAL not in document or document[SEAL] == _digest(document)
    except ValueError:  # NaN or infinity, which JSON as it is written here does not know
        return False


def _digest(document: Mapping[str, Any]) -> str:
    bare = json.loads(json.dumps({key: value for key, value in document.items() if key != SEAL}))
    text = json.dumps(bare, sort_keys=True, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
