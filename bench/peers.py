"""Packages that ltstore is compared with: which are there, and the word that asks for each."""

from __future__ import annotations

from importlib.util import find_spec

PEERS = {
    "zarr": "zarr",
    "zarrs": "zarrs",
    "tensorstore": "tensorstore",
    "lance": "lance",
    "sklearn": "sklearn",
    "torch": "torch",
    "numpy": "numpy",
    "pillow": "PIL",
    "faiss": "faiss",
    "clip-retrieval": "clip_retrieval",
}
"""The word after --against, and the module it needs (clip-retrieval's in an environment of its own)."""

_PIP = {"lance": "pylance", "sklearn": "scikit-learn", "pillow": "Pillow", "faiss": "faiss-cpu"}


def find(module: str) -> bool:
    """Return whether a module is installed, without importing it."""
    return find_spec(module) is not None


def missing(peer: str) -> str:
    """Return why a peer cannot run here, "" where it can."""
    if find(PEERS[peer]):
        return ""
    return f"{_PIP.get(peer, peer)} is not installed: pip install -e '.[bench]'"
