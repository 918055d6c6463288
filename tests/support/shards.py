"""Tars of samples and Parquet files of images that tests make."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from support.images import encoded, picture


def sample(name: str, label: object = None, seed: int = 0) -> list[tuple[str, bytes]]:
    """Return the members of a sample: an image, and its label in a `.cls` where there is one."""
    members = [(f"{name}.jpg", encoded(picture(seed)))]
    return members if label is None else [*members, (f"{name}.cls", str(label).encode())]


def write_shard(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], **how: Any) -> Path:
    """Write a tar of members, of names or of whole headers, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as archive:
        for name, data in members:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_images(
    path: Path, images: Sequence[bytes | None], *, metadata: dict[str, str] | None = None, **columns: Any
) -> Path:
    """Write a Parquet file with `image` structs as the hub has them, and other columns; return its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    group = columns.pop("row_group_size", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = [{"bytes": data, "path": None} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(structs, kind), **columns}).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=group)
    return path
