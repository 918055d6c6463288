"""The graph of all rows, in blocks, equals asking for all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.neighbors import ExactIndex, RestrictedIndex, build_index, iter_graph, write_graph
from ltstore.rows import ArrayRows

ROWS = ArrayRows(np.random.default_rng(0).normal(size=(300, 6)), row_ids=np.arange(300) * 2)


@pytest.mark.parametrize("block_rows", [7, 300])
@pytest.mark.parametrize("index", [ExactIndex(ROWS), build_index(ROWS, kind="ivf", recall=1, device="cpu")])
def test_blocks(index: RestrictedIndex, block_rows: int) -> None:
    X = ROWS.read(0, 300)
    similarity = X @ X.T / np.outer(np.linalg.norm(X, axis=1), np.linalg.norm(X, axis=1))
    np.fill_diagonal(similarity, -2)
    expected = 2 * np.argsort(-similarity, axis=1)[:, :4]
    blocks = list(iter_graph(index, ROWS, 4, block_rows=block_rows))
    assert [start for start, _, _ in blocks] == list(range(0, 300, block_rows))
    np.testing.assert_array_equal(np.concatenate([ids for _, ids, _ in blocks]), expected)


def test_written(tmp_path: Path) -> None:
    index = ExactIndex(ROWS)
    write_graph(index, ROWS, 5, tmp_path / "graph", {"kind": "graph"})
    ids, distances = (
        np.load(tmp_path / "graph" / "neighbor_ids.npy"),
        np.load(tmp_path / "graph" / "distances.npy"),
    )
    expected_ids, expected = index.search(ROWS.read(0, 300), 5, exclude=ROWS.row_ids)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected)
    assert (ids.dtype, distances.dtype) == (np.int64, np.float32)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k must be"):
        next(iter_graph(ExactIndex(ROWS), ROWS, 0))
    with pytest.raises(DataError, match="not of these rows"):
        write_graph(ExactIndex(ROWS), ArrayRows(ROWS.read(0, 9)), 2, tmp_path / "graph", {})
    assert not list(tmp_path.iterdir())
