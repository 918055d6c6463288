"""ltstore: long-tailed classification on frozen vision embeddings.

Images go in once; everything after that is linear algebra on a store of embeddings. Names are loaded when
they are first used, so that importing ltstore imports nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "ArrayRows": "ltstore.rows",
    "LtstoreError": "ltstore.errors",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ltstore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
