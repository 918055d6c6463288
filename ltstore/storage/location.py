"""A place by name, and everything a store does there."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ltstore.atomic import encode_json
from ltstore.types import ByteArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


_T = TypeVar("_T")
_R = TypeVar("_R")


class WriterLock(Protocol):
    """One writer at a time; it vanishes with its holder."""

    @property
    def held(self) -> bool:
        """Whether it is still held by this process."""

    def release(self) -> None:
        """Give it back; a second call does nothing."""


class Location(ABC):
    """A name of a file or object, and of whatever lies below it. Picklable, usable from threads.

    ``location / "a" / "b"`` is the name below it; `str` is what a person would type. Reading something that is not
    there raises FileNotFoundError, any other failure `StoreReadError`, and failures of writing `StoreWriteError`;
    each names the place.
    """

    n_parallel = 1
    """Requests that are worth making at once."""

    @abstractmethod
    def __truediv__(self, name: str) -> Location:
        """Return the location of `name` below this one."""

    @abstractmethod
    def __str__(self) -> str:
        """Path or URL."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """Its path; ConfigError where it is none."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the name."""

    @property
    @abstractmethod
    def parent(self) -> Location:
        """What it lies in."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a file or object of exactly this name (a directory is none)."""

    @abstractmethod
    def child_names(self) -> list[str]:
        """Names directly below it, sorted; nothing where there is nothing."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What killed writers have left below it, as names relative to it; nothing reads them."""

    @abstractmethod
    def read(self, limit: int | None = None) -> bytes:
        """Return its contents, or the first `limit` bytes of them."""

    @abstractmethod
    def view(self) -> ByteArray:
        """Return its contents as (n,) uint8, read-only: a map where it is a file, else fetched into memory."""

    @abstractmethod
    def write(self, pieces: Iterable[Buffer]) -> None:
        """Write it, piece by piece: it appears (or is replaced) whole, durable, when all pieces are there."""

    @abstractmethod
    def write_group(self, files: Mapping[str, Sequence[Buffer]]) -> None:
        """Write files below it (names may have slashes), replacing all there was, so that they appear together.

        Objects appear one by one, in this order: let the last be the one that readers look for first.
        """

    @abstractmethod
    def create(self, data: bytes) -> None:
        """Write it unless something is there: `StoreExistsError`. Of several creators one succeeds."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file or object, durably; fine if there is none."""

    @abstractmethod
    def remove_group(self, first: str) -> None:
        """Remove all that lies below it, durably; fine if there is nothing.

        Files vanish together. Objects vanish one by one, `first` before the others: the one that readers look for.
        """

    @abstractmethod
    def make_directory(self) -> None:
        """Make it a place for others, where that means anything."""

    @abstractmethod
    def sync(self) -> None:
        """Make the names directly below it durable, where that means anything."""

    @abstractmethod
    def stored_bytes(self) -> int:
        """Return the bytes of all files or objects below it. `StoreFormatError` where something else is among them."""

    @abstractmethod
    def check_no_link(self, root: Location) -> None:
        """Raise `StoreWriteError` where a directory between `root` and this, this included, is a symbolic link."""

    @abstractmethod
    def lock(self) -> WriterLock:
        """Take the writer's lock of what lies below it; `StoreBusyError` names the holder."""

    @abstractmethod
    def clear_leftovers(self) -> None:
        """Remove what killed writers of this very name have left."""

    @abstractmethod
    def remove_leftovers(self) -> list[str]:
        """Remove those `leftovers` below it whose writer is known to be gone, and return their names."""


Place = str | Path | Location
"""A path, a URL, or a location that is open already: see `open_location`."""


def write_json(location: Location, document: Any, *, exclusive: bool = False) -> None:
    """Write JSON as `ltstore.atomic.write_json` does: equal data give equal bytes."""
    if exclusive:
        location.create(encode_json(document))
    else:
        location.write([encode_json(document)])


def parallel_map(location: Location, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Return ``[function(item) for item in items]``, as many at once as the location is worth."""
    if location.n_parallel == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(location.n_parallel, thread_name_prefix="ltstore-requests") as pool:
        return list(pool.map(function, items))


def is_url(place: Place) -> bool:
    """Whether a place is named by a URL (``s3://bucket/name``) and not by a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def open_location(place: Place, options: Mapping[str, Any] | None = None) -> Location:
    """Return the location of a path or URL; nothing is touched yet.

    Parameters
    ----------
    place : str, path or Location
        A path; ``file:///...``; ``s3://bucket/prefix``, ``gs://``, ``az://`` and whatever else obstore knows, through
        obstore; any other ``protocol://`` through fsspec, if that has a file system for it.
    options : mapping, optional
        For obstore its configuration (``endpoint``, ``region``, ``access_key_id``, ``client_options``,
        ``retry_config``, ...), for fsspec the arguments of the file system. Default: from the environment, as the
        AWS, Google and Azure tools read it; ``AWS_ENDPOINT_URL`` names another S3 server.

    Raises
    ------
    ConfigError
        A URL of no known protocol, or options for a path.
    BackendUnavailableError
        The package for it is not installed: says how to install it.
    """
    if isinstance(place, Location):
        return place
    text = str(place)
    if is_url(place) and not text.startswith("file://"):
        from ltstore.storage.objects import open_object_location

        return open_object_location(text, options or {})
    from urllib.parse import unquote, urlsplit

    from ltstore.storage.files import FileLocation

    return FileLocation(Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(place))
