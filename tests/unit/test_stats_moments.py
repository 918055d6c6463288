"""Class moments against their definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.stats import ClassMoments, MomentSums, class_moments


def made_rows(counts: tuple[int, ...] = (40, 7, 0, 1, 12), d: int = 9, unlabelled: int = 5) -> ArrayRows:
    rng = np.random.default_rng(3)
    labels = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])
    # A common mean far from zero is what costs digits on real features.
    X = 4 + rng.normal(size=(len(labels), d)) @ rng.normal(size=(d, d)) + labels[:, None]
    order = rng.permutation(len(labels))
    return ArrayRows(X[order], labels[order], class_names=[f"c{i}" for i in range(len(counts))])


def naive(rows: ArrayRows, rank: int) -> ClassMoments:
    X, y = rows.read(0, rows.n_samples).astype(np.float64), rows.labels
    C, D = len(rows.class_names), rows.n_features
    counts = np.array([(y == c).sum() for c in range(C)])
    means = np.array([X[y == c].mean(axis=0) if counts[c] else np.zeros(D) for c in range(C)])
    scatters = np.array([(X[y == c] - means[c]).T @ (X[y == c] - means[c]) for c in range(C)])
    pooled = scatters.sum(axis=0) / max(counts.sum() - np.count_nonzero(counts), 1)
    basis = np.linalg.eigh(pooled)[1][:, ::-1][:, :rank]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    outside = np.eye(D) - basis @ basis.T
    return ClassMoments(
        counts=counts,
        means=means,
        pooled=pooled,
        basis=basis,
        scatter=np.array([basis.T @ s @ basis for s in scatters]),
        residual=np.array([np.diag(outside @ s @ outside) for s in scatters]),
    )


@pytest.mark.parametrize("rank", [1, 3, 9, 50])
@pytest.mark.parametrize("block_rows", [1, 7, 4096])
def test_equals_definition(rank: int, block_rows: int) -> None:
    rows = made_rows()
    found, expected = class_moments(rows, rank=rank, block_rows=block_rows), naive(rows, rank)
    for name in ("counts", "means", "pooled", "basis", "scatter", "residual"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-8, atol=1e-8, err_msg=name
        )


def test_merging_is_adding() -> None:
    rows = made_rows()
    whole, first, second = (MomentSums.empty(5, 9) for _ in range(3))
    X, y = rows.read(0, rows.n_samples), rows.labels
    whole.add(X, y)
    first.add(X[:20], y[:20])
    second.add(X[20:], y[20:])
    merged = first + second
    np.testing.assert_array_equal(merged.counts, whole.counts)
    np.testing.assert_allclose(merged.pooled, whole.pooled, atol=1e-10)
    with pytest.raises(DataError, match="cannot be added"):
        first + MomentSums.empty(4, 9)


def test_one_row_everywhere_has_no_spread() -> None:
    rows = ArrayRows(np.eye(3, dtype=np.float32), [0, 1, 2])
    moments = class_moments(rows)
    assert not moments.pooled.any()
    assert not moments.residual.any()
    np.testing.assert_allclose(moments.basis.T @ moments.basis, np.eye(3), atol=1e-12)


def test_no_labels_and_bad_rank_are_refused() -> None:
    with pytest.raises(DataError, match="none among 2"):
        class_moments(ArrayRows(np.ones((2, 3))))
    with pytest.raises(ConfigError, match="rank"):
        class_moments(made_rows(), rank=0)


def test_progress_counts_both_passes() -> None:
    seen: list[int] = []
    class_moments(made_rows(), block_rows=10, progress=lambda n, seconds: seen.append(n))
    assert sum(seen) == 2 * 65
