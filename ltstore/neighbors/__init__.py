"""Nearest rows, what they are, and which classes lend to which.

The one rule: FAISS is imported in `faiss_index` alone, only when an index is built or loaded, and what it answers is
held against `exact`, the oracle: equal for exact kinds, measured by `recall` on rows held out for the others. Start
reading at `exact`, then `faiss_index`; `kinds` says which index `auto` takes, `building` fills it, `saved` keeps it.
`donors` turns neighbours into who lends to whom, `query` into records to show, `graph` into a graph of all rows;
`classes` asks the same of class means.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ltstore.neighbors.classes import class_index
from ltstore.neighbors.donors import class_donors, head_classes, row_donors
from ltstore.neighbors.exact import ExactIndex
from ltstore.neighbors.graph import iter_graph, write_graph
from ltstore.neighbors.kinds import KINDS, IndexPlan, plan_index
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.neighbors.query import Neighbor, query_neighbors, resolve_among
from ltstore.neighbors.recall import RecallReport

if TYPE_CHECKING:
    from ltstore.neighbors.building import build_index, extend_index
    from ltstore.neighbors.faiss_index import FaissIndex
    from ltstore.neighbors.saved import load_index, read_record, save_index

__all__ = [
    "KINDS",
    "ExactIndex",
    "FaissIndex",
    "IndexPlan",
    "Neighbor",
    "RecallReport",
    "RestrictedIndex",
    "build_index",
    "class_donors",
    "class_index",
    "extend_index",
    "head_classes",
    "iter_graph",
    "load_index",
    "plan_index",
    "query_neighbors",
    "read_record",
    "resolve_among",
    "row_donors",
    "save_index",
    "write_graph",
]

_LAZY = {
    "FaissIndex": "faiss_index",
    "build_index": "building",
    "extend_index": "building",
    "load_index": "saved",
    "read_record": "saved",
    "save_index": "saved",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"ltstore.neighbors.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'ltstore.neighbors' has no attribute {name!r}")
