"""train.synthetic: a pass over real and synthetic rows against a pass over the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.objective import made_objective
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (300, 24, 5), "full": (20_000, 512, 100)}
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "smote": ("smote", {}),
    "residual-transfer": ("residual-transfer", {}),
    "neighbor-gauss, noise=residuals": ("neighbor-gauss", {"noise": "residuals"}),
    "neighbor-gauss": ("neighbor-gauss", {}),
}
AMOUNTS = ("one a real row", "up to the largest class")


def build(size: Size) -> Iterator[Workload]:
    """Yield a workload for each sampler and number of rows."""
    from ltstore.linear.metric import within_class_metric
    from ltstore.sampling import balance_targets, make_sampler
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    n_rows, n_features, n_classes = SHAPES[size]
    rows = made_rows(n_rows, n_features, n_classes)
    moments = class_moments(rows, rank=16)
    weight = np.random.default_rng(1).standard_normal((n_classes, n_features))
    bias = np.zeros(n_classes)
    objective = partial(made_objective, moments=moments, tau=0.0, metric=within_class_metric(moments))
    real = objective(TrainingStream(rows))
    balanced = balance_targets(moments.counts)
    equal = np.floor(balanced * (rows.n_samples / balanced.sum())).astype(np.int64)
    for variant, (name, settings) in SAMPLERS.items():
        sampler = make_sampler(name, **settings).fit(rows, moments)
        for amount, targets in zip(AMOUNTS, (equal, balanced), strict=True):
            stream = TrainingStream(rows, sampler=sampler, targets=targets)
            both = objective(stream)
            # Every evaluation must agree with the rows of a pass, made piece by piece.
            expected = {
                "real only": _mean_loss(TrainingStream(rows), weight, real.center),
                "real + synthetic": _mean_loss(
                    TrainingStream(rows, sampler=sampler, targets=targets), weight, both.center
                ),
            }

            def check(candidate: str, result: Any, expected: dict[str, float] = expected) -> None:
                if abs(result.loss - expected[candidate]) > 1e-4 * expected[candidate]:
                    raise WrongResultError(
                        f"{candidate}: mean loss {result.loss}, expected {expected[candidate]}"
                    )

            yield Workload(
                variant=f"{variant}, {amount}",
                candidates=(
                    Candidate(name="real + synthetic", run=partial(both.evaluate, weight, bias)),
                    Candidate(
                        name="real only",
                        run=partial(real.evaluate, weight, bias),
                        aim=1.15 if amount == AMOUNTS[0] else 1.3,
                        stretch=1.05 if amount == AMOUNTS[0] else 1.15,
                    ),
                ),
                check=check,
                kind="cost",
                unit="passes",
                settings={
                    "n_real": rows.n_samples,
                    "n_synthetic": int(targets.sum()),
                    "n_features": n_features,
                    "n_classes": n_classes,
                    "sampler": name,
                    "sampler_settings": settings,
                    "made": stream.why_not_combined(n_classes) or "no",
                },
            )


def _mean_loss(stream: Any, weight: Any, center: Any) -> float:
    total, n = 0.0, 0
    for X, y, _ in stream:
        Z = (X - center) @ weight.T
        top = Z.max(axis=1)
        total += float((np.log(np.exp(Z - top[:, None]).sum(axis=1)) + top - Z[np.arange(len(Z)), y]).sum())
        n += len(y)
    return total / n


CASE = Case(
    name="train.synthetic",
    definition="seconds of a pass over real and synthetic rows / a pass over the real rows only",
    build=build,
    rounds=5,
    note="Rows that are sums of real rows are trained on without being made; Gaussian ones are made once and kept.",
)
