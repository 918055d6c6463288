"""Object stores through obstore: S3 and what speaks like it, Google Cloud Storage, Azure, HTTP (read only)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from ltstore.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer

PROTOCOLS = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https")
PART_BYTES = 8 << 20
_CLIENT = {"timeout": "120s", "connect_timeout": "10s"}
_RETRY = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}


class ObstoreClient:
    """An `ltstore.storage.objects.ObjectClient` over obstore.

    Parameters
    ----------
    url : str
    options : dict
        Of `obstore.store.from_url`. Whatever is left out comes from the environment; credentials of S3 also from
        the profiles of the AWS tools, where boto3 is installed.

    Notes
    -----
    obstore tries again, for three minutes, where a service answers 5xx or the connection breaks. An object of more
    than 8 MiB is put in parts, which become visible together.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._arguments = (url, options)
        try:
            from obstore.store import from_url
        except ImportError as err:
            raise BackendUnavailableError(
                f"{url} needs the package obstore, which is not installed: pip install obstore"
            ) from err
        given = {**_from_environment(url), **options}
        endpoint = str(given.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL") or "")
        plain = {"allow_http": True} if url.startswith("http://") or endpoint.startswith("http://") else {}
        given["client_options"] = {**_CLIENT, **plain, **given.get("client_options", {})}
        given["retry_config"] = {**_RETRY, **given.get("retry_config", {})}
        try:
            self._store: Any = from_url(url, **given)
        except Exception as err:
            raise ConfigError(f"{url} cannot be opened: {str(err).strip().splitlines()[0]}") from err

    def __reduce__(self) -> tuple[Any, ...]:
        return ObstoreClient, self._arguments

    def read(self, key: str, limit: int | None) -> Buffer:
        import obstore

        if limit is None:
            data: Buffer = obstore.get(self._store, key).bytes()
            return data
        return b"".join(_first(obstore.get(self._store, key), limit))

    def read_end(self, key: str, n_bytes: int) -> tuple[Buffer, int]:
        import obstore
        from obstore.exceptions import GenericError

        try:
            found = obstore.get(self._store, key, options={"range": {"suffix": n_bytes}})
        except GenericError:
            if obstore.head(self._store, key)["size"]:
                raise
            return b"", 0  # an empty object has no range
        return found.bytes(), int(found.meta["size"])

    def read_ranges(self, key: str, starts: Sequence[int], stops: Sequence[int]) -> Sequence[Buffer]:
        import obstore

        found: Sequence[Buffer] = obstore.get_ranges(self._store, key, starts=starts, ends=stops)
        return found

    def exists(self, key: str) -> bool:
        import obstore

        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def names(self, prefix: str) -> list[str]:
        import obstore

        found = obstore.list_with_delimiter(self._store, prefix or None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def total_bytes(self, prefix: str) -> int:
        import obstore

        return sum(int(entry["size"]) for batch in obstore.list(self._store, prefix or None) for entry in batch)

    def write(self, key: str, pieces: Iterable[Buffer]) -> None:
        import obstore

        held: list[bytes] = []
        n_held = 0
        rest = iter(pieces)
        for piece in rest:
            held.append(bytes(piece))
            n_held += len(held[-1])
            if n_held > PART_BYTES:
                whole = chain(held, (bytes(piece) for piece in rest))
                obstore.put(self._store, key, whole, use_multipart=True, chunk_size=PART_BYTES)
                return
        obstore.put(self._store, key, b"".join(held), use_multipart=False)

    def create(self, key: str, data: bytes) -> str:
        return self._put(key, data, "create")

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        import obstore

        found = obstore.get(self._store, key)
        return bytes(found.bytes()), str(found.meta["e_tag"] or "")

    def update(self, key: str, data: bytes, tag: str) -> str:
        return self._put(key, data, {"e_tag": tag})

    def _put(self, key: str, data: bytes, mode: Any) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        try:
            return str(obstore.put(self._store, key, data, mode=mode)["e_tag"] or "")
        except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError) as err:
            raise FileExistsError(key) from err

    def remove(self, key: str) -> None:
        import obstore

        obstore.delete(self._store, key)


def _first(found: Any, limit: int) -> Iterable[bytes]:
    for piece in found.stream(min_chunk_size=min(limit, PART_BYTES)):
        data = bytes(piece)[:limit]
        limit -= len(data)
        yield data
        if limit <= 0:
            return


def _from_environment(url: str) -> Mapping[str, Any]:
    """Credentials from the profiles of the AWS tools, which obstore does not read itself."""
    known = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    if not url.startswith(("s3://", "s3a://")) or any(os.environ.get(name) for name in known):
        return {}
    if find_spec("boto3") is None:
        return {}
    import boto3

    session = boto3.Session()
    if session.get_credentials() is None:
        return {}
    from obstore.auth.boto3 import Boto3CredentialProvider

    region = {"region": session.region_name} if session.region_name else {}
    return {"credential_provider": Boto3CredentialProvider(session), **region}
