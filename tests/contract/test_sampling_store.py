"""Synthetic rows go into a real store and come back with their origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import ShardWriter, balance_targets, make_sampler, materialize, read_synthetic
from ltstore.stats import class_moments
from ltstore.store import create_store
from ltstore.types import EncoderIdentity


def test_materialised_split(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [1500, 30, 1])
    X = np.random.default_rng(0).normal(size=(len(labels), 5))
    identity = EncoderIdentity(encoder="import", model="made", n_features=5)
    rows = ArrayRows(X, labels, class_names="abc", normalize=True, encoder=identity)
    moments = class_moments(rows, rank=2)
    sampler = make_sampler("neighbor-gauss").fit(rows, moments, class_donors(moments.means, moments.counts))
    targets = balance_targets(moments.counts)

    store = create_store(tmp_path / "s.zarr", encoder=identity, class_names=["a", "b", "c"])
    with store.begin_split(
        "balanced",
        n_rows=int(targets.sum()),
        source_digest=rows.digest,
        dtype="float32",
        rows_per_shard=1024,
        synthetic=True,
    ) as split_writer:
        writer: ShardWriter = split_writer
        materialize(sampler, targets, writer, seed=4)

    split = store.synthetic("balanced")
    view = split.rows(normalize=False)
    made = read_synthetic(sampler, targets, 0, int(targets.sum()), seed=4)
    np.testing.assert_array_equal(view.read(0, view.n_samples), made.X)
    np.testing.assert_array_equal(view.labels, np.repeat([1, 2], [1470, 1499]))
    assert split.keys([0, 1470]) == ["neighbor-gauss/4/0/1/0", "neighbor-gauss/4/0/2/0"]
    table = pq.ParquetDataset(split.path / "rows").read(["parent_ids", "donor_ids", "error"]).to_pydict()
    assert table["parent_ids"] == made.parent_ids.tolist()
    assert table["donor_ids"][-1] == [0]
    assert set(table["error"]) == {None}
