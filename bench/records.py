"""Results as they lie on disk: JSON lines, of which the later one of a key counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


def latest_records(
    paths: Iterable[Path], key: Callable[[dict[str, Any]], _Key], what: str
) -> dict[_Key, dict[str, Any]]:
    """Return the records of files of JSON lines by key, in the order of the lines that count.

    Parameters
    ----------
    paths : iterable of Path
    key : callable
        Of a record; KeyError or TypeError where it is none.
    what : str
        What a line should be a record of, for the message.

    Raises
    ------
    ValueError
        A line is no such record; names file and line.
    """
    found: dict[_Key, dict[str, Any]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                own = key(record)
                found.pop(own, None)
                found[own] = record
            except (ValueError, KeyError, TypeError) as err:
                raise ValueError(f"{path}:{number} is not a record of {what}: {err!r}") from err
    return found
