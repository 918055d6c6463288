"""How fast a machine is at what the steps are made of: measured here in about a second, or given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ltstore.kernels.peak import bare_product
from ltstore.kernels.rows import copy_rows

_SECONDS, _LEAST_RUNS = 0.06, 3
_FLOPS, _MOST_COLUMNS = 1e9, 1024  # of a product: more columns are no faster, and take memory
_COPIED = 1 << 26  # bytes: more than a cache holds
_CONVERTED_ROWS = 8192
_SORTED = 1 << 17  # logits
_CALLS = 1000


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a machine does in a second, all threads that a step uses together.

    Attributes
    ----------
    product_flops : float
        A matrix product like those of a pass.
    gram_flops : float
        X'X of float32 rows.
    copied_bytes : float
        Bytes read and written by a copy in memory.
    converted_bytes : float
        Bytes of float16 rows that are made float32 of unit norm, as they are when a mapped store is read.
    sorted_logits : float
        Logits of rows that are sorted, as they are for the best classes.
    calls : float
        Calls of NumPy on a few rows of a class: what many classes cost whatever their rows.
    """

    product_flops: float
    gram_flops: float
    copied_bytes: float
    converted_bytes: float
    sorted_logits: float
    calls: float

    def to_json(self) -> dict[str, float]:
        """Return a plain dict."""
        return asdict(self)


def measure_rates(
    n_features: int,
    n_columns: int,
    *,
    precision: str = "float32",
    device: str = "cpu",
    gflops: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Measure what this machine does, each thing for some 60 ms.

    Parameters
    ----------
    n_features, n_columns : int
        D, and the logits of a row of all heads.
    precision, device : str
        Of the products, as in `ltstore.kernels.peak.bare_product`.
    gflops : float, optional
        1e9 flops a second to take for all products instead of measuring them: of another machine.
    clock : callable
        Seconds.

    Raises
    ------
    ImportError, RuntimeError
        Of torch, where there is no such device.
    """
    import_module(
        "numba"
    )  # or rows would be converted as in a process that has not trained yet, ten times slower
    rng = np.random.default_rng(0)
    if gflops is None:
        product = _product_flops(n_features, n_columns, clock, precision=precision, device=device)
        X = rng.standard_normal((4096, n_features), np.float32)
        gram = 1.0 * X.size * n_features / _fastest(lambda: X.T @ X, clock)  # symmetric: half the flops
    else:
        product = gram = 1e9 * gflops
    source, target = np.ones(_COPIED, np.uint8), np.empty(_COPIED, np.uint8)
    copied = 2.0 * _COPIED / _fastest(lambda: np.copyto(target, source), clock)
    half = rng.standard_normal((_CONVERTED_ROWS, n_features), np.float32).astype(np.float16)
    out = np.empty(half.shape, np.float32)
    converted = half.nbytes / _fastest(lambda: copy_rows(half, out, unit=True), clock)
    logits = rng.standard_normal((max(1, _SORTED // n_columns), n_columns), np.float32)
    ordered = logits.size / _fastest(lambda: np.argsort(-logits, axis=1, kind="stable"), clock)
    few = rng.standard_normal((4, n_features), np.float32)
    calls = _CALLS / _fastest(lambda: [np.ones(4, np.float32) @ few for _ in range(_CALLS)], clock)
    return Rates(
        product_flops=product,
        gram_flops=gram,
        copied_bytes=copied,
        converted_bytes=converted,
        sorted_logits=ordered,
        calls=calls,
    )


def _product_flops(n_features: int, n_columns: int, clock: Callable[[], float], **how: str) -> float:
    columns = min(n_columns, _MOST_COLUMNS)
    n_rows = int(min(8192, max(64, _FLOPS / (2 * n_features * columns))))
    product = bare_product(n_rows, n_features, columns, **how)
    return product.flops / _fastest(product.run, clock)


def _fastest(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Return the seconds of the fastest run."""
    run()  # starts what is started once
    times: list[float] = []
    while len(times) < _LEAST_RUNS or sum(times) < _SECONDS:
        began = clock()
        run()
        times.append(clock() - began)
    return max(min(times), 1e-9)
