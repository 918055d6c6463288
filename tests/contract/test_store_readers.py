"""Any Zarr v3 reader opens a store and finds the same rows: zarr-python, tensorstore, xarray where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ltstore.store import open_store
from ltstore.transfer import adopt
from support.stores import columns, made_store, new_store

N, D = 5000, 5


@pytest.fixture(scope="module", params=["float16", "float32"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 rows in three shards of two chunks, the last of them not full; a subset; a synthetic split."""
    path = tmp_path_factory.mktemp("readers") / "s"
    made = made_store(path, N, 2048, dtype=request.param)
    made.split("train").add_subset("cut", [0, 2, 4999], settings={})
    with made.begin_split("more", n_rows=9, source_digest="", rows_per_shard=4, synthetic=True) as writer:
        for shard in writer.pending:
            writer.write_shard(shard, **columns(9, *writer.plan.shard_range(shard)))
        writer.finish()
    return path


def with_zarr(path: Path) -> Any:
    return zarr.open_array(path, mode="r")


def with_tensorstore(path: Path) -> Any:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return tensorstore.open(spec, open=True, read=True).result()


def with_zarrs(path: Path) -> Any:
    """zarr-python with the Rust pipeline of `zarrs`."""
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr.open_array(path, mode="r")


READERS = [with_zarr, with_tensorstore, with_zarrs]


@pytest.fixture(params=READERS, ids=lambda reader: reader.__name__)
def reader(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries deprecate is theirs
        yield request.param


def values(array: Any, selection: Any = slice(None)) -> np.ndarray:
    found = array[selection]
    return np.asarray(found.read().result() if hasattr(found, "read") else found)


def test_every_array_of_every_split(store: Path, reader: Callable[[Path], Any]) -> None:
    opened = open_store(store)
    for split, place in ((opened.split("train"), "train"), (opened.synthetic("more"), "synthetic/more")):
        X = np.empty((split.n_rows, D), split.dtype)
        split.embeddings.read(0, split.n_rows, X)
        assert X.any()
        assert np.array_equal(values(reader(store / place / "embeddings")), X)
        assert np.array_equal(values(reader(store / place / "labels")), split.labels)
        assert np.array_equal(values(reader(store / place / "status")), split.status)


def test_any_cut_of_rows(store: Path, reader: Callable[[Path], Any]) -> None:
    """Across chunks and shards, and in the chunk that is not full."""
    split = open_store(store).split("train")
    array = reader(store / "train" / "embeddings")
    for start, stop in ((0, 1), (1023, 1025), (2040, 2060), (4095, 4097), (4990, 5000), (17, 17)):
        X = np.empty((stop - start, D), split.dtype)
        split.embeddings.read(start, stop, X)
        assert np.array_equal(values(array, slice(start, stop)), X), (start, stop)


def test_row_ids_of_a_subset(store: Path, reader: Callable[[Path], Any]) -> None:
    assert values(reader(store / "train" / "subsets" / "cut")).tolist() == [0, 2, 4999]


def test_the_group_lists_its_members(store: Path) -> None:
    """A plain reader of groups walks the tree; the Parquet parts and commit records are no Zarr objects."""
    group = zarr.open_group(store, mode="r")
    assert dict(group.attrs)["ltstore"]["format_version"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = group["train"]
        assert {"embeddings", "labels", "status", "subsets"} <= {name for name, _ in train.members()}
        assert group["train/labels"].shape == (N,)
        assert group["synthetic/more/embeddings"].shape == (9, D)
    assert dict(train.attrs)["ltstore"]["state"] == "complete"


def test_an_incomplete_split_reads_as_zeros_elsewhere(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    """Other readers know no commit records: what is not written is the fill value, and its status is 0. So say so."""
    made = new_store(tmp_path / "s")
    with made.begin_split("train", n_rows=20, source_digest="", rows_per_shard=8) as writer:
        writer.write_shard(1, **columns(20, 8, 16))
    assert values(reader(tmp_path / "s" / "train" / "labels"), slice(0, 8)).tolist() == [0] * 8
    split = open_store(tmp_path / "s").split("train", allow_incomplete=True)
    assert split.status[:8].tolist() == [255] * 8


def test_xarray(store: Path) -> None:
    """A split is a data set: one dimension of rows, one of features."""
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = xarray.open_zarr(store, group="train", consolidated=False, chunks=None, mask_and_scale=False)
    split = open_store(store).split("train")
    assert dict(found.sizes) == {"row": N, "feature": D}
    X = np.empty((N, D), split.dtype)
    split.embeddings.read(0, N, X)
    assert np.array_equal(found["embeddings"].values, X)
    assert np.array_equal(found["labels"].values, split.labels)
    assert np.array_equal(found["status"].isel(row=slice(4000, 4100)).values, split.status[4000:4100])


def test_a_split_is_adopted_as_any_array_is(store: Path) -> None:
    """What this library writes is a foreign array to itself, too."""
    split = open_store(store).split("train")
    rows = split.rows(normalize=False)
    found = adopt(store / "train" / "embeddings", normalize=False)
    assert found.n_samples == N
    assert np.array_equal(found.read(0, N)[rows.row_ids], rows.read(0, rows.n_samples))
