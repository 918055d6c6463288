"""Nearest rows, what they are, and which classes lend to which.

The one rule: FAISS is imported in `faiss_index` alone, only when an index is built or loaded, and everything
it answers equals `exact`, the oracle. Start reading at `exact`, then `faiss_index`; `donors` turns neighbours
into who lends to whom, `query` into records to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltstore.neighbors.donors import class_donors, head_classes, row_donors
from ltstore.neighbors.exact import ExactIndex
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.neighbors.query import Neighbor, query_neighbors, resolve_among

if TYPE_CHECKING:
    from ltstore.neighbors.faiss_index import FaissIndex, build_index, load_index

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Neighbor",
    "RestrictedIndex",
    "build_index",
    "class_donors",
    "head_classes",
    "load_index",
    "query_neighbors",
    "resolve_among",
    "row_donors",
]

_LAZY = ("FaissIndex", "build_index", "load_index")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from ltstore.neighbors import faiss_index

        return getattr(faiss_index, name)
    raise AttributeError(f"module 'ltstore.neighbors' has no attribute {name!r}")
