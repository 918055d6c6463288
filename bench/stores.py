"""How each storage peer holds and reads the same float16 rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import missing
from ltstore.store import Split
from ltstore.types import IntArray

HalfRows = NDArray[np.float16]


def zarr_array(split: Split) -> Any:
    """Return the split's own array as zarr-python opens it."""
    import zarr

    return zarr.open_array(split.path / "embeddings", mode="r")


def zarrs_array(split: Split) -> Any:
    """Return the split's own array as zarr-python opens it with the codec pipeline of zarrs, which is compiled."""
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr_array(split)


def tensorstore_array(split: Split) -> Any:
    """Return the split's own array as tensorstore opens it."""
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{split.path / 'embeddings'}/"}}
    return tensorstore.open(spec, open=True, read=True).result()


def lance_dataset(path: Path, rows: HalfRows) -> Any:
    """Write the rows as a Lance data set of one fixed-size list column, uncompressed as they are, and open it."""
    import lance
    import pyarrow as pa

    flat = pa.array(rows.reshape(-1))
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})
    return lance.write_dataset(table, str(path))


def _from_arrow(table: Any, n_features: int) -> HalfRows:
    column = table.column("x").combine_chunks()
    values: HalfRows = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, n_features)
    return values


def random_readers(
    split: Split, rows: HalfRows, ids: IntArray, directory: Path
) -> tuple[dict[str, Callable[[], HalfRows]], dict[str, str]]:
    """Return {peer: reader of the rows `ids`}, and {peer: why it is not there}."""
    skipped = {peer: reason for peer in ("lance", "tensorstore", "zarr") if (reason := missing(peer))}
    readers: dict[str, Callable[[], HalfRows]] = {}
    if "lance" not in skipped:
        dataset = lance_dataset(directory / "rows.lance", rows)
        positions = ids.tolist()
        readers["lance"] = lambda: _from_arrow(dataset.take(positions), rows.shape[1])
    if "tensorstore" not in skipped:
        tensors = tensorstore_array(split)
        readers["tensorstore"] = lambda: np.asarray(tensors[ids].read().result())
    if "zarr" not in skipped:
        array = zarr_array(split)
        readers["zarr"] = lambda: np.asarray(array.oindex[ids])
    return readers, skipped


def whole_readers(split: Split) -> tuple[dict[str, Callable[[], HalfRows]], dict[str, str]]:
    """Return {peer: reader of all rows}, and {peer: why it is not there}."""
    skipped = {peer: reason for peer in ("tensorstore", "zarr", "zarrs") if (reason := missing(peer))}
    readers: dict[str, Callable[[], HalfRows]] = {}
    if "tensorstore" not in skipped:
        tensors = tensorstore_array(split)
        readers["tensorstore"] = lambda: np.asarray(tensors.read().result())
    if "zarr" not in skipped:
        array = zarr_array(split)
        readers["zarr"] = lambda: np.asarray(array[:])
    if "zarrs" not in skipped:
        compiled = zarrs_array(split)
        readers["zarrs"] = lambda: np.asarray(compiled[:])
    return readers, skipped
