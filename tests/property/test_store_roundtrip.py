"""What is written is read back: by the mapped reader, by zarr-python, and both alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ltstore.errors import IncompleteStoreError
from ltstore.rows import normalize_rows
from ltstore.store import create_store, open_store, verify
from ltstore.types import Rows, RowStatus
from support.stores import CLASS_NAMES, identity

MAGNITUDES = st.sampled_from(
    [0.0, 1e-8, 1e-5, 1.0, 60000.0]
)  # nothing, subnormal in float16, ordinary, near its end

SHAPES = [  # rows, features, rows per shard
    *[(0, 3, 8), (1, 1, 1), (1, 3, 8), (7, 2, 8), (8, 2, 8), (9, 3, 8), (16, 4, 4), (23, 5, 7)],
    *[(n, 3, 3072) for n in (1023, 1024, 1025, 2049, 3072, 3073, 5000)],  # three chunks of 1,024 in a shard
]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(["float16", "float32"]),
    magnitude=MAGNITUDES,
    seed=st.integers(0, 1 << 20),
)
def test_written_equals_read(shape: tuple[int, int, int], dtype: str, magnitude: float, seed: int) -> None:
    n_rows, n_features, rows_per_shard = shape
    rng = np.random.default_rng(seed)
    X = (rng.uniform(-1, 1, (n_rows, n_features)) * magnitude).astype(np.float32)
    labels = rng.integers(-1, len(CLASS_NAMES), n_rows)
    status = rng.choice([RowStatus.OK, RowStatus.OK, RowStatus.MISSING, RowStatus.TOO_LARGE], n_rows)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        store = create_store(path, encoder=identity(n_features), class_names=CLASS_NAMES)
        with store.begin_split(
            "train", n_rows=n_rows, source_digest="", dtype=dtype, rows_per_shard=rows_per_shard
        ) as writer:
            for shard in rng.permutation(writer.pending).tolist():
                start, stop = writer.plan.shard_range(shard)
                writer.write_shard(
                    shard,
                    embeddings=X[start:stop],
                    labels=labels[start:stop],
                    status=status[start:stop],
                    keys=[str(row) for row in range(start, stop)],
                    errors=[None] * (stop - start),
                )
            writer.finish()
        expected = X.astype(dtype).astype(np.float32)
        expected[status != RowStatus.OK] = 0

        group = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(np.asarray(group["train/embeddings"][:]), expected.astype(dtype))
        np.testing.assert_array_equal(np.asarray(group["train/labels"][:]), labels)
        np.testing.assert_array_equal(np.asarray(group["train/status"][:]), status)

        split = open_store(path).split("train")
        np.testing.assert_array_equal(split.labels, labels)
        np.testing.assert_array_equal(split.status, status)
        rows = split.rows(normalize=False)
        assert isinstance(rows, Rows)
        ok = np.flatnonzero(status == RowStatus.OK)
        np.testing.assert_array_equal(rows.row_ids, ok)
        np.testing.assert_array_equal(rows.labels, labels[ok])
        start, stop = sorted(rng.integers(0, len(ok) + 1, 2))
        np.testing.assert_array_equal(rows.read(start, stop), expected[ok[start:stop]])
        if len(ok):
            positions = rng.integers(0, len(ok), 12)
            np.testing.assert_array_equal(rows.take(positions), expected[ok[positions]])
            unit = normalize_rows(expected[ok[positions]])
            np.testing.assert_array_equal(split.rows().take(positions), unit)
        order = rng.permutation(n_rows)
        assert split.keys(order) == [str(row) for row in order]
        assert verify(path).ok


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 20))
def test_rows_made_by_zarr_python_read_alike(seed: int) -> None:
    """The same values written through zarr-python into our layout give our bytes."""
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(1, 30))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        store = create_store(path, encoder=identity(3), class_names=["a"])
        X = rng.standard_normal((n_rows, 3)).astype(np.float16)
        with store.begin_split("train", n_rows=n_rows, source_digest="", rows_per_shard=4) as writer:
            for shard in writer.pending:
                start, stop = writer.plan.shard_range(shard)
                n = stop - start
                writer.write_shard(
                    shard,
                    embeddings=X[start:stop],
                    labels=np.zeros(n, int),
                    status=np.zeros(n, int),
                    keys=[""] * n,
                    errors=[None] * n,
                )
            writer.finish()
        files = {
            file: file.read_bytes()
            for file in (path / "train" / "embeddings" / "c").rglob("0")
            if file.is_file()
        }
        array = zarr.open_array(path / "train" / "embeddings", mode="r+", config={"write_empty_chunks": True})
        array[:] = np.zeros_like(X)
        array[:] = X
        assert {file: file.read_bytes() for file in files} == files


def test_an_incomplete_split_is_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", encoder=identity(), class_names=["a"])
    store.begin_split("train", n_rows=3, source_digest="").close()
    with pytest.raises(IncompleteStoreError, match="0 of 1 shards"):
        store.split("train")
