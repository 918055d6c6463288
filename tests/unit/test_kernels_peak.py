"""The bare product is that of its numbers, and its rate is flops over the fastest run."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.kernels import peak


@pytest.mark.parametrize("precision, error", [("float32", 1e-5), ("bf16", 2e-2)])
def test_it_is_the_product(precision, error):
    product = peak.bare_product(5, 40, 3, precision=precision)
    found = np.asarray(product.run() if precision == "float32" else product.run().float())
    exact = product.X.astype(np.float64) @ product.W.T
    assert np.abs(found - exact).max() <= error * np.abs(exact).max()
    assert product.flops == 2 * 5 * 40 * 3


def test_the_rate_is_that_of_the_fastest_run(monkeypatch):
    times = iter([0.0, 0.5, 1.0, 1.25, 2.0, 2.5])  # runs of .5, .25 and .5 s
    monkeypatch.setattr(peak.time, "perf_counter", lambda: next(times))
    assert peak.product_rate(7, 11, 13) == 2 * 7 * 11 * 13 / 0.25
    assert peak.product_rate(7, 11, 13) == 2 * 7 * 11 * 13 / 0.25  # measured once


def test_a_run_on_the_cpu_is_short(monkeypatch):
    asked = []
    make = peak.bare_product

    def small(n_rows, n_features, n_columns, **how):
        asked.append(n_rows)
        return make(8, 8, 8, **how)

    monkeypatch.setattr(peak, "bare_product", small)
    for n_rows, n_columns in ((8192, 1000), (100, 1000), (8192, 10**6)):
        assert peak.product_rate(n_rows, 500, n_columns) > 0
    assert asked == [1000, 100, 64]
