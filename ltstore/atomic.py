"""Writes that are there whole or not at all: temporary name, fsync, rename, fsync of the directory.

Two processes that write one file never share a temporary name, so the last rename wins, whole. Whoever dies
in the middle leaves a name that ends in ".tmp", which nothing reads and the next write of the same name on the
same machine clears away.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ltstore.errors import StoreExistsError, StoreWriteError

TEMPORARY_SUFFIX = ".tmp"
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_LEFTOVER = re.compile(
    r"(?P<name>.+?)(?P<role>\.old|\.gone)?\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp"
)
_active: set[str] = set()  # temporary names that this process is writing


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


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, each durable in its own parent; fine if it is there."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    fsync_directory(path.parent)


def check_no_link(root: Path, path: Path) -> None:
    """Raise StoreWriteError where a directory between `root` and `path` is a symbolic link, `path` included.

    What came from elsewhere may hold links to anywhere: a writer inside it would write there. `root` itself, and what
    lies above, are the user's own words and may be links.
    """
    step = root
    for name in path.relative_to(root).parts:
        step = step / name
        if step.is_symlink():
            raise StoreWriteError(
                f"{step} is a symbolic link, through which nothing is written: put the directory itself in its place"
            )


@contextmanager
def atomic_file(path: Path, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
    """Open `path` for writing; it appears under its name, durable, when the block ends without an error.

    Parameters
    ----------
    path : Path
    exclusive : bool
        Never replace: of several writers one succeeds.

    Raises
    ------
    StoreExistsError
        `exclusive`, and the file is there.
    StoreWriteError
        The file cannot be written: names the path and the cause (permission, full disk, read-only medium).
    """
    with _errors(path):
        make_directory(path.parent)
        with _temporary(path) as temporary:
            with temporary.open("wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            if exclusive:
                _publish(temporary, path)
            else:
                temporary.replace(path)
            fsync_directory(path.parent)


def write_bytes(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    """Write a whole file atomically, see `atomic_file`."""
    with atomic_file(path, exclusive=exclusive) as handle:
        handle.write(data)


def encode_json(data: Any) -> bytes:
    """Return JSON as it is written: sorted keys, UTF-8, no NaN, so that equal data gives equal bytes."""
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_json(path: Path, data: Any, *, exclusive: bool = False) -> None:
    """Write JSON atomically, see `encode_json`."""
    write_bytes(path, encode_json(data), exclusive=exclusive)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a new directory to fill; it takes the place of `path` when the block ends without an error.

    A directory cannot be replaced in one step: the old one is set aside first, and put back by the next call if the
    process dies before the new one has its name.

    Raises
    ------
    StoreExistsError
        `path` is something else than a directory.
    StoreWriteError
        It cannot be written.
    """
    with _errors(path):
        make_directory(path.parent)
        _put_back(path)
        if path.is_file():
            raise StoreExistsError(f"{path} is a file: choose another name")
        with _temporary(path) as temporary:
            temporary.mkdir()
            yield temporary
            for directory, _, files in os.walk(temporary, topdown=False):
                for name in files:
                    with Path(directory, name).open("rb") as handle:
                        os.fsync(handle.fileno())
                fsync_directory(Path(directory))
            _replace_directory(temporary, path)


def _replace_directory(temporary: Path, path: Path) -> None:
    while True:
        retired = _name(path, ".old")
        with suppress(FileNotFoundError):  # nothing there, or another writer has set it aside in this moment
            path.rename(retired)
        try:
            temporary.rename(path)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _remove(retired)  # another writer was first: set that one aside too
            continue
        fsync_directory(path.parent)
        _remove(retired)
        return


def _name(path: Path, role: str = "") -> Path:
    return path.with_name(f"{path.name}{role}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give an unused temporary name beside `path`; whatever is left under it afterwards is removed."""
    clear_leftovers(path)
    temporary = _name(path)
    _active.add(temporary.name)
    try:
        yield temporary
    finally:
        _active.discard(temporary.name)
        _remove(temporary)


def clear_leftovers(path: Path) -> None:
    """Remove what dead writers of `path` on this machine have left."""
    for role in ("", ".gone"):
        for leftover in path.parent.glob(f"{glob.escape(path.name)}{role}.{_HOST}-*{TEMPORARY_SUFFIX}"):
            process = leftover.name.split("-")[-2]
            if leftover.name not in _active and process.isdigit() and not is_alive(int(process)):
                _remove(leftover)


def remove_directory(path: Path) -> None:
    """Remove a directory and all that is in it: it is there whole or not at all; fine if there is none.

    Raises
    ------
    StoreWriteError
        It cannot be removed.
    """
    with _errors(path):
        clear_leftovers(path)
        gone = _name(path, ".gone")
        with suppress(FileNotFoundError):
            path.rename(gone)
            fsync_directory(path.parent)
            _remove(gone)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what writers have left below a directory that are known to be gone, and return those names.

    Known are processes of this machine, and names of no process at all. A directory that was set aside by a writer
    which died before the new one had its name is put back instead.
    """
    removed = []
    for leftover in sorted(directory.rglob("*" + TEMPORARY_SUFFIX)):
        if not leftover.exists():  # it lay in another one
            continue
        parts = _LEFTOVER.fullmatch(leftover.name)
        if parts is not None:
            if leftover.name in _active or parts["host"] != _HOST or is_alive(int(parts["process"])):
                continue
            if parts["role"] == ".old":
                _put_back(leftover.with_name(parts["name"]))
        if leftover.exists():
            _remove(leftover)
            removed.append(leftover)
    return removed


def _put_back(path: Path) -> None:
    if path.exists():
        return
    for retired in sorted(path.parent.glob(f"{glob.escape(path.name)}.old.{_HOST}-*{TEMPORARY_SUFFIX}")):
        process = retired.name.split("-")[-2]
        if process.isdigit() and not is_alive(int(process)):
            retired.rename(path)
            return


def is_alive(process: int) -> bool:
    """Whether another process of this number runs; what this one left under an inactive name is dead too."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name unless the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise StoreExistsError(f"{path} is there already") from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise StoreExistsError(f"{path} is there already") from None
        temporary.replace(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            path.unlink()


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (StoreWriteError, StoreExistsError):
        raise
    except OSError as err:
        raise StoreWriteError(f"cannot write {path}: {err.strerror or err}") from err
