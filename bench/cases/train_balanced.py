"""train.balanced: a pass over real rows and synthetic ones up to the largest class, against a PyTorch loop."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.objective import made_objective
from bench.peers import missing
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.types import DoubleArray

# The trainer's problems A, B and C, with fewer rows: (rows, features, classes, aim)
SHAPES: dict[str, dict[str, tuple[int, int, int, float]]] = {
    "toy": {"toy": (600, 24, 5, 6.0)},
    "full": {"A": (20_000, 512, 100, 6.0), "B": (20_000, 768, 365, 6.0), "C": (20_000, 768, 1000, 5.0)},
}
SAMPLER: dict[str, Any] = {"noise": "residuals"}
BATCH = 1024


class Pass(NamedTuple):
    """What a pass gives."""

    loss: float
    grad_weight: DoubleArray


def build(size: Size) -> Iterator[Workload]:
    """Yield A, B and C."""
    for variant, (n_rows, n_features, n_classes, aim) in SHAPES[size].items():
        yield _workload(variant, n_rows, n_features, n_classes, aim)


def _workload(variant: str, n_rows: int, n_features: int, n_classes: int, aim: float) -> Workload:
    from ltstore.sampling import balance_targets, make_sampler
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    rows = made_rows(n_rows, n_features, n_classes)
    moments = class_moments(rows)
    sampler = make_sampler("neighbor-gauss", **SAMPLER).fit(rows, moments)
    targets = balance_targets(moments.counts)
    stream = TrainingStream(rows, sampler=sampler, targets=targets)
    bare: dict[str, Any] = {"tau": 0.0, "l2": 0.0, "center": np.zeros(n_features)}
    objective = made_objective(stream, moments, **bare)
    weight = 3.0 * np.random.default_rng(1).standard_normal((n_classes, n_features))
    n_samples = stream.n_samples
    skipped = {"PyTorch, bf16": why} if (why := missing("torch")) else {}
    half = made_objective(stream, moments, precision="bf16", **bare)
    candidates = [
        Candidate(name="ltstore, bf16", run=partial(_ltstore, half, weight), work=n_samples),
        Candidate(name="ltstore, float32", run=partial(_ltstore, objective, weight), work=n_samples),
    ]
    if not skipped:
        candidates.append(
            Candidate(
                name="PyTorch, bf16",
                run=partial(_torch, stream, weight),
                work=n_samples,
                peer="torch",
                aim=aim,
                stretch=10.0,
            )
        )
    expected = _ltstore(
        made_objective(
            TrainingStream(rows, sampler=sampler, targets=targets, combine=False, cache_bytes=0),
            moments,
            backend="reference",
            **bare,
        ),
        weight,
    )

    def check(name: str, result: Any) -> None:
        within = 1e-4 if name == "ltstore, float32" else 2e-2  # bf16 has eight bits
        loss, gradient = result
        off = np.linalg.norm(gradient - expected.grad_weight) / np.linalg.norm(expected.grad_weight)
        if abs(loss - expected.loss) > within * expected.loss or off > within:
            raise WrongResultError(
                f"{name}: loss {loss:.6g} and not {expected.loss:.6g}, or a gradient {off:.2g} off"
            )

    return Workload(
        variant=variant,
        candidates=tuple(candidates),
        check=check,
        settings={
            "n_real": rows.n_samples,
            "n_synthetic": int(targets.sum()),
            "n_features": n_features,
            "n_classes": n_classes,
            "sampler": "neighbor-gauss",
            "sampler_settings": SAMPLER,
        },
        skipped=skipped,
    )


def _ltstore(objective: Any, weight: DoubleArray) -> Pass:
    found = objective.evaluate(weight, np.zeros(len(weight)))
    return Pass(found.loss, found.grad_weight)


def _torch(stream: Any, weight: DoubleArray) -> Pass:
    """Rows made on the fly from the same terms, a bf16 product, autograd: the loop that one would write."""
    import torch

    combined = stream.combined(len(weight))
    real = np.concatenate([X for X, _, _ in stream.real_blocks()])
    labels = np.concatenate([y for _, y, _ in stream.real_blocks()])
    atoms = torch.from_numpy(np.concatenate([real, combined.vectors]))
    indices, factors = torch.from_numpy(combined.indices), torch.from_numpy(combined.factors)
    W = torch.from_numpy(weight.astype(np.float32)).requires_grad_()
    total = 0.0

    def step(X: Any, y: Any) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            logits = torch.nn.functional.linear(X, W)
        loss = torch.nn.functional.cross_entropy(logits.float(), y, reduction="sum")
        loss.backward()
        return float(loss.detach())

    for start in range(0, len(real), BATCH):
        some = slice(start, min(start + BATCH, len(real)))
        total += step(atoms[some], torch.from_numpy(labels[some]))
    y = torch.from_numpy(combined.labels)
    for start in range(0, len(y), BATCH):
        some = slice(start, start + BATCH)
        X = (factors[some, :, None] * atoms[indices[some]]).sum(dim=1)
        total += step(X, y[some])
    n = len(real) + len(y)
    assert W.grad is not None
    return Pass(total / n, W.grad.numpy().astype(np.float64) / n)


CASE = Case(
    name="train.balanced",
    definition="rows/s of a pass over real rows and synthetic ones up to the largest class / rows/s of a PyTorch loop "
    "under bf16 autocast over the same rows, made on the fly",
    build=build,
    rounds=5,
)
