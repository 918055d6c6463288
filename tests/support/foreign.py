"""Embeddings in other people's layouts, written by other people's libraries."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ltstore.store import Split, open_store


def scratch() -> TemporaryDirectory[str]:
    """A directory for one example: in memory where there is such a file system, since stores fsync every file."""
    return TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def matrix(n_rows: int, n_features: int = 5, dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((n_rows, n_features)).astype(dtype)


def stored(path: Path, split: str = "train") -> tuple[Split, NDArray[Any]]:
    """A split and all its stored rows, bits as they are."""
    opened = open_store(path).split(split)
    out = np.empty((opened.n_rows, opened.n_features), opened.dtype)
    opened.embeddings.read(0, opened.n_rows, out)
    return opened, out


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def table(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


def lists(X: NDArray[Any], *, fixed: bool = True) -> Any:
    kind = pa.from_numpy_dtype(X.dtype)
    if fixed:
        return pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), X.shape[1])
    return pa.array([list(row) for row in X], pa.list_(kind))


def clip_retrieval(path: Path, parts: list[NDArray[Any]], *, width: int = 1, metadata: bool = True) -> Path:
    """As clip-retrieval writes it: row k of one file is row k of the other."""
    (path / "img_emb").mkdir(parents=True)
    row = 0
    for number, X in enumerate(parts):
        np.save(path / "img_emb" / f"img_emb_{number:0{width}d}.npy", X)
        if metadata:
            names = [f"i/{row + i}.jpg" for i in range(len(X))]
            table(
                path / "metadata" / f"metadata_{number:0{width}d}.parquet",
                image_path=names,
                caption=["a photo"] * len(X),
            )
        row += len(X)
    return path
