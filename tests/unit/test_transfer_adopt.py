"""A foreign Zarr array in place: the same rows as in memory, whatever its format, chunks and compressor."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from ltstore.errors import DataError, LabelError, SourceError, SourceNotFoundError
from ltstore.rows import ArrayRows, iter_blocks
from ltstore.stats import class_moments
from ltstore.transfer import adopt
from ltstore.types import Rows
from support.foreign import matrix

N, D = 333, 6
LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": (50, 4)},
    "v2-plain": {"zarr_format": 2, "chunks": (50, 4), "compressors": None},
    "v3-zstd": {"zarr_format": 3, "chunks": (64, D), "compressors": ZstdCodec()},
    "v3-blosc-sharded": {"zarr_format": 3, "chunks": (16, 3), "shards": (64, 6), "compressors": BloscCodec()},
}


def group_of(path: Path, layout: str, X: np.ndarray, y: np.ndarray | None = None) -> Path:
    arguments = LAYOUTS[layout]
    group = zarr.create_group(path, zarr_format=arguments["zarr_format"])
    keep = {key: value for key, value in arguments.items() if key != "zarr_format"}
    group.create_array("X", shape=X.shape, dtype=X.dtype, **keep)[...] = X
    if y is not None:
        group.create_array("label", shape=y.shape, dtype=y.dtype)[...] = y
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("normalize", [True, False])
def test_rows_equal_those_in_memory(tmp_path: Path, layout: str, dtype: str, normalize: bool) -> None:
    X, y = matrix(N, D, dtype), np.arange(N) % 3
    rows = adopt(group_of(tmp_path / "g", layout, X, y), labels="label", normalize=normalize)
    truth = ArrayRows(X, y, normalize=normalize)
    assert isinstance(rows, Rows)
    assert (rows.n_samples, rows.n_features, rows.class_names) == (N, D, ("0", "1", "2"))
    assert (rows.normalized, rows.n_failed) == (normalize, 0)
    assert np.array_equal(rows.read(0, N), truth.read(0, N))
    out = np.empty((40, D), np.float32)
    assert rows.read(30, 70, out) is out
    assert np.array_equal(out, truth.read(30, 70))
    positions = np.array([300, 2, 2, 64, 0, 299])
    assert np.array_equal(rows.take(positions), truth.take(positions))
    assert rows.take(np.array([], np.int64)).shape == (0, D)
    for (start, a, labels), (_, b, _) in zip(iter_blocks(rows, 100), iter_blocks(truth, 100), strict=True):
        assert np.array_equal(a, b), start
        assert len(labels) == len(a)
    again = pickle.loads(pickle.dumps(rows))  # noqa: S301 - our own bytes
    assert again.digest == rows.digest
    assert np.array_equal(again.read(5, 9), rows.read(5, 9))


def test_rows_that_are_not_finite_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    X = matrix(N, D, "float64")
    X[[0, 70, 71, 332], [0, 1, 2, 3]] = [np.nan, np.inf, 1e39, -np.inf]
    kept = np.delete(np.arange(N), [0, 70, 71, 332])
    with caplog.at_level(logging.WARNING):
        rows = adopt(group_of(tmp_path / "g", "v2", X), labels=np.arange(N) % 5, normalize=False)
    assert "4 of 333 rows" in caplog.text
    assert (rows.n_failed, rows.n_samples) == (4, N - 4)
    assert rows.row_ids.tolist() == kept.tolist()
    assert rows.labels.tolist() == (kept % 5).tolist()
    truth = X[kept].astype(np.float32)
    assert np.array_equal(rows.read(0, N - 4), truth)
    assert np.array_equal(rows.read(60, 80), truth[60:80])
    assert np.array_equal(rows.take(np.array([69, 68, 0])), truth[[69, 68, 0]])


def test_digest_follows_values_labels_and_not_the_layout(tmp_path: Path) -> None:
    X, y = matrix(N, D), np.arange(N) % 3
    same = {adopt(group_of(tmp_path / name, name, X), labels=y).digest for name in LAYOUTS}
    assert len(same) == 1
    path = tmp_path / "v2"
    changed = X.copy()
    changed[200, 3] += 1
    digests = [
        *same,
        adopt(path, labels=y + 1).digest,
        adopt(path, labels=y, normalize=False).digest,
        adopt(path, labels=y, class_names=list("abc")).digest,
        adopt(group_of(tmp_path / "c", "v2", changed), labels=y).digest,
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("layout", ["v2", "v3-zstd"])
def test_moments_are_those_of_memory(tmp_path: Path, layout: str) -> None:
    X, y = matrix(N, D), np.arange(N) % 3
    found = class_moments(adopt(group_of(tmp_path / "g", layout, X), labels=y))
    truth = class_moments(ArrayRows(X, y, normalize=True))
    assert np.array_equal(found.counts, truth.counts)
    assert np.array_equal(found.means, truth.means)


def test_refusals(tmp_path: Path) -> None:
    X = matrix(20, D)
    with pytest.raises(SourceNotFoundError, match="nothing at"):
        adopt(tmp_path / "none")
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("file.txt", "empty"):
        with pytest.raises(SourceError, match=name):
            adopt(tmp_path / name)
    path = group_of(tmp_path / "g", "v2", X, np.arange(20))
    with pytest.raises(SourceError, match="no array 'Y'; it has X, label"):
        adopt(path, array="Y")
    with pytest.raises(DataError, match="must be a matrix of floats"):
        adopt(path, array="label")
    with pytest.raises(LabelError, match="20 rows, found 3"):
        adopt(path, labels=[0, 1, 2])
    with pytest.raises(LabelError, match="label 2 of row 2"):
        adopt(path, labels="label", class_names=["a", "b"])
    with pytest.raises(SourceError, match="leave out array"):
        adopt(path / "X", array="X")
    zarr.open_group(path, mode="a").create_array("Z", shape=(20, 3), dtype="f4")
    with pytest.raises(SourceError, match="several matrices of floats, X, Z"):
        adopt(path)
    assert adopt(path / "X").n_samples == 20
    rows = adopt(path, array="X")
    for bad in (lambda: rows.read(0, 21), lambda: rows.take(np.array([20])), lambda: rows.take(np.array([-1]))):
        with pytest.raises(IndexError):
            bad()
    chunk = next(p for p in sorted((path / "X").iterdir()) if not p.name.startswith(".z"))
    chunk.write_bytes(b"damage")
    with pytest.raises(SourceError, match="cannot read"):
        adopt(path, array="X")
