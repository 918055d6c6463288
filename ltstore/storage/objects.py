"""Objects behind a URL: every write is one put, which object stores make whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ltstore.errors import ConfigError, LtstoreError, StoreExistsError, StoreReadError, StoreWriteError
from ltstore.storage.location import Location, WriterLock
from ltstore.types import ByteArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")
READ_ATTEMPTS = 4
_PAUSE_SECONDS = 0.2


class ObjectClient(Protocol):
    """What a service offers. Keys are relative to the URL that it was opened with.

    Whatever is not there raises FileNotFoundError. Other failures may be anything: `ObjectLocation` names the place.
    """

    def read(self, key: str, limit: int | None) -> Buffer:
        """Return an object, or its first bytes."""

    def read_end(self, key: str, n_bytes: int) -> tuple[Buffer, int]:
        """Return at most the last `n_bytes` of an object, and the size of all of it."""

    def read_ranges(self, key: str, starts: Sequence[int], stops: Sequence[int]) -> Sequence[Buffer]:
        """Return several ranges, at once."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def names(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, objects and prefixes alike."""

    def total_bytes(self, prefix: str) -> int:
        """Return the size of all objects below a prefix."""

    def write(self, key: str, pieces: Iterable[Buffer]) -> None:
        """Put an object, replacing what was there."""

    def create(self, key: str, data: bytes) -> str:
        """Put an object unless it is there: FileExistsError. Returns its tag."""

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object and its tag, which changes with every write."""

    def update(self, key: str, data: bytes, tag: str) -> str:
        """Replace an object if its tag is still this one: FileExistsError. Returns the new tag."""

    def remove(self, key: str) -> None:
        """Delete an object; fine if there is none."""


class ObjectLocation(Location):
    """A key of an object store."""

    n_parallel = 16

    def __init__(self, url: str, client: ObjectClient, key: str = "") -> None:
        self._url = url
        self._client = client
        self._key = key

    def __truediv__(self, name: str) -> ObjectLocation:
        return ObjectLocation(self._url, self._client, f"{self._key}/{name}" if self._key else name)

    def __str__(self) -> str:
        return f"{self._url}/{self._key}" if self._key else self._url

    @property
    def client(self) -> ObjectClient:
        """The service."""
        return self._client

    @property
    def key(self) -> str:
        """Its name below the URL that was opened."""
        return self._key

    @property
    def path(self) -> Path:
        raise ConfigError(f"{self} lies in an object store: this needs a store in a directory of this machine")

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> ObjectLocation:
        if not self._key:
            raise ConfigError(f"{self._url} is where the store begins: nothing above it is looked at")
        return ObjectLocation(self._url, self._client, self._key.rpartition("/")[0])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, LtstoreError):
            raise
        except Exception as err:  # a service fails in ways of its own
            raise StoreReadError(f"cannot read {self}: {_first_line(err)}") from err

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except LtstoreError:
            raise
        except Exception as err:
            raise StoreWriteError(f"cannot write {self}: {_first_line(err)}") from err

    def exists(self) -> bool:
        with self._reading():
            return self.again(lambda: self._client.exists(self._key))

    def child_names(self) -> list[str]:
        with self._reading():
            return sorted(self.again(lambda: self._client.names(self._key)))

    def leftovers(self) -> list[str]:
        """Return nothing: a put that was cut short is never seen. (A bucket may keep its parts: see its lifecycle.)"""
        return []

    def read(self, limit: int | None = None) -> bytes:
        with self._reading():
            return bytes(self.again(lambda: self._client.read(self._key, limit)))

    def view(self) -> ByteArray:
        with self._reading():
            return _as_array(self.again(lambda: self._client.read(self._key, None)))

    def read_end(self, n_bytes: int) -> tuple[ByteArray, int]:
        """Return at most the last `n_bytes`, and the size of all of it."""
        with self._reading():
            data, size = self.again(lambda: self._client.read_end(self._key, n_bytes))
        return _as_array(data), size

    def read_ranges(self, spans: Sequence[tuple[int, int]]) -> list[ByteArray]:
        """Return the bytes [start, stop) of each span, requested at once.

        Raises
        ------
        StoreReadError
            The service fails, or gives fewer bytes than asked for, again and again.
        """
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]

        def fetched() -> list[ByteArray]:
            found = [_as_array(data) for data in self._client.read_ranges(self._key, starts, stops)]
            for data, start, stop in zip(found, starts, stops, strict=True):
                if len(data) != stop - start:
                    raise EOFError(f"asked for bytes {start}..{stop}, got {len(data)}")
            return found

        with self._reading():
            return self.again(fetched)

    def again(self, request: Callable[[], _T]) -> _T:
        """Return what a request gives, tried several times: clients do not repeat one whose connection broke.

        The request must do the same however often it is made.
        """
        for attempt in range(READ_ATTEMPTS):
            try:
                result = request()
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except Exception:
                if attempt == READ_ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE_SECONDS * 2**attempt)
            else:
                return result
        raise AssertionError

    def write(self, pieces: Iterable[Buffer]) -> None:
        held = list(pieces)
        with self._writing():
            self.again(lambda: self._client.write(self._key, held))

    def write_group(self, files: Mapping[str, Sequence[Buffer]]) -> None:
        for name, pieces in files.items():
            ObjectLocation(self._url, self._client, f"{self._key}/{name}").write(pieces)

    def create(self, data: bytes) -> None:
        with self._writing():
            try:
                self.again(lambda: self._client.create(self._key, data))
            except FileExistsError as err:
                # A put whose answer was lost is made again, and then meets itself.
                if self.read() != data:
                    raise StoreExistsError(f"{self} is there already") from err

    def remove(self) -> None:
        with self._writing():
            self.again(lambda: self._client.remove(self._key))

    def remove_group(self, first: str) -> None:
        (self / first).remove()
        for name in self.child_names():
            below = self / name
            if below.exists():
                below.remove()
            below.remove_group(first)

    def clear_leftovers(self) -> None:
        """Do nothing: there are none."""

    def stored_bytes(self) -> int:
        with self._reading():
            return self.again(lambda: self._client.total_bytes(self._key))

    def check_no_link(self, root: Location) -> None:
        """Do nothing: there are no links."""

    def remove_leftovers(self) -> list[str]:
        """Return nothing: there are none."""
        return []

    def make_directory(self) -> None:
        """Do nothing: there are no directories."""

    def sync(self) -> None:
        """Do nothing: what a service has acknowledged is durable."""

    def lock(self) -> WriterLock:
        from ltstore.storage.lease import Lease

        return Lease(self)


def _as_array(data: Buffer) -> ByteArray:
    return np.frombuffer(memoryview(data), np.uint8)


def _first_line(err: Exception) -> str:
    """What a person needs of an error that may hold pages of XML and debugging."""
    lines = str(err).strip().splitlines() or [type(err).__name__]
    text = lines[0].partition(": <?xml")[0]
    return text if len(text) <= 300 else text[:297] + "..."


def open_object_location(url: str, options: Mapping[str, Any]) -> ObjectLocation:
    """Return the location of a URL, through obstore where it knows the protocol, else through fsspec."""
    url = url.rstrip("/")
    protocol = url.partition("://")[0].lower()
    from ltstore.storage import obstore_client

    if protocol in obstore_client.PROTOCOLS:
        return ObjectLocation(url, obstore_client.ObstoreClient(url, dict(options)))
    from ltstore.storage.fsspec_client import FsspecClient

    return ObjectLocation(url, FsspecClient(url, dict(options)))
