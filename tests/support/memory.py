"""Object stores of this process: conditional writes as S3 has them, and fast."""

from __future__ import annotations

from pathlib import Path

from ltstore.storage import Location, ObjectLocation
from ltstore.storage.obstore_client import ObstoreClient


def in_memory(copied: Path | None = None) -> ObjectLocation:
    """A new object store, with the files of a directory as its objects."""
    from obstore.store import MemoryStore

    client = ObstoreClient.__new__(ObstoreClient)
    client._store = MemoryStore()
    place = ObjectLocation("s3://in-memory", client)
    for file in sorted(copied.rglob("*") if copied else ()):
        if file.is_file() and file.name != ".lock":
            at: Location = place
            for part in file.relative_to(copied or "").parts:
                at = at / part
            at.write([file.read_bytes()])
    return place


def objects(location: Location) -> dict[str, bytes]:
    """Every object, by its name."""
    found: dict[str, bytes] = {}

    def walk(place: Location, prefix: str) -> None:
        for name in place.child_names():
            if (place / name).exists():
                found[prefix + name] = (place / name).read()
            walk(place / name, f"{prefix}{name}/")

    walk(location, "")
    return found
