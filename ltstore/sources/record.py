"""What a split remembers of its source, so that it can be opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltstore.errors import ConfigError
from ltstore.sources.opening import open_source
from ltstore.sources.views import read_indices
from ltstore.storage import is_url
from ltstore.types import ImageSource

WORDS = ("digits",)
_TEXTS = ("split", "format", "root", "path_column", "label_column")
_PATHS = ("root", "indices", "labels", "keys")


def source_record(spec: str | Path, **how: Any) -> dict[str, Any]:
    """Return what opens a source again: `spec` and `how`, paths made absolute, what is None left out.

    Parameters
    ----------
    spec : str or path
        As `open_source` takes it.
    how
        Its other arguments (`split`, `format`, `root`, `limit`, ...); files by their paths, `indices` too.

    Returns
    -------
    dict
        JSON values; empty where a path is not valid UTF-8.
    """
    given = {"spec": spec, **how}
    record = {
        name: _absolute(value) if isinstance(value, Path) or name in ("spec", *_PATHS) else value
        for name, value in given.items()
        if value is not None
    }
    return record if all(map(_is_unicode, record.values())) else {}


def _is_unicode(value: Any) -> bool:
    """Whether JSON can hold it: a path that is not UTF-8 cannot be recorded."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if text in WORDS or is_url(text) else str(Path(text).absolute())


def moved_record(record: Mapping[str, Any], spec: str | Path) -> dict[str, Any]:
    """Return the record of a source that lies elsewhere now, with the files that moved along with it.

    A recorded path below the old place, or beside it, is looked for below or beside the new one; where there is
    nothing it stays as it is.
    """
    found = {**record, "spec": _absolute(spec)}
    old, new = Path(str(record.get("spec", ""))), Path(found["spec"])
    for name in _PATHS:
        path = Path(str(record[name])) if name in record else None
        for base, target in ((old, new), (old.parent, new.parent)):
            if path is not None and path.is_relative_to(base) and (target / path.relative_to(base)).exists():
                found[name] = str(target / path.relative_to(base))
                break
    return found


def open_recorded(record: Mapping[str, Any], *, class_names: Sequence[str] | None = None) -> ImageSource:
    """Open the source that `source_record` was made of.

    Raises
    ------
    ConfigError
        The record says nothing that could be opened. Otherwise as `open_source`.
    """
    how = {name: record[name] for name in (*_TEXTS, "limit") if name in record}
    spec = record.get("spec")
    texts = all(isinstance(how.get(name, ""), str) for name in _TEXTS)
    if not isinstance(spec, str) or not spec or not texts or not isinstance(how.get("limit", 1), int):
        raise ConfigError(f"no source was recorded that could be opened again, found {dict(record)!r}")
    indices = read_indices(Path(str(record["indices"]))) if "indices" in record else None
    return open_source(spec, class_names=class_names, indices=indices, **how)
