"""train.synthetic: a pass over real and synthetic rows against a pass over the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (300, 24, 5), "full": (20_000, 512, 100)}
CACHES = {"drawn every pass": 0, "kept in memory": 2 << 30}


def build(size: Size) -> Iterator[Workload]:
    """Yield one workload where rows are drawn at every pass, and one where the stream keeps them."""
    from ltstore.kernels import resolve_backend
    from ltstore.linear.metric import within_class_metric
    from ltstore.linear.objective import Objective
    from ltstore.neighbors import class_donors
    from ltstore.sampling import balance_targets, make_sampler
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    n_rows, n_features, n_classes = SHAPES[size]
    rows = made_rows(n_rows, n_features, n_classes)
    moments = class_moments(rows, rank=16)
    metric = within_class_metric(moments)
    sampler = make_sampler("neighbor-gauss").fit(rows, moments, class_donors(moments.means, moments.counts))
    targets = balance_targets(moments.counts)
    weight = np.random.default_rng(1).standard_normal((n_classes, n_features))
    bias = np.zeros(n_classes)
    backend = resolve_backend("auto")[0]

    def objective(stream: TrainingStream) -> Objective:
        center = stream.class_shares @ moments.means
        return Objective(stream, metric, center, tau=0.0, l2=1e-2, penalty="plain", backend=backend)

    # The rows of the pass, once more and piece by piece: what every evaluation must agree with.
    made = [sampler.sample(c, 0, int(n), seed=0) for c, n in enumerate(targets) if n]
    X = np.concatenate([rows.read(0, rows.n_samples), *(each.X for each in made)])
    y = np.concatenate([rows.labels, *(each.labels for each in made)])
    shares = {"real + synthetic": np.bincount(y, minlength=n_classes) / len(y)}
    shares["real only"] = moments.counts / rows.n_samples
    expected = {
        "real + synthetic": _mean_loss(X, y, weight, shares["real + synthetic"] @ moments.means),
        "real only": _mean_loss(
            X[: rows.n_samples], y[: rows.n_samples], weight, shares["real only"] @ moments.means
        ),
    }
    del made, X, y

    def check(name: str, result: Any) -> None:
        if abs(result.loss - expected[name]) > 1e-4 * expected[name]:
            raise WrongResultError(f"{name}: mean loss {result.loss}, expected {expected[name]}")

    for variant, cache_bytes in CACHES.items():
        both = objective(TrainingStream(rows, sampler=sampler, targets=targets, cache_bytes=cache_bytes))
        real = objective(TrainingStream(rows, cache_bytes=cache_bytes))
        yield Workload(
            variant=variant,
            candidates=(
                Candidate(name="real + synthetic", run=partial(both.evaluate, weight, bias)),
                Candidate(name="real only", run=partial(real.evaluate, weight, bias), aim=1.3, stretch=1.15),
            ),
            check=check,
            kind="cost",
            unit="passes",
            settings={
                "n_real": rows.n_samples,
                "n_synthetic": int(targets.sum()),
                "n_features": n_features,
                "n_classes": n_classes,
                "sampler": "neighbor-gauss",
            },
        )


def _mean_loss(X: Any, y: Any, weight: Any, center: Any) -> float:
    total = 0.0
    for start in range(0, len(X), 8192):
        Z = (X[start : start + 8192] - center) @ weight.T
        top = Z.max(axis=1)
        own = Z[np.arange(len(Z)), y[start : start + 8192]]
        total += float((np.log(np.exp(Z - top[:, None]).sum(axis=1)) + top - own).sum())
    return total / len(X)


CASE = Case(
    name="train.synthetic",
    definition="seconds of a pass over real + synthetic rows up to the largest class / a pass over the real rows only",
    build=build,
    rounds=5,
    note="Rows are materialised by the sampler. The aim supposes synthetic rows that are never materialised.",
)
