"""Writes that are there whole or not at all: temporary name, fsync, rename, fsync of the directory.

Whoever dies in the middle leaves a file whose name ends in ".tmp", which nothing reads and the next write
of the same file replaces.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ltstore.errors import StoreWriteError

TEMPORARY_SUFFIX = ".tmp"


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable (a no-op where directories cannot be opened)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (OSError, AttributeError):  # pragma: no cover - Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing; it appears under its name, durable, when the block ends without an error.

    Raises
    ------
    StoreWriteError
        The file cannot be written: names the path and the cause (permission, full disk, read-only medium).
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except StoreWriteError:
        raise
    except OSError as err:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreWriteError(f"cannot write {path}: {err.strerror or err}") from err
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as handle:
        handle.write(data)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically: sorted keys, UTF-8, no NaN, so that equal data gives equal bytes."""
    text = json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a new directory to fill; it takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            retired = path.with_name(path.name + ".old" + TEMPORARY_SUFFIX)
            shutil.rmtree(retired, ignore_errors=True)
            path.rename(retired)
            temporary.rename(path)
            shutil.rmtree(retired)
        else:
            temporary.rename(path)
        fsync_directory(path.parent)
    except OSError as err:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(err, StoreWriteError):
            raise
        raise StoreWriteError(f"cannot write {path}: {err.strerror or err}") from err
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
