"""Rows on their way out of storage: compiled and NumPy alike, against the naive one-liners."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from ltstore.kernels import rows as kernel
from ltstore.kernels.rows import RowTable, copy_rows, scale_rows, widen_half
from ltstore.rows import normalize_rows

ROWS = [0, 1, 2, 3, 7, 64, 65]
FEATURES = [1, 2, 15, 16, 31, 32, 33, 64, 97]


@pytest.fixture(params=["numpy", "compiled"])
def loops(request, monkeypatch):
    """Run with one implementation, whatever this process has loaded."""
    chosen = kernel._Loops()
    if request.param == "compiled":
        pytest.importorskip("numba")
        assert chosen.get(1 << 40) is not None
    else:
        chosen._possible = False
    monkeypatch.setattr(kernel, "_loops", chosen)
    return request.param


def made(shape, dtype, seed=0):
    """Values of all sizes, subnormals and zeros, none of them infinite."""
    rng = np.random.default_rng([seed, *shape])
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-7, 4, shape)
    values[rng.random(shape) < 0.05] = 0
    return values.astype(dtype)


def mapped(X, chunk_rows, rows_per_view, gap=4):
    """The rows as shard files hold them: read-only chunks with `gap` bytes between, and the views of them."""
    views = {}
    for number, start in enumerate(range(0, max(len(X), 1), rows_per_view)):
        rows = X[start : start + rows_per_view]
        n_chunks = -(-len(rows) // chunk_rows)
        chunk_bytes = chunk_rows * X.shape[1] * X.itemsize
        data = bytearray(max(n_chunks, 1) * (chunk_bytes + gap))
        for chunk in range(n_chunks):
            piece = rows[chunk * chunk_rows : (chunk + 1) * chunk_rows].tobytes()
            data[chunk * (chunk_bytes + gap) : chunk * (chunk_bytes + gap) + len(piece)] = piece
        views[number] = np.ndarray(
            (n_chunks, chunk_rows, X.shape[1]),
            X.dtype,
            buffer=bytes(data),
            strides=(chunk_bytes + gap, X.shape[1] * X.itemsize, X.itemsize),
        )
    return views


def gather_rows(views, rows_per_view, ids, out, unit=False):
    assert RowTable(views, rows_per_view).gather(ids, out, unit=unit)


def bits(X):
    return X.view(f"u{X.itemsize}")


def test_every_half_is_widened_bit_for_bit(loops):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    kept = halves if loops == "compiled" else halves[np.isfinite(halves)]  # NumPy's shortcut knows finite only
    kept = kept[~np.isnan(kept)].reshape(-1, 2)
    out = np.empty(kept.shape, np.float32)
    copy_rows(kept, out)
    np.testing.assert_array_equal(bits(out), bits(kept.astype(np.float32)))
    if loops == "compiled":
        nans = halves[np.isnan(halves)].reshape(-1, 1)
        out = np.empty(nans.shape, np.float32)
        copy_rows(nans, out)
        assert np.isnan(out).all()
    else:
        widen_half(kept, out)
        np.testing.assert_array_equal(out, kept)


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("n_features", FEATURES)
@pytest.mark.parametrize("stored", ["<f2", "<f4"])
@pytest.mark.parametrize("unit", [False, True])
def test_copying_equals_the_naive_line(loops, n, n_features, stored, unit):
    X = made((n, n_features), stored)
    X.flags.writeable = False
    guarded = np.full((n + 2, n_features), 7, np.float32)
    out = guarded[1:-1]
    copy_rows(X, out, unit=unit)
    expected = X.astype(np.float32)
    np.testing.assert_array_equal(bits(out), bits(normalize_rows(expected) if unit else expected))
    assert (guarded[[0, -1]] == 7).all()


def test_singles_are_narrowed_as_numpy_does(loops):
    halves = np.arange(1 << 15, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)].astype(np.float32)
    between = (finite[1:] + finite[:-1]) / 2  # ties go to the even one
    near = np.concatenate([finite, between, np.nextafter(between, 9e9), np.nextafter(between, -9e9)])
    odd = np.array([1e-45, 65519.996, 65520, 1e30, np.inf, np.nan], np.float32)
    X = np.concatenate([near, odd, -near, -odd]).reshape(2, -1)
    guarded = np.full((4, X.shape[1]), 7, np.float16)
    copy_rows(X, guarded[1:-1])
    with np.errstate(over="ignore"):
        expected = X.astype(np.float16)
    not_nan = ~np.isnan(X)
    np.testing.assert_array_equal(bits(guarded[1:-1])[not_nan], bits(expected)[not_nan])
    assert np.isnan(guarded[1:-1][~not_nan]).all()
    assert (guarded[[0, -1]] == 7).all()


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("n_features", FEATURES)
@pytest.mark.parametrize("stored", ["<f2", "<f4"])
@pytest.mark.parametrize("given, unit", [("<f2", False), ("<f4", False), ("<f4", True), ("<f8", False)])
def test_gathering_equals_the_naive_line(loops, n, n_features, stored, given, unit):
    X = made((67, n_features), stored)
    views = mapped(X, 5, 20)
    ids = np.random.default_rng(n).integers(0, 67, n)
    guarded = np.full((n + 2, n_features), 7, given)
    out = guarded[1:-1]
    gather_rows(views, 20, ids, out, unit=unit)
    expected = X[ids].astype(given)
    np.testing.assert_array_equal(bits(out), bits(normalize_rows(expected) if unit else expected))
    assert (guarded[[0, -1]] == 7).all()


@pytest.mark.parametrize("bad", [-1, 20, 39, 57, 60, 1 << 40])
def test_a_row_of_no_view_is_refused(loops, bad):
    X = made((57, 3), "<f2")
    views = mapped(X, 4, 20)
    views[2] = views[2][:-1]
    del views[1]
    assert not RowTable(views, 20).gather(np.array([0, bad]), np.zeros((2, 3), np.float32))


def test_scaling_at_every_magnitude(loops):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(19, 100)) * 10.0 ** np.linspace(-44, 37, 19)[:, None]
    X = X.astype(np.float32)
    X[4] = 0
    X[5] = [1e-45, *np.zeros(99)]
    expected = X.astype(np.float64)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, norms, out=np.zeros_like(expected), where=norms > 0)
    again = normalize_rows(X.copy())
    found = scale_rows(X)
    assert found is X
    np.testing.assert_array_equal(bits(found), bits(again))
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-38)
    assert (found[4] == 0).all()


def test_a_row_has_the_same_bits_in_any_company(loops):
    X = made((50, 45), "<f2", seed=3)
    whole = np.empty((50, 45), np.float32)
    copy_rows(X, whole, unit=True)
    for step in (1, 7, 49):
        out = np.empty_like(whole)
        for start in range(0, 50, step):
            copy_rows(X[start : start + step], out[start : start + step], unit=True)
        np.testing.assert_array_equal(bits(out), bits(whole))
    order = np.random.default_rng(1).permutation(50)
    out = np.empty_like(whole)
    gather_rows(mapped(X, 4, 12), 12, order, out, unit=True)
    np.testing.assert_array_equal(bits(out), bits(whole[order]))


def test_threads_gather_at_once(loops):
    X = made((400, 33), "<f2")
    views = mapped(X, 16, 64)
    failures = []

    def work(seed):
        ids = np.random.default_rng(seed).integers(0, 400, 300)
        out = np.empty((300, 33), np.float32)
        for _ in range(20):
            gather_rows(views, 64, ids, out)
            if not np.array_equal(out, X[ids]):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures


def test_little_work_loads_no_compiler():
    code = (
        "import sys, numpy as np; from ltstore.kernels import rows\n"
        "X = np.ones((4096, 64), np.float16); out = np.empty(X.shape, np.float32)\n"
        "rows.copy_rows(X, out); assert 'numba' not in sys.modules\n"
        "for _ in range(rows.LOAD_AFTER_BYTES // out.nbytes + 1): rows.copy_rows(X, out)\n"
        "assert 'numba' in sys.modules and (out == 1).all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
