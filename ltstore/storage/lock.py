"""The writer's lock of a directory: one process at a time, and it vanishes with the process."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ltstore.errors import StoreBusyError, StoreWriteError

LOCK_FILE = ".lock"
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """Holds `<directory>/.lock` from construction to `release`.

    An flock, so that the kernel drops it when the holder dies; the file names the holder for whoever is
    refused, and goes away on release.

    Raises
    ------
    StoreBusyError
        Another writer holds it: names process, host and since when.
    StoreWriteError
        The file cannot be made, or the file system knows no locks.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._descriptor = -1
        while self._descriptor < 0:
            self._descriptor = self._try()
        _held.add(self)

    def _try(self) -> int:
        """Return a locked descriptor, or -1 where a holder removed the file between open and lock."""
        import fcntl

        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as err:
            raise StoreWriteError(f"cannot write {self._path}: {err.strerror}") from err
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreWriteError(f"cannot write {self._path}: it is a pipe or device; remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(descriptor):
                os.close(descriptor)
                return -1
            record = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        except OSError as err:
            holder = _describe(descriptor)
            os.close(descriptor)
            if err.errno in (errno.EAGAIN, errno.EACCES):
                raise StoreBusyError(
                    f"{self._path.parent} is being written by {holder}: wait for it, or stop it and run again"
                ) from err
            raise StoreWriteError(f"cannot lock {self._path}: {err.strerror}") from err
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    @property
    def held(self) -> bool:
        """Whether it is still held by this process."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            try:
                with suppress(OSError):  # a file left behind is harmless: the lock lies in the kernel
                    self._path.unlink(missing_ok=True)
            finally:
                self.forget()

    def forget(self) -> None:
        """Close the descriptor without removing the file: in a forked child, which must not keep the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(descriptor: int) -> str:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(record['pid'])} on {record['host']} since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    # A worker forked by the writer shares its descriptor: it would hold the lock after the writer is killed.
    os.register_at_fork(after_in_child=_forget_in_child)
