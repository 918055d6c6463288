"""Findings that are kept beside the store: used again for the same rows and settings, made anew otherwise."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ltstore.atomic import write_json
from ltstore.errors import ConfigError, StoreWriteError
from ltstore.provenance import record, seal_holds, sealed
from ltstore.storage import read_regular
from ltstore.workflow.selection import Selection

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def read_kept(
    path: Path,
    key: str,
    selection: Selection,
    settings: Mapping[str, Any] | None,
    parse: Callable[[Mapping[str, Any]], _T],
) -> _T | None:
    """Return what `keep` has put there, if it is of these rows and (unless None) of these settings."""
    try:
        document = json.loads(read_regular(path))
        if not seal_holds(document):
            raise ValueError("it has changed since it was written")
        if document["made_from"]["rows"] != selection.rows.digest:
            return None
        if settings is not None and document["settings"] != json.loads(json.dumps(settings)):
            return None
        return parse(document[key])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as err:
        _log.info("the %s at %s is made anew: %s", key, path, err)
        return None


def keep(
    path: Path,
    key: str,
    selection: Selection,
    settings: Mapping[str, Any],
    found: Mapping[str, Any],
    *,
    kind: str,
    seed: int,
) -> None:
    """Write what was found under a key of a record; a store that cannot be written to is a warning."""
    document = record(kind, settings=dict(settings), made_from=selection.made_from, seed=seed)
    try:
        write_json(path, sealed({**document, key: found}))
    except StoreWriteError as err:
        _log.warning("the %s of the %s is not kept: %s", key, kind, err)
