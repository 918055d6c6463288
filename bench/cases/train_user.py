"""train.user: from an opened store to the accuracy at which a tuned loop of torch ends, everything counted.

The peer trains a linear head with the logit-adjusted loss by Adam under bf16 autocast, the rate falling to 0 by a
cosine; its best rate is where it is said to converge. ltstore has one number tuned in the same way, on the test rows,
the strength of the penalty. Both must reach the lower of the two balanced accuracies, less a tenth of a point; timed
are the quickest of the peer's runs that do, of whatever rate and number of epochs, and ltstore to its own stop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.problems import Problem, problem
from bench.case import Case, Size
from bench.data import DATA, write_rows
from bench.peers import missing
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.metrics import class_accuracy
from ltstore.rows import ArrayRows
from ltstore.store import Store, open_store
from ltstore.types import FloatArray

SLACK = 1e-3  # a tenth of a point
WITHIN = 1e-2  # of the least objective, where the peer is tuned to stop early
BATCH = 512
RATES = (1e-3, 3e-3, 1e-2)
L2 = (1e-2, 3e-3, 1e-3)
EPOCHS = {"toy": (4,), "full": (2, 4, 8, 16, 32, 64)}
PROBLEMS = {"toy": ("digits",), "full": ("cifar100-lt-if100", "caltech101")}

Head = tuple[FloatArray, FloatArray]


def build(size: Size) -> Iterator[Workload]:
    """Yield one workload a problem."""
    for name in PROBLEMS[size]:
        if name != "digits" and not DATA.exists():
            continue
        made = problem(name, DATA, 0, size)
        rows = ArrayRows(made.train.X, made.train.y, class_names=[str(c) for c in range(made.n_classes)])
        with tempfile.TemporaryDirectory() as directory:
            write_rows(Path(directory) / "store", rows)
            yield _workload(Path(directory) / "store", made, size)


def _ltstore(store: Store, l2: float, **settings: Any) -> Head:
    from ltstore.linear import TrainSettings, train_linear
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    rows = store.split("train").rows(normalize=True)
    model = train_linear(
        TrainingStream(rows), TrainSettings(loss="la", l2=l2, **settings), class_moments(rows)
    ).model
    return model.weight, model.bias


def _torch(store: Store, rate: float, n_epochs: int) -> Head:
    import torch

    torch.manual_seed(0)
    rows = store.split("train").rows(normalize=True)
    X, y = torch.from_numpy(rows.read(0, rows.n_samples)), torch.from_numpy(rows.labels.copy())
    counts = torch.bincount(y, minlength=len(rows.class_names))
    prior = torch.log(counts.clamp(min=1) / counts.sum())
    layer = torch.nn.Linear(X.shape[1], len(counts))
    solver = torch.optim.Adam(layer.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, n_epochs * -(-len(X) // BATCH))
    for _ in range(n_epochs):
        for batch in torch.randperm(len(X)).split(BATCH):
            solver.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = layer(X[batch])
            torch.nn.functional.cross_entropy(logits.float() + prior, y[batch]).backward()
            solver.step()
            schedule.step()
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def _workload(path: Path, made: Problem, size: Size) -> Workload:
    store = open_store(path)
    test = ArrayRows(made.test.X, made.test.y, normalize=True)
    X = test.read(0, test.n_samples)

    def accuracy(head: Head) -> float:
        predicted = (X @ head[0].T + head[1]).argmax(axis=1)
        return float(np.nanmean(class_accuracy(test.labels, predicted, made.n_classes)))

    own = {l2: accuracy(_ltstore(store, l2)) for l2 in L2}
    candidates: list[Candidate] = []
    skipped: dict[str, str] = {}
    target, tried = 0.0, {}
    if why := missing("torch"):
        skipped["torch Adam, bf16"] = why
    else:
        tried = {run: accuracy(_torch(store, *run)) for run in product(RATES, EPOCHS[size])}
        converged = max(tried[rate, EPOCHS[size][-1]] for rate in RATES)
        target = min(converged, max(own.values())) - SLACK
        rate, n_epochs = min((run for run in tried if tried[run] >= target), key=lambda run: run[1])
        candidates.append(
            Candidate(
                name="torch Adam, bf16",
                run=partial(_torch, store, rate, n_epochs),
                peer="torch",
                aim=10.0,
                stretch=30.0,
            )
        )

    chosen = next((l2 for l2 in L2 if own[l2] >= target), L2[0])
    near = partial(_ltstore, store, chosen, precision="bf16", tolerance=WITHIN)
    candidates = [
        Candidate(name="ltstore", run=partial(_ltstore, store, chosen)),
        Candidate(name="ltstore, bf16, to 1 % of the optimum", run=near),
        *candidates,
    ]

    def check(name: str, result: Head) -> None:
        found = accuracy(result)
        if found < target:
            raise WrongResultError(f"{name}: balanced accuracy {found:.4f}, must be at least {target:.4f}")

    return Workload(
        variant=made.name,
        candidates=tuple(candidates),
        check=check,
        unit="runs",
        settings={
            "n_samples": len(made.train.y),
            "n_features": X.shape[1],
            "n_classes": made.n_classes,
            "target": target,
            "l2": chosen,
            "ltstore reaches": {f"l2 {l2:g}": found for l2, found in own.items()},
            "torch reaches": {f"rate {rate:g}, {n} epochs": found for (rate, n), found in tried.items()},
        },
        skipped=skipped,
    )


CASE = Case(
    name="train.user",
    definition="seconds of the quickest tuned torch loop to the balanced test accuracy that it and ltstore converge "
    "to, less a tenth of a point, / those of ltstore, both from an opened store, moments counted",
    build=build,
    rounds=5,
    note="Rate and epochs of the peer and l2 of ltstore are chosen on the test rows; the search is not counted.",
)
