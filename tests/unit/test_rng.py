"""Random rows are a function of their key alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from ltstore.rng import row_key, row_uniforms, stream


@pytest.mark.parametrize("n_draws", [1, 3, 4, 5, 17])
def test_rows_do_not_depend_on_the_block_they_are_drawn_in(n_draws: int) -> None:
    whole = row_uniforms(7, "test", 3, 1, 0, 50, n_draws)
    parts = [row_uniforms(7, "test", 3, 1, a, b, n_draws) for a, b in [(0, 1), (1, 13), (13, 13), (13, 50)]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.shape == (50, n_draws)


def test_different_leaves_give_unrelated_rows() -> None:
    base = row_uniforms(0, "test", 0, 0, 0, 4000, 2).ravel()
    for leaf in [(1, "test", 0, 0), (0, "other", 0, 0), (0, "test", 1, 0), (0, "test", 0, 1)]:
        assert row_key(*leaf) != row_key(0, "test", 0, 0)
        other = row_uniforms(*leaf, 0, 4000, 2).ravel()
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.05


def test_uniforms_are_open_and_uniform() -> None:
    uniforms = row_uniforms(0, "law", 0, 0, 0, 20_000, 5)
    assert uniforms.min() > 0
    assert uniforms.max() < 1
    assert kstest(uniforms.ravel(), "uniform").pvalue > 1e-3


def test_streams_repeat_and_differ() -> None:
    assert stream(1, "a").integers(2**62) == stream(1, "a").integers(2**62)
    assert stream(1, "a").integers(2**62) != stream(1, "b").integers(2**62)
