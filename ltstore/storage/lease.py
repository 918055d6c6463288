"""The writer's lock of an object store: an object that its holder renews while it lives."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
import threading
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ltstore.atomic import is_alive
from ltstore.errors import LtstoreError, StoreBusyError, StoreWriteError

if TYPE_CHECKING:
    from ltstore.storage.objects import ObjectLocation

LEASE_FILE = ".lock"
LEASE_SECONDS = 30.0
RENEW_SECONDS = 8.0
_held: weakref.WeakSet[Lease] = weakref.WeakSet()


class Lease:
    """Holds `<location>/.lock` from construction to `release`.

    The object names its holder and when it was last renewed; a thread renews it. Every change is conditional on the
    object being the one that was seen, so of several takers one succeeds. A lease that is not renewed any more is
    taken over: at once where its process was on this machine and is dead, else after it has been watched, by this
    process's own clock, for `LEASE_SECONDS` without a change.

    Raises
    ------
    StoreBusyError
        Another writer holds it: names process, host and since when.
    StoreWriteError
        The object cannot be written.
    """

    def __init__(self, location: ObjectLocation) -> None:
        self._location = location / LEASE_FILE
        self._where = str(location)
        self._nonce = secrets.token_hex(8)
        self._since = _now()
        self._count = itertools.count()
        self._tag = self._take()
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._lost = False
        _held.add(self)
        self._thread = threading.Thread(
            target=_renew_until_stopped, args=(weakref.ref(self), self._stop), daemon=True
        )
        self._thread.start()

    def _record(self) -> bytes:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "renewed": _now(),
            "nonce": self._nonce,
            "renewals": next(self._count),  # every renewal changes the object, whatever the clock says
        }
        return json.dumps(record).encode()

    def _take(self) -> str:
        client, key, again = self._location.client, self._location.key, self._location.again
        try:
            for _ in range(3):
                try:
                    return again(lambda: client.create(key, self._record()))
                except FileExistsError:
                    pass
                try:
                    data, tag = again(lambda: client.read_tagged(key))
                except FileNotFoundError:  # given back in this moment
                    continue
                holder = _parsed(data)
                if holder.get("nonce") == self._nonce:  # a put whose answer was lost met itself
                    return tag
                self._wait_for_end(holder, tag)
                with suppress(FileExistsError):  # another one was first: look again
                    return again(partial(client.update, key, self._record(), tag))
        except (StoreBusyError, StoreWriteError):
            raise
        except Exception as err:
            raise StoreWriteError(f"cannot lock {self._where}: {str(err).strip().splitlines()[0]}") from err
        raise StoreBusyError(f"{self._where} is being written by another process: wait for it, and run again")

    def _wait_for_end(self, holder: dict[str, Any], tag: str) -> None:
        """Return once the holder is known to be gone; StoreBusyError where it is alive or may be."""
        client, key, again = self._location.client, self._location.key, self._location.again
        if _is_dead_here(holder):
            return
        if _age(holder) > LEASE_SECONDS:  # by clocks that may differ: believe only what is seen
            began = time.monotonic()
            while time.monotonic() - began < LEASE_SECONDS:
                time.sleep(min(1.0, LEASE_SECONDS / 10))
                try:
                    if again(lambda: client.read_tagged(key))[1] != tag:
                        break
                except FileNotFoundError:
                    return
            else:
                return
        raise StoreBusyError(
            f"{self._where} is being written by process {holder.get('pid')} on {holder.get('host')} since "
            f"{holder.get('since')}: wait for it, or stop it and run again (if it was killed, "
            f"in {LEASE_SECONDS:.0f} seconds)"
        )

    @property
    def held(self) -> bool:
        """Whether it is still held, to the best of this process's knowledge."""
        return not self._stop.is_set() and not self._lost and time.monotonic() - self._renewed < LEASE_SECONDS

    def renew(self) -> None:
        """Say that the holder is alive."""
        with self._guard:
            if self._stop.is_set() or self._lost:
                return
            began = time.monotonic()
            try:
                self._tag = self._location.client.update(self._location.key, self._record(), self._tag)
            except FileExistsError:
                self._lost = not self._is_mine()
            except Exception:  # noqa: BLE001 - the service may be back before the lease ends
                return
            self._renewed = began

    def _is_mine(self) -> bool:
        """Whether the object is ours after all: an update whose answer was lost meets itself."""
        try:
            data, self._tag = self._location.again(
                lambda: self._location.client.read_tagged(self._location.key)
            )
        except Exception:  # noqa: BLE001
            return False
        return bool(_parsed(data).get("nonce") == self._nonce)

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        with self._guard:
            if not self._lost and self._is_mine():
                with suppress(LtstoreError, OSError, Exception):  # left behind, it ends by itself
                    self._location.client.remove(self._location.key)

    def forget(self) -> None:
        """Give up without a word: in a forked child, which has no thread and must not hold it."""
        self._stop = threading.Event()
        self._stop.set()


def _renew_until_stopped(reference: weakref.ref[Lease], stop: threading.Event) -> None:
    while not stop.wait(RENEW_SECONDS):
        lease = reference()
        if lease is None:
            return
        lease.renew()
        del lease


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _age(holder: dict[str, Any]) -> float:
    """Seconds since the holder was alive, by the two clocks; infinite where the record does not say."""
    try:
        renewed = datetime.fromisoformat(holder["renewed"])
        return abs((datetime.now(UTC) - renewed).total_seconds())
    except (KeyError, TypeError, ValueError):
        return float("inf")


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is gone."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    if pid == os.getpid():  # containers begin at 1 every time
        return all(lease._nonce != holder.get("nonce") for lease in _held)
    return not is_alive(pid)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _forget_in_child() -> None:
    for lease in list(_held):
        lease.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
