"""Class moments against their definition in float64."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.stats import ClassMoments, MomentSums, class_moments


def made_rows(
    counts: tuple[int, ...] = (40, 7, 0, 1, 12), d: int = 9, unlabelled: int = 5, common: float = 4
) -> ArrayRows:
    rng = np.random.default_rng(3)
    labels = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])
    # A common mean far from zero is what costs digits on real features.
    X = common + rng.normal(size=(len(labels), d)) @ rng.normal(size=(d, d)) + labels[:, None]
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


def assert_close(found: ClassMoments, expected: ClassMoments, n_digits: int) -> None:
    np.testing.assert_array_equal(found.counts, expected.counts)
    for name in ("means", "pooled", "basis", "scatter", "residual"):
        truth = getattr(expected, name)
        scale = np.trace(expected.pooled) if name == "residual" else np.abs(truth).max()
        allowed = 10**-n_digits * scale
        np.testing.assert_allclose(getattr(found, name), truth, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("rank", [1, 3, 9, 50])
@pytest.mark.parametrize("block_rows", [1, 7, 4096])
def test_equals_definition(rank: int, block_rows: int) -> None:
    rows = made_rows()
    assert_close(class_moments(rows, rank=rank, block_rows=block_rows), naive(rows, rank), n_digits=5)


def test_a_mean_that_all_rows_share_costs_no_digits() -> None:
    """The sum of x x' in float32 would be wrong in the first digit here."""
    rows = made_rows(common=3000)
    assert_close(class_moments(rows, rank=3), naive(rows, 3), n_digits=4)


def test_merging_is_adding() -> None:
    rows = made_rows()
    whole, first, second = (MomentSums.empty(5, 9) for _ in range(3))
    X, y = rows.read(0, rows.n_samples), rows.labels
    whole.add(X, y)
    first.add(X[:20], y[:20])
    second.add(X[20:], y[20:])
    merged = first + second
    np.testing.assert_array_equal(merged.counts, whole.counts)
    np.testing.assert_allclose(merged.means, whole.means, atol=1e-6)
    np.testing.assert_allclose(merged.pooled, whole.pooled, atol=1e-6 * np.trace(whole.pooled))
    np.testing.assert_allclose(whole.pooled, naive(rows, 1).pooled, atol=1e-6 * np.trace(whole.pooled))
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


MANY_CLASSES = """
    import sys
    import numpy as np
    from ltstore.kernels.normals import normal_rows
    from ltstore.neighbors import class_donors
    from ltstore.rows import ArrayRows, normalize_rows
    from ltstore.sampling import make_sampler
    from ltstore.stats import class_moments

    C, D, N = 8142, 768, int(sys.argv[1])

    class Made(ArrayRows):  # rows of a key, never all in memory
        def __init__(self):
            super().__init__(np.zeros((1, D), np.float32), normalize=True)
            share = np.geomspace(500, 1, C)
            counts = 2 + ((N - 2 * C) * share / share.sum()).astype(int)
            self._labels = np.repeat(np.arange(C), counts)
            self._class_names = tuple(map(str, range(C)))
            self._row_ids = np.arange(len(self._labels))
            self._centers = normal_rows((1, 2, 3), 0, C, D)

        n_samples = property(lambda self: len(self._labels))

        def read(self, start, stop, out=None):
            X = normal_rows((4, 5, 6), start, stop, D) + self._centers[self._labels[start:stop]]
            X = normalize_rows(np.ascontiguousarray(X, np.float32))
            if out is None:
                return X
            out[...] = X
            return out

        def take(self, positions, out=None):
            return np.concatenate([self.read(i, i + 1) for i in positions.tolist()])

    def peak():  # of this program: ru_maxrss has that of its parent in it
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    rows = Made()
    moments = class_moments(rows)
    after = peak()
    donors = class_donors(moments.means, moments.counts)
    made = make_sampler("neighbor-gauss").fit(rows, moments, donors).sample(C - 1, 0, 64, seed=0)
    assert np.isfinite(made.X).all() and moments.counts.sum() == rows.n_samples
    print(after, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("n_rows", [20_000, pytest.param(437_513, marks=pytest.mark.stress)])
def test_eight_thousand_classes_take_less_than_two_gigabytes(n_rows: int) -> None:
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY_CLASSES), str(n_rows)],
        check=True,
        capture_output=True,
        text=True,
    )
    moments, all_of_it = map(int, found.stdout.split())
    assert moments < 1e9
    assert all_of_it < 2e9


@pytest.mark.parametrize("n_rows", [400, 12, 3])
def test_the_basis_of_many_features_is_that_of_a_whole_decomposition(n_rows: int) -> None:
    """Found by Lanczos where directions stand out, else (fewer rows than directions, equal rows) as ever."""
    rng = np.random.default_rng(3)
    X = (rng.standard_normal((n_rows, 80)) * np.linspace(3, 0.1, 80)).astype(np.float32)
    rows = ArrayRows(X, np.arange(n_rows) % 2)
    found = class_moments(rows, rank=4)
    values, vectors = np.linalg.eigh(found.pooled)
    if n_rows > 5:
        np.testing.assert_allclose(np.abs((found.basis * vectors[:, :-5:-1]).sum(axis=0)), 1, atol=1e-10)
    np.testing.assert_allclose(
        np.trace(found.basis.T @ found.pooled @ found.basis), values[-4:].sum(), rtol=1e-10
    )
    np.testing.assert_array_equal(class_moments(rows, rank=4).basis, found.basis)
    same = class_moments(ArrayRows(np.ones((6, 80), np.float32), np.arange(6) % 2), rank=4)
    assert not same.pooled.any()
    np.testing.assert_allclose(same.basis.T @ same.basis, np.eye(4), atol=1e-12)
