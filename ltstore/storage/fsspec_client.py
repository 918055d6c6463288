"""Any other file system that fsspec knows: hf://, sftp://, smb://, hdfs://, memory://, ..."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ltstore.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class FsspecClient:
    """An `ltstore.storage.objects.ObjectClient` over fsspec.

    Parameters
    ----------
    url : str
    options : dict
        Arguments of the file system.

    Notes
    -----
    fsspec promises less than object stores do: an object is written under a temporary name and moved, and where
    moving is a copy a reader may see half of it; of two creators at the same instant both may believe to be first.
    One writer and any number of readers of finished splits are safe.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._arguments = (url, options)
        try:
            import fsspec
        except ImportError as err:
            raise BackendUnavailableError(
                f"{url} needs the package fsspec, which is not installed: pip install fsspec"
            ) from err
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
        except ImportError as err:
            raise BackendUnavailableError(f"{url} needs a package that is not installed: {err}") from err
        except ValueError as err:
            raise ConfigError(f"{url} cannot be opened: {err}") from err
        self._root = self._root.rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return FsspecClient, self._arguments

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def read(self, key: str, limit: int | None) -> Buffer:
        data: bytes = self._fs.cat_file(self._path(key), start=0 if limit else None, end=limit)
        return data

    def read_end(self, key: str, n_bytes: int) -> tuple[Buffer, int]:
        size = int(self._fs.size(self._path(key)))
        data: bytes = self._fs.cat_file(self._path(key), start=max(size - n_bytes, 0), end=size)
        return data, size

    def read_ranges(self, key: str, starts: Sequence[int], stops: Sequence[int]) -> Sequence[Buffer]:
        found: Sequence[Buffer] = self._fs.cat_ranges(
            [self._path(key)] * len(starts), list(starts), list(stops), on_error="raise"
        )
        return found

    def exists(self, key: str) -> bool:
        return bool(self._fs.isfile(self._path(key)))

    def names(self, prefix: str) -> list[str]:
        try:
            found = self._fs.ls(self._path(prefix), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return [name for name in names if not name.endswith(".tmp")]

    def total_bytes(self, prefix: str) -> int:
        return int(self._fs.du(self._path(prefix), total=True))

    def write(self, key: str, pieces: Iterable[Buffer]) -> None:
        path = self._path(key)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.tmp"
        with self._fs.open(temporary, "wb") as handle:
            for piece in pieces:
                handle.write(bytes(piece))
        self._fs.mv(temporary, path)

    def create(self, key: str, data: bytes) -> str:
        if self._fs.exists(self._path(key)):
            raise FileExistsError(key)
        self.write(key, [data])
        return _tag(data)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        data: bytes = self._fs.cat_file(self._path(key))
        return data, _tag(data)

    def update(self, key: str, data: bytes, tag: str) -> str:
        try:
            if self.read_tagged(key)[1] != tag:
                raise FileExistsError(key)
        except FileNotFoundError as err:
            raise FileExistsError(key) from err
        self.write(key, [data])
        return _tag(data)

    def remove(self, key: str) -> None:
        if self._fs.exists(self._path(key)):
            self._fs.rm_file(self._path(key))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
