"""Files of this machine."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltstore.atomic import (
    TEMPORARY_SUFFIX,
    atomic_directory,
    atomic_file,
    check_no_link,
    clear_leftovers,
    fsync_directory,
    remove_directory,
    remove_leftovers,
    write_bytes,
)
from ltstore.errors import StoreFormatError, StoreReadError, StoreWriteError
from ltstore.storage.location import Location, WriterLock
from ltstore.types import ByteArray

if TYPE_CHECKING:
    from typing_extensions import Buffer


def open_regular(path: Path) -> int:
    """Return a descriptor of a regular file, or of what a symbolic link to one leads to.

    Raises
    ------
    StoreFormatError
        It is a directory, pipe, socket or device: to read these may never end.
    FileNotFoundError, OSError
        It is not there, or cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as err:
        if err.errno not in (errno.ENXIO, errno.ENODEV, errno.ELOOP):
            raise
        raise StoreFormatError(f"cannot read {path}: {err.strerror}") from err  # a socket, a link to itself
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreFormatError(f"{path} must be a regular file, found a directory, pipe or device: run verify")
    return descriptor


def read_regular(path: Path) -> bytes:
    """Return the bytes of a file, which must be a regular one: raises as `open_regular`, and OSError."""
    with os.fdopen(open_regular(path), "rb") as handle:
        return handle.read()


class FileLocation(Location):
    """A path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __truediv__(self, name: str) -> FileLocation:
        return FileLocation(self._path / name)

    def __str__(self) -> str:
        return str(self._path)

    @property
    def path(self) -> Path:
        """The path."""
        return self._path

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def parent(self) -> FileLocation:
        return FileLocation(self._path.parent)

    def exists(self) -> bool:
        return self._path.is_file()

    def child_names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as err:
            raise self._unreadable(err) from err

    def leftovers(self) -> list[str]:
        found = self._path.rglob("*" + TEMPORARY_SUFFIX)
        return sorted(str(leftover.relative_to(self._path)) for leftover in found)

    def _unreadable(self, err: OSError) -> StoreReadError:
        return StoreReadError(f"cannot read {self._path}: {err.strerror or err}")

    def read(self, limit: int | None = None) -> bytes:
        try:
            with os.fdopen(open_regular(self._path), "rb") as handle:
                size = os.fstat(handle.fileno()).st_size  # read(limit) would allocate the limit
                return handle.read(-1 if limit is None else min(limit, size))
        except (FileNotFoundError, StoreFormatError):
            raise
        except OSError as err:
            raise self._unreadable(err) from err

    def view(self) -> ByteArray:
        try:
            with os.fdopen(open_regular(self._path), "rb") as handle:
                if not os.fstat(handle.fileno()).st_size:
                    return np.frombuffer(b"", np.uint8)
                return np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (FileNotFoundError, StoreFormatError):
            raise
        except (OSError, ValueError) as err:
            raise StoreReadError(f"cannot read {self._path}: {getattr(err, 'strerror', None) or err}") from err

    def write(self, pieces: Iterable[Buffer]) -> None:
        with atomic_file(self._path) as handle:
            for piece in pieces:
                handle.write(piece)

    def write_group(self, files: Mapping[str, Sequence[Buffer]]) -> None:
        with atomic_directory(self._path) as new:
            for name, pieces in files.items():
                FileLocation(new / name).write(pieces)

    def create(self, data: bytes) -> None:
        write_bytes(self._path, data, exclusive=True)

    def remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            fsync_directory(self._path.parent)
        except FileNotFoundError:
            return
        except OSError as err:
            raise self._unwritable(err) from err

    def remove_group(self, first: str) -> None:
        remove_directory(self._path)

    def make_directory(self) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise self._unwritable(err) from err

    def sync(self) -> None:
        try:
            fsync_directory(self._path)
        except OSError as err:
            raise self._unwritable(err) from err

    def _unwritable(self, err: OSError) -> StoreWriteError:
        return StoreWriteError(f"cannot write {self._path}: {err.strerror or err}")

    def stored_bytes(self) -> int:
        total, seen, waiting = 0, set(), [self._path]
        while waiting:
            directory = waiting.pop()
            try:
                found = directory.stat()
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if not entry.is_symlink() or Path(entry.path).exists():  # a dangling link is no file
                            mode = entry.stat()
                            if stat.S_ISDIR(mode.st_mode):
                                waiting.append(Path(entry.path))
                            elif stat.S_ISREG(mode.st_mode):
                                total += mode.st_size
                            else:
                                raise StoreFormatError(
                                    f"{entry.path} must be a file or directory, found a pipe, socket or device"
                                )
            except FileNotFoundError:  # a writer has renamed its temporary file in this moment
                continue
            except OSError as err:
                raise StoreFormatError(f"cannot read {directory}: {err.strerror or err}") from err
        return total

    def check_no_link(self, root: Location) -> None:
        check_no_link(root.path, self._path)

    def lock(self) -> WriterLock:
        from ltstore.storage.lock import FileLock

        return FileLock(self._path)

    def clear_leftovers(self) -> None:
        clear_leftovers(self._path)

    def remove_leftovers(self) -> list[str]:
        return [str(leftover.relative_to(self._path)) for leftover in remove_leftovers(self._path)]
