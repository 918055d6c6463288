"""Every layout that a plan may have reads alike: by the mapped reader, by zarr-python, whoever chose the chunks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from ltstore.store import ShardPlan, Store, create_store, open_store, verify
from ltstore.store import store as store_module
from support.foreign import scratch
from support.stores import CLASS_NAMES, columns, identity

PLANS = st.builds(
    lambda n, chunk, chunks: ShardPlan(n_rows=n, rows_per_shard=chunk * chunks, chunk_rows=chunk),
    st.integers(0, 60),
    st.integers(1, 9),
    st.integers(1, 6),
)
COMPRESSORS = st.sampled_from([None, ZstdCodec(), GzipCodec(), BloscCodec()])


def store_of(path: Path, plan: ShardPlan, n_features: int, dtype: str) -> Store:
    """A store whose writer chose another plan than ours: any chunks, any shards."""
    store = create_store(path, encoder=identity(n_features), class_names=CLASS_NAMES)
    with (
        mock.patch.object(store_module, "plan_shards", return_value=plan),
        store.begin_split(
            "train", n_rows=plan.n_rows, source_digest="", dtype=dtype, rows_per_shard=1
        ) as writer,
    ):
        assert writer.plan == plan
        for shard in writer.pending:
            writer.write_shard(shard, **columns(plan.n_rows, *plan.shard_range(shard), n_features))
        writer.finish()
    return store


def check(path: Path, plan: ShardPlan, n_features: int, dtype: str, seed: int) -> None:
    """Rows are those of the plan, whichever way they are asked for."""
    truth = columns(plan.n_rows, 0, plan.n_rows, n_features)
    X = truth["embeddings"].astype(dtype).astype(np.float32)
    X[truth["status"] != 0] = 0
    split = open_store(path).split("train")
    assert split.generations[0].plan == plan
    assert np.array_equal(split.labels, truth["labels"])
    assert np.array_equal(split.status, truth["status"])
    ok = np.flatnonzero(truth["status"] == 0)
    rows = split.rows(normalize=False)
    assert np.array_equal(rows.row_ids, ok)
    rng = np.random.default_rng(seed)
    start, stop = sorted(rng.integers(0, len(ok) + 1, 2).tolist())
    assert np.array_equal(rows.read(start, stop), X[ok[start:stop]])
    if len(ok):
        positions = rng.integers(0, len(ok), 30)
        assert np.array_equal(rows.take(positions), X[ok[positions]])
    ids = rng.permutation(plan.n_rows)
    assert split.keys(ids) == [truth["keys"][row] for row in ids]
    out = np.empty((plan.n_rows, n_features), dtype)
    split.embeddings.read(0, plan.n_rows, out)
    assert np.array_equal(out, np.asarray(zarr.open_array(path / "train" / "embeddings", mode="r")[...]))


@settings(max_examples=40)
@given(PLANS, st.integers(1, 17), st.sampled_from(["float16", "float32"]), st.integers(0, 99))
def test_any_plan_reads_as_it_was_written(plan: ShardPlan, n_features: int, dtype: str, seed: int) -> None:
    with scratch() as directory:
        path = Path(directory) / "s"
        store_of(path, plan, n_features, dtype)
        assert verify(path).ok
        check(path, plan, n_features, dtype, seed)


@settings(max_examples=25)
@given(PLANS, st.integers(1, 9), st.sampled_from(["float16", "float32"]), COMPRESSORS, st.data())
def test_any_layout_by_another_program_reads_alike(
    plan: ShardPlan, n_features: int, dtype: str, compressor: Any, data: st.DataObject
) -> None:
    """Other chunks, shards and compressors than those of the plan; verify says that it was laid out anew."""
    with scratch() as directory:
        path = Path(directory) / "s"
        store_of(path, plan, n_features, dtype)
        for name in data.draw(st.sets(st.sampled_from(["embeddings", "labels", "status"]), min_size=1)):
            array = path / "train" / name
            values = np.asarray(zarr.open_array(array, mode="r")[...])
            chunks = tuple(data.draw(st.integers(1, max(size, 1) + 3)) for size in values.shape)
            factor = data.draw(st.integers(0, 3))
            shards = tuple(size * factor for size in chunks) if factor else None
            shutil.rmtree(array)
            made = zarr.create_array(
                array,
                shape=values.shape,
                dtype=values.dtype,
                chunks=chunks,
                shards=shards,
                compressors=compressor,
                config={"write_empty_chunks": True},
            )
            if values.size:
                made[...] = values
        assert not verify(path).ok
        check(path, plan, n_features, dtype, 0)
