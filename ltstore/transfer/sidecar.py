"""What an export says of itself, beside its files: class names and feature identity, read again by an import."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.errors import SourceError

KIND = "ltstore export"
_LIMIT_BYTES = 1 << 28


def record_path(path: Path) -> Path:
    """Return where the record of an export lies: in the directory, or beside the file."""
    return path / "ltstore.json" if path.is_dir() or not path.suffix else path.with_suffix(".ltstore.json")


def rows_path(path: Path) -> Path:
    """Return where the keys and row ids of a single-file export lie."""
    return path.with_suffix(".rows.parquet")


def labels_path(path: Path) -> Path:
    """Return where the labels of an exported `.npy` lie."""
    return path.with_suffix(".labels.npy")


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """The part of the record that an import uses."""

    class_names: tuple[str, ...]
    model: str
    weights: str
    normalized: bool


def read_record(path: Path) -> ExportRecord | None:
    """Return the record of what was exported to `path`, None where there is none.

    Raises
    ------
    SourceError
        There is one, and it is damaged.
    """
    where = record_path(path)
    try:
        if where.stat().st_size > _LIMIT_BYTES:
            raise SourceError(f"{where} is larger than any record of an export")
        document: Any = json.loads(where.read_bytes())
        names, encoder = document["class_names"], document["encoder"]
        record = ExportRecord(
            class_names=tuple(names),
            model=encoder["model"],
            weights=encoder["weights"],
            normalized=encoder["normalized"],
        )
        texts = (*record.class_names, record.model, record.weights)
        sound = isinstance(names, list) and all(isinstance(text, str) for text in texts)
        if document["kind"] != KIND or not sound or not isinstance(record.normalized, bool):
            raise ValueError("its values are of other types")
    except FileNotFoundError:
        return None
    except SourceError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise SourceError(f"{where} is not the record of an export ({err!r}): repair or remove it") from err
    return record
