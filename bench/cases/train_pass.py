"""train.pass: one evaluation of the training objective against its two bare matrix products and the peak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.objective import made_objective
from bench.peers import missing
from bench.timing import Candidate, Workload, WrongResultError

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
    """Yield A, B and C: objective, its two products alone, and the peak of this core in float32 and bf16."""
    for variant, shape in SHAPES[size].items():
        yield _workload(variant, shape, PEAK_SIDE[size])


def _workload(variant: str, shape: tuple[int, int, int, float, float], side: int) -> Workload:
    from ltstore.kernels.peak import bare_product
    from ltstore.rows import BLOCK_ROWS
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    n_rows, n_features, n_classes, aim, stretch = shape
    rows = made_rows(n_rows, n_features, n_classes)
    n_rows = rows.n_samples
    stream = TrainingStream(rows)
    moments = class_moments(rows)
    objective = made_objective(stream, moments)
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((n_classes, n_features))
    weight32, bias = weight.astype(np.float32), np.zeros(n_classes)
    blocks = [X for X, _, _ in stream]
    logits = np.empty((BLOCK_ROWS, n_classes), np.float32)
    forward = np.empty((n_classes, n_features), np.float32)
    flops = 4.0 * n_rows * n_features * n_classes
    peak = bare_product(side, side, side)

    def products() -> Any:
        total = np.zeros((n_classes, n_features))
        for X in blocks:
            block = logits[: len(X)]
            np.matmul(X, weight32.T, out=block)
            total += np.matmul(block.T, X, out=forward)
        return total

    candidates = [
        Candidate(name="objective", run=lambda: objective.evaluate(weight, bias), work=flops),
        Candidate(name="two bare products", run=products, work=flops),
        Candidate(name="float32 peak", run=peak.run, work=peak.flops),
    ]
    skipped = {}
    if reason := missing("torch"):
        skipped["bf16 peak (torch)"] = reason
    else:
        half = bare_product(side, side, side, precision="bf16")
        candidates.append(
            Candidate(name="bf16 peak (torch)", run=half.run, work=half.flops, aim=aim, stretch=stretch)
        )

    def check(name: str, result: Any) -> None:
        if name == "objective":
            _check_gradient(rows, result, weight, n_classes)
        elif name == "two bare products":
            X = rows.read(0, n_rows)
            if not np.allclose(result, (X @ weight32.T).T @ X, rtol=1e-2, atol=1e-2 * np.abs(result).max()):
                raise WrongResultError(f"{name}: not (X W')' X")
        else:
            found = np.asarray(result.float() if name.startswith("bf16") else result)
            wide = peak.X.astype(np.float64) @ peak.W.T
            if not np.allclose(found, wide, rtol=0.02, atol=0.02 * np.abs(wide).max()):
                raise WrongResultError(f"{name}: not the product of the two matrices")

    return Workload(
        variant=variant,
        candidates=tuple(candidates),
        check=check,
        unit="flops",
        settings={"n_samples": n_rows, "n_features": n_features, "n_classes": n_classes, "peak_side": side},
        skipped=skipped,
    )


def _check_gradient(rows: Any, found: Any, weight: Any, n_classes: int) -> None:
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
    if abs(found.loss - loss) > 1e-4 * abs(loss) or error > 1e-3 or not scale > 0:
        raise WrongResultError(
            f"objective: loss {found.loss} for {loss}, gradient off by {error:.1e} of its size"
        )


CASE = Case(
    name="train.pass",
    definition=(
        "flops/s of one pass of the objective / flops/s of its two bare matrix products, of a square float32 product "
        "(the core's float32 peak) and of a square bf16 product (the core's bf16 peak)"
    ),
    build=build,
    note="The pass computes in float32, so the aims, which are shares of the bf16 peak, are out of its reach.",
)
