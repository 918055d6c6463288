"""A store of each format version stays readable for ever.

`store-v1` was made by `make` below; it is never made again. A change that fails here needs a new version.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import zarr

from ltstore.store import create_store, open_store, verify
from ltstore.types import EncoderIdentity, RowStatus

GOLDEN = Path(__file__).parent / "store-v1"
X = (np.arange(60, dtype=np.float32).reshape(12, 5) - 30) / 8  # exact in float16


def make(path: Path) -> None:
    """Write 12 rows in shards of 4 and chunks of 4, two of them without an embedding, and 3 synthetic rows."""
    encoder = EncoderIdentity(
        encoder="import",
        model="golden",
        weights="none",
        preprocessing={"resize": 224, "mean": [0.5]},
        n_features=5,
    )
    store = create_store(path, encoder=encoder, class_names=["newt", "été", "crane", "crane"])
    with store.begin_split(
        "train", n_rows=12, source_digest="sha256:source", rows_per_shard=4, settings={"limit": None}
    ) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            embeddings = X[start:stop].copy()
            embeddings[(np.arange(start, stop) == 6)] = np.nan
            writer.write_shard(
                shard,
                embeddings=embeddings,
                labels=[-1 if row == 5 else row % 4 for row in range(start, stop)],
                status=[RowStatus.CORRUPT if row == 9 else RowStatus.OK for row in range(start, stop)],
                keys=[f"été/{row}.jpg" for row in range(start, stop)],
                errors=["cut short" if row == 9 else None for row in range(start, stop)],
                timings={"encode": 0.25},
            )
        split = writer.finish()
    split.add_subset("longtail", [0, 1, 2, 4, 9, 11], settings={"rule": "exp", "imbalance": 3})
    with store.begin_split("smote", n_rows=3, source_digest="", rows_per_shard=4, synthetic=True) as writer:
        writer.write_shard(
            0,
            embeddings=X[:3],
            labels=[2, 2, 3],
            status=[0, 0, 0],
            keys=["0", "1", "2"],
            errors=[None] * 3,
            extra={"parent_ids": np.array([[0, 1], [2, -1], [4, 5]]), "donor_ids": np.array([[1], [1], [0]])},
        )
        writer.finish()


def test_version_1_is_whole() -> None:
    report = verify(GOLDEN)
    assert report.ok, report.problems
    assert report.notes == []
    assert report.n_shards == 4


def test_version_1_reads_as_it_was_written() -> None:
    store = open_store(GOLDEN)
    assert store.format_version == 1
    assert store.encoder.preprocessing == {"resize": 224, "mean": [0.5]}
    assert store.class_names == ("newt", "été", "crane", "crane")
    split = store.split("train")
    assert (split.n_rows, split.dtype, split.settings) == (12, "float16", {"limit": None})
    assert split.failures() == {"CORRUPT": 1, "NON_FINITE": 1}
    assert split.errors([9, 6]) == ["cut short", "NaN or Inf in 5 of 5 features"]
    assert split.keys([11, 0]) == ["été/11.jpg", "été/0.jpg"]
    assert split.labels.tolist() == [0, 1, 2, 3, 0, -1, 2, 3, 0, 1, 2, 3]
    rows = split.rows(normalize=False)
    assert rows.row_ids.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 10, 11]
    np.testing.assert_array_equal(rows.read(0, 10), X[rows.row_ids])
    assert split.rows("longtail").row_ids.tolist() == [0, 1, 2, 4, 11]
    assert split.subset_settings("longtail") == {"rule": "exp", "imbalance": 3}
    made = store.synthetic("smote")
    assert made.table([1], ["parent_ids", "donor_ids"]).to_pylist() == [
        {"parent_ids": [2, -1], "donor_ids": [1]}
    ]
    np.testing.assert_array_equal(made.rows(normalize=False).read(0, 3), X[:3])


def test_version_1_has_the_digests_it_had() -> None:
    """Models and indexes name them: they may not change under a store that does not change."""
    split = open_store(GOLDEN).split("train")
    assert split.digest == "sha256:04d5bcc14fd037a8e69dcc1e35d1fe5257cb82ef3005aac23e8f1edb1833a98c"
    assert (
        split.rows("longtail").digest
        == "sha256:037ad000df87805a6b047112f4e919eae9e770cbc25aa6234ed10b1811ba8ad5"
    )


def test_version_1_opens_in_zarr() -> None:
    group = zarr.open_group(GOLDEN, mode="r")
    expected = X.astype(np.float16)
    expected[[6, 9]] = 0
    np.testing.assert_array_equal(np.asarray(group["train/embeddings"][:]), expected)


def test_todays_writer_still_writes_version_1(tmp_path: Path) -> None:
    make(tmp_path / "s")
    for name in ("embeddings", "labels", "status"):
        for file in (GOLDEN / "train" / name / "c").rglob("*"):
            if file.is_file():
                assert (tmp_path / "s" / file.relative_to(GOLDEN)).read_bytes() == file.read_bytes()
    shutil.rmtree(tmp_path / "s")
