"""How fast a bare matrix product is here: what the products of a pass are measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ltstore.types import FloatArray

PeakRate = Callable[..., float]
"""Gives flops a second for what `product_rate` takes."""
_SECONDS, _LEAST_RUNS = 0.03, 3
_MOST_FLOPS, _LEAST_ROWS = 1e9, 64  # of a run on the CPU: some 10 ms of a core
_GPU_RUNS, _GPU_ROWS = 50, 16384  # launched together, as one takes microseconds


@dataclass(frozen=True)
class Product:
    """X @ W.T by itself.

    Attributes
    ----------
    X : (n, D) float32
    W : (L, D) float32
    run : callable
        Makes the product, on a GPU some times in a row, and returns it when it is there.
    flops : float
        Of a call of `run`.
    """

    X: FloatArray
    W: FloatArray
    run: Callable[[], Any]
    flops: float


def bare_product(
    n_rows: int, n_features: int, n_columns: int, *, precision: str = "float32", device: str = "cpu"
) -> Product:
    """Return a product of normal numbers, made by NumPy in float32 on the CPU and by torch elsewhere.

    Parameters
    ----------
    n_rows, n_features, n_columns : int
        n, D and L.
    precision : {"float32", "tf32", "bf16"}
        Of the factors.
    device : str
        "cpu" or "cuda:0", ...
    """
    rng = np.random.default_rng(0)
    X, W = (rng.standard_normal((n, n_features), np.float32) for n in (n_rows, n_columns))
    flops = 2.0 * n_rows * n_features * n_columns
    if device == "cpu" and precision == "float32":
        out = np.empty((n_rows, n_columns), np.float32)
        return Product(X, W, lambda: np.matmul(X, W.T, out=out), flops)
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.from_numpy(each).to(device, dtype) for each in (X, W))
    if device == "cpu":
        return Product(X, W, lambda: torch.mm(a, b.T), flops)

    def run() -> Any:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        try:
            for _ in range(_GPU_RUNS):
                product = torch.mm(a, b.T)
            torch.cuda.synchronize(device)
        finally:
            torch.set_float32_matmul_precision(before)
        return product

    return Product(X, W, run, flops * _GPU_RUNS)


@cache
def product_rate(
    n_rows: int, n_features: int, n_columns: int, *, precision: str = "float32", device: str = "cpu"
) -> float:
    """Return the flops a second of a product (n, D) @ (D, L), the fastest run of some 30 ms; measured once a process.

    Parameters are those of `bare_product`. On the CPU fewer rows stand for many, so that a run is at most 1e9 flops.
    """
    if device == "cpu":
        n_rows = min(n_rows, max(_LEAST_ROWS, int(_MOST_FLOPS / (2.0 * n_features * n_columns))))
    product = bare_product(min(n_rows, _GPU_ROWS), n_features, n_columns, precision=precision, device=device)
    product.run()  # starts what is started once
    times: list[float] = []
    while len(times) < _LEAST_RUNS or sum(times) < _SECONDS:
        started = time.perf_counter()
        product.run()
        times.append(time.perf_counter() - started)
    return product.flops / max(min(times), 1e-9)
