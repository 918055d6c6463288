"""ltstore: long-tailed classification on frozen vision embeddings.

Images go in once; everything after that is linear algebra on a store of embeddings. Names are loaded when
they are first used, so that importing ltstore imports nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "ltstore.encode": ("ingest", "open_encoder"),
    "ltstore.errors": ("LtstoreError",),
    "ltstore.estimators": ("LongTailClassifier",),
    "ltstore.linear": ("LinearModel", "TrainSettings", "load_model"),
    "ltstore.rows": ("ArrayRows",),
    "ltstore.sources": ("open_source",),
    "ltstore.storage": ("open_location",),
    "ltstore.store": ("create_store", "open_store", "store_info", "verify"),
    "ltstore.stream": ("EmbeddingDataset", "iter_batches"),
    "ltstore.transfer": ("adopt", "export_embeddings", "import_embeddings"),
    "ltstore.workflow": (
        *("backtest", "build_store_index", "compare", "embed_class_names", "ensemble", "estimate"),
        *("evaluate", "export_model", "make_subset", "predict", "predict_arriving", "predict_stored"),
        *("query_store", "quickstart", "sample", "select", "store_donors", "train"),
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ltstore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
