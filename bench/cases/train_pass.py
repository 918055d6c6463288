"""train.pass: one evaluation of the training objective against its two bare matrix products and the peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.objective import made_objective
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.types import FloatArray

# A, B and C of the trainer's design: (rows, features, classes, aim, stretch)
SHAPES: dict[str, dict[str, tuple[int, int, int, float, float]]] = {
    "toy": {"toy": (600, 24, 5, 0.65, 0.75)},
    "full": {
        "A": (100_000, 512, 100, 0.65, 0.75),
        "B": (100_000, 768, 365, 0.78, 0.85),
        "C": (50_000, 768, 1000, 0.78, 0.88),
    },
}
PEAK_SIDE = {"toy": 64, "full": 2048}


def build(size: Size) -> Iterator[Workload]:
    """Yield A, B and C in each precision: objective, its two products alone, and the peak of this core."""
    for variant, shape in SHAPES[size].items():
        for precision in ("float32", "bf16"):
            yield _workload(variant, shape, precision, PEAK_SIDE[size])


def _workload(variant: str, shape: tuple[int, int, int, float, float], precision: str, side: int) -> Workload:
    from ltstore.kernels.peak import bare_product
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    n_rows, n_features, n_classes, aim, stretch = shape
    rows = made_rows(n_rows, n_features, n_classes)
    n_rows = rows.n_samples
    stream = TrainingStream(rows)
    moments = class_moments(rows)
    objective = made_objective(stream, moments, precision=precision)
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((n_classes, n_features))
    weight32, bias = weight.astype(np.float32), np.zeros(n_classes)
    flops = 4.0 * n_rows * n_features * n_classes
    peak = bare_product(side, side, side, precision=precision)
    products = _float32_products if precision == "float32" else _bf16_products
    has_aim = precision == "bf16"
    candidates = [
        Candidate(name="objective", run=lambda: objective.evaluate(weight, bias), work=flops),
        Candidate(name="two bare products", run=products(stream, weight32), work=flops),
        Candidate(
            name=f"{precision} peak",
            run=peak.run,
            work=peak.flops,
            aim=aim if has_aim else None,
            stretch=stretch if has_aim else None,
        ),
    ]

    def check(name: str, result: Any) -> None:
        if name == "objective":
            _check_gradient(rows, result, weight, n_classes, 1e-3 if precision == "float32" else 2e-2)
        elif name == "two bare products":
            X = rows.read(0, n_rows)
            if not np.allclose(result, (X @ weight32.T).T @ X, rtol=1e-2, atol=2e-2 * np.abs(result).max()):
                raise WrongResultError(f"{name}: not (X W')' X")
        else:
            found = np.asarray(result.float() if precision == "bf16" else result)
            wide = peak.X.astype(np.float64) @ peak.W.T
            if not np.allclose(found, wide, rtol=0.02, atol=0.02 * np.abs(wide).max()):
                raise WrongResultError(f"{name}: not the product of the two matrices")

    return Workload(
        variant=f"{variant}, {precision}",
        candidates=tuple(candidates),
        check=check,
        unit="flops",
        settings={"n_samples": n_rows, "n_features": n_features, "n_classes": n_classes, "peak_side": side},
    )


def _float32_products(stream: Any, weight: FloatArray) -> Callable[[], Any]:
    """Return what does the products of a pass, block by block, in NumPy."""
    blocks = [X for X, _, _ in stream]
    logits = np.empty((max(map(len, blocks)), len(weight)), np.float32)
    gradient = np.empty(weight.shape, np.float32)

    def run() -> Any:
        total = np.zeros(weight.shape)
        for X in blocks:
            block = logits[: len(X)]
            np.matmul(X, weight.T, out=block)
            total += np.matmul(block.T, X, out=gradient)
        return total

    return run


def _bf16_products(stream: Any, weight: FloatArray) -> Callable[[], Any]:
    """Return the same in torch, of rows that are in bf16 already and logits that stay so."""
    import torch

    blocks = [torch.tensor(X, dtype=torch.bfloat16) for X, _, _ in stream]
    W = torch.tensor(weight, dtype=torch.bfloat16)

    def run() -> Any:
        total = torch.zeros(weight.shape, dtype=torch.float64)
        for X in blocks:
            total += torch.mm(torch.mm(X, W.T).T, X)
        return total.numpy()

    return run


def _check_gradient(rows: Any, found: Any, weight: Any, n_classes: int, within: float) -> None:
    """Compare with the formula in float64, all of it with plain NumPy."""
    X = rows.read(0, rows.n_samples).astype(np.float64)
    shares = np.bincount(rows.labels, minlength=n_classes) / rows.n_samples
    center = X.mean(axis=0)
    Z = (X - center) @ weight.T + np.log(np.where(shares > 0, shares, 1.0))
    Z[:, shares == 0] = -np.inf
    top = Z.max(axis=1, keepdims=True)
    exponentials = np.exp(Z - top)
    total = exponentials.sum(axis=1, keepdims=True)
    own = np.arange(len(Z)), rows.labels
    loss = float((np.log(total[:, 0]) + top[:, 0] - Z[own]).mean())
    G = exponentials / total
    G[own] -= 1.0
    gradient = G.T @ (X - center) / len(X)
    penalty = found.grad_weight - gradient  # l2 s W: a multiple of the weights
    scale = float(np.vdot(penalty, weight) / np.vdot(weight, weight))
    error = np.abs(penalty - scale * weight).max() / np.abs(gradient).max()
    if abs(found.loss - loss) > within / 10 * abs(loss) or error > within or not scale > 0:
        raise WrongResultError(
            f"objective: loss {found.loss} for {loss}, gradient off by {error:.1e} of its size"
        )


CASE = Case(
    name="train.pass",
    definition=(
        "flops/s of one pass of the objective / flops/s of its two bare matrix products, and of a square product (the "
        "core's peak), all in one precision"
    ),
    build=build,
)
