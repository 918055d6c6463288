"""Counter-based normals: the words against published ones, the normals against float64, and what rows promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from ltstore.kernels import normals_numba, reference
from ltstore.kernels.normals import gauss_around, normal_rows

KEY = (7, 2**32 - 1, 12345)
DRAWS = [1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 769]

# Random123's known answers for philox4x32, 10 rounds: counter, key, words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_words_are_those_of_the_published_generator(counter, key, words):
    compiled = normals_numba._philox(*map(np.uint64, (*counter, *key)))
    assert tuple(map(int, compiled)) == words
    plain = reference.philox([np.array([c], np.uint64) for c in counter], key)
    assert tuple(int(word[0]) for word in plain) == words


@pytest.mark.parametrize("n_draws", DRAWS)
@pytest.mark.parametrize("start", [0, 2**32 - 3])
def test_normals_are_those_of_float64(n_draws, start):
    expected = reference.normal_rows(KEY, start, start + 9, n_draws)
    np.testing.assert_allclose(normal_rows(KEY, start, start + 9, n_draws), expected, atol=3e-6)


def test_the_transform_is_exact_at_its_ends():
    ends = [0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    for a in ends:
        for b in ends:
            radius = np.sqrt(-2 * np.log(((a >> 1) + 0.5) * 2.0**-31))
            expected = radius * np.sin(2 * np.pi * b / 2**32), radius * np.cos(2 * np.pi * b / 2**32)
            found = normals_numba._two_normals(np.uint64(a), np.uint64(b))
            # float32 rounds what is nearly 1 to 1, whose radius is 0
            assert found == pytest.approx(expected, abs=4e-4 if a > 2**32 - 2**8 else 5e-6)


@pytest.mark.parametrize("n_draws", DRAWS)
def test_rows_do_not_depend_on_the_block_they_are_drawn_in(n_draws):
    whole = normal_rows(KEY, 0, 50, n_draws)
    parts = [normal_rows(KEY, a, b, n_draws) for a, b in [(0, 1), (1, 13), (13, 13), (13, 50)]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_normals_are_normal_and_independent():
    X = normal_rows(KEY, 0, 20_000, 64).astype(np.float64)
    assert kstest(X.ravel(), "norm").pvalue > 1e-3
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        moment = np.mean(X**power)
        assert abs(moment - expected) < 5 * np.sqrt(np.var(X**power) / X.size)
    correlation = np.corrcoef(X, rowvar=False) - np.eye(64)
    assert np.abs(correlation).max() < 6 / np.sqrt(len(X))
    squares = np.corrcoef(X**2, rowvar=False) - np.eye(64)  # two normals of one radius must not betray it
    assert np.abs(squares).max() < 6 / np.sqrt(len(X))
    assert abs(np.mean(X[1:] * X[:-1])) < 5 / np.sqrt(X.size)


def test_other_keys_give_other_rows():
    base = normal_rows(KEY, 0, 4000, 2).ravel()
    for word in range(3):
        other = tuple(k ^ (i == word) for i, k in enumerate(KEY))
        assert abs(np.corrcoef(base, normal_rows(other, 0, 4000, 2).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("rank", [0, 1, 3, 4, 5, 16])
@pytest.mark.parametrize("n_features", [1, 2, 17, 64, 97])
def test_noise_is_factor_and_deviation_times_the_normals(rank, n_features):
    rng = np.random.default_rng([rank, n_features])
    X = rng.standard_normal((11, n_features)).astype(np.float32)
    factor = rng.standard_normal((rank, n_features)).astype(np.float32)
    deviation, shift = rng.uniform(0, 2, (2, n_features)).astype(np.float32)
    e = reference.normal_rows(KEY, 5, 16, rank + n_features)
    expected = 0.5 * X + shift + e[:, :rank] @ factor.astype(np.float64) + deviation * e[:, rank:]
    law = {"scale": 0.5, "shift": shift, "factor": factor, "deviation": deviation}
    whole = X.copy()
    gauss_around(whole, KEY, 5, **law)
    np.testing.assert_allclose(whole, expected, atol=3e-5)
    parts = X.copy()
    for start, stop in ((0, 1), (1, 6), (6, 11)):
        gauss_around(parts[start:stop], KEY, 5 + start, **law)
    np.testing.assert_array_equal(parts, whole)
