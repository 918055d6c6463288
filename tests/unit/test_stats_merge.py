"""Moments of two sets of rows together are those of all rows; appended rows cost only themselves."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.rows import ArrayRows, TailRows
from ltstore.stats import class_moments, merge_moments
from ltstore.store import create_store, open_store
from ltstore.types import EncoderIdentity, Rows
from ltstore.workflow import select

NAMES = ("a", "b", "c", "d", "e")


def made(n: int = 90, d: int = 7) -> ArrayRows:
    rng = np.random.default_rng(8)
    labels = rng.choice([-1, 0, 0, 0, 1, 1, 2], n)
    labels[0] = 3  # only in the first part; class 4 has no rows
    X = 5 + rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + labels[:, None]
    return ArrayRows(X, labels, class_names=NAMES)


@pytest.mark.parametrize("cut", [1, 2, 30, 89])
def test_merged_equals_all(cut: int) -> None:
    rows = made()
    first = ArrayRows(rows.read(0, cut), rows.labels[:cut], class_names=NAMES)
    a = class_moments(first, rank=3)
    b = class_moments(TailRows(rows, cut), basis=a.basis)
    merged, whole = merge_moments(a, b), class_moments(rows, basis=a.basis)
    for name in ("counts", "means", "pooled", "basis", "scatter", "residual"):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_other_bases_are_refused() -> None:
    rows = made()
    with pytest.raises(DataError, match="cannot be merged"):
        merge_moments(class_moments(rows, rank=3), class_moments(TailRows(rows, 40), rank=3))


def test_tail_rows_are_rows() -> None:
    rows = made()
    tail = TailRows(rows, 40)
    assert isinstance(tail, Rows)
    assert tail.n_samples == 50
    np.testing.assert_array_equal(tail.read(3, 9), rows.read(43, 49))
    np.testing.assert_array_equal(tail.take(np.array([0, 49])), rows.take(np.array([40, 89])))
    np.testing.assert_array_equal(tail.labels, rows.labels[40:])
    assert tail.digest != TailRows(rows, 41).digest
    with pytest.raises(IndexError):
        TailRows(rows, 91)
    with pytest.raises(IndexError):
        tail.take(np.array([-1]))


def test_appended_rows_update_the_kept_moments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = made(400)
    identity = EncoderIdentity(encoder="import", model="made", n_features=7)
    store = create_store(tmp_path / "s", encoder=identity, class_names=NAMES)
    for start, stop in ((0, 300), (300, 380), (380, 400)):
        with store.begin_split(
            "train", n_rows=stop - start, source_digest=str(start), dtype="float32", append=True
        ) as writer:
            n = stop - start
            writer.write_shard(
                0,
                embeddings=rows.read(start, stop),
                labels=rows.labels[start:stop],
                status=np.zeros(n, int),
                keys=[""] * n,
                errors=[None] * n,
            )
            writer.finish()
        caplog.clear()
        with caplog.at_level(logging.INFO, "ltstore"):
            found = select(store).moments()
        assert ("are updated with" in caplog.text) == (start > 0)
        again = class_moments(open_store(store.path).split("train").rows(), basis=found.basis)
        for name in ("counts", "means", "pooled", "scatter", "residual"):
            np.testing.assert_allclose(getattr(found, name), getattr(again, name), rtol=1e-5, atol=1e-5)
