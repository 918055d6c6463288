"""train.fair: time until one objective is within 1 % of its minimum, against scikit-learn and torch.

The objective is ltstore's with loss "ce" and penalty "whitened":

    f(W, b) = mean loss + l2/2 tr(W M W')

With M = L L' and rows x' = L^-1 (x - m) it is mean loss + l2/2 |U|^2, U = W L: what scikit-learn minimises with
C = 1 / (l2 N) on whitened rows. The peers get those rows ready; ltstore gets the plain ones and pays for its moments.
Every candidate runs for the fewest iterations that reach 1.01 f* (within an eighth of their number), found beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows, real_file
from bench.peers import missing
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.rows import ArrayRows
from ltstore.types import DoubleArray, FloatArray, IntArray

WITHIN = 1.01
ADAM_BATCH = 1024
ADAM_RATES = (1e-3, 3e-3, 1e-2)
L2 = 1e-2
LEAST_PASSES = 60  # after which nothing is left to find in float32 to speak of
MOST = 256  # iterations within which a candidate must arrive

Head = tuple[DoubleArray, DoubleArray]  # (C, D) weight and (C,) bias for whitened rows


@dataclass(frozen=True)
class Problem:
    """Whitened rows and the objective over them, in float64 and plain NumPy: the judge of every candidate."""

    rows: ArrayRows
    center: DoubleArray
    factor: DoubleArray
    white: FloatArray
    labels: IntArray
    n_classes: int

    def value(self, head: Head) -> float:
        """Return f of a head for whitened rows."""
        U, bias = head
        total = 0.0
        for start in range(0, len(self.white), 8192):
            Z = self.white[start : start + 8192].astype(np.float64) @ U.T + bias
            top = Z.max(axis=1)
            own = Z[np.arange(len(Z)), self.labels[start : start + 8192]]
            total += float((np.log(np.exp(Z - top[:, None]).sum(axis=1)) + top - own).sum())
        return total / len(self.white) + 0.5 * L2 * float(np.vdot(U, U))

    def whitened(self, weight: FloatArray, bias: FloatArray) -> Head:
        """Return the head for whitened rows that answers as this one does for plain rows."""
        wide = weight.astype(np.float64)
        return wide @ self.factor, bias + wide @ self.center


def build(size: Size) -> Iterator[Workload]:
    """Yield made rows, CIFAR-100-LT where it is at hand, and made rows of the size of Places-LT."""
    n_rows, n_features, n_classes = (200, 8, 3) if size == "toy" else (10_000, 512, 100)
    yield race("made", made_rows(n_rows, n_features, n_classes), (0.3,) if size == "toy" else ADAM_RATES)
    if size == "toy":
        return
    if (rows := _cifar()) is not None:
        yield race("CIFAR-100-LT, MobileNetV2", rows)
    yield race("made, as many as Places-LT", made_rows(62_500, 768, 365), ADAM_RATES[1:2])


def _cifar() -> ArrayRows | None:
    cut = real_file("longtail", "cifar100_lt_if100_seed0_ldam_order.npy")
    stored = real_file("cifar100", "mobilenetv2_embeddings_u8.npz")
    if cut is None or stored is None:
        return None
    with np.load(stored) as arrays:
        chosen = np.isin(arrays["train_index"], np.load(cut))
        X = arrays["train_q"][chosen] * np.float32(arrays["scale"])
        return ArrayRows(X, arrays["train_y"][chosen].astype(np.int64), normalize=True)


def _problem(rows: ArrayRows) -> Problem:
    from scipy.linalg import solve_triangular

    from ltstore.linear.metric import SHRINKAGE, shrunk_covariance
    from ltstore.stats import class_moments

    moments = class_moments(rows)
    factor = cast(DoubleArray, np.linalg.cholesky(shrunk_covariance(moments.pooled, SHRINKAGE)))
    X = rows.read(0, rows.n_samples)
    center = X.mean(axis=0, dtype=np.float64)
    white = solve_triangular(factor, (X - center).T, lower=True).T
    return Problem(
        rows, center, factor, np.ascontiguousarray(white, np.float32), rows.labels, len(rows.class_names)
    )


def _ltstore(problem: Problem, moments: Any, n_passes: int, precision: str = "float32") -> Head:
    import logging

    from ltstore.linear import TrainSettings, train_linear
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    settings = TrainSettings(
        loss="ce", penalty="whitened", l2=L2, max_passes=n_passes, tolerance=0.0, precision=precision
    )
    found = class_moments(problem.rows) if moments is None else moments
    log = logging.getLogger("ltstore.linear.training")
    log.disabled = True  # stopping early is the point
    try:
        model = train_linear(TrainingStream(problem.rows), settings, found).model
    finally:
        log.disabled = False
    return problem.whitened(model.weight, model.bias)


def _sklearn(problem: Problem, n_iterations: int) -> Head:
    from sklearn.linear_model import LogisticRegression

    C = 1.0 / (L2 * len(problem.white))
    model = LogisticRegression(C=C, solver="lbfgs", max_iter=n_iterations, tol=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopping early is the point
        model.fit(problem.white, problem.labels)
    return model.coef_.astype(np.float64), model.intercept_.astype(np.float64)


def _torch(problem: Problem, n_iterations: int) -> Head:
    import torch

    X, y = torch.from_numpy(problem.white), torch.from_numpy(problem.labels.copy())
    layer = torch.nn.Linear(X.shape[1], problem.n_classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    solver = torch.optim.LBFGS(
        layer.parameters(),
        max_iter=n_iterations,
        history_size=10,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Any:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(X), y) + 0.5 * L2 * layer.weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy().astype(np.float64)


def _adam(problem: Problem, n_epochs: int, rate: float) -> Head:
    """Minibatches of an index loop under bf16 autocast, the rate falling to 0 by a cosine."""
    import torch

    torch.manual_seed(0)
    X, y = torch.from_numpy(problem.white), torch.from_numpy(problem.labels.copy())
    layer = torch.nn.Linear(X.shape[1], problem.n_classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    solver = torch.optim.Adam(layer.parameters(), lr=rate)
    n_steps = n_epochs * -(-len(X) // ADAM_BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, n_steps)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(ADAM_BATCH):
            solver.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = layer(X[rows])
            loss = torch.nn.functional.cross_entropy(logits.float(), y[rows])
            (loss + 0.5 * L2 * layer.weight.square().sum()).backward()
            solver.step()
            schedule.step()
    return layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy().astype(np.float64)


def _fewest(solve: Callable[[int], Head], reached: Callable[[Head], bool]) -> int | None:
    """Return the fewest iterations that arrive, within an eighth: doubling, then halving; None beyond MOST."""
    high = 1
    while not reached(solve(high)):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(solve(middle)) else (middle, high)
    return high


def race(
    variant: str,
    rows: ArrayRows,
    rates: tuple[float, ...] = ADAM_RATES,
    left_out: Mapping[str, str] | None = None,
) -> Workload:
    """Return the workload of all solvers on rows; `left_out` says which are not to run, and why."""
    from ltstore.stats import class_moments

    problem = _problem(rows)
    saved = class_moments(rows)
    solvers: dict[str, tuple[str, Callable[[int], Head]]] = {
        "ltstore": ("", lambda n: _ltstore(problem, None, n)),
        "ltstore, saved moments": ("", lambda n: _ltstore(problem, saved, n)),
        "ltstore bf16, saved moments": ("", lambda n: _ltstore(problem, saved, n, "bf16")),
        "scikit-learn lbfgs": ("sklearn", lambda n: _sklearn(problem, n)),
        "torch LBFGS": ("torch", lambda n: _torch(problem, n)),
    }
    for rate in rates:
        solvers[f"torch Adam, bf16, rate {rate:g}"] = ("torch", partial(_adam, problem, rate=rate))
    skipped = {name: why for name, (peer, _) in solvers.items() if peer and (why := missing(peer))}
    skipped |= left_out or {}
    least = problem.value(_ltstore(problem, saved, LEAST_PASSES))
    target = WITHIN * least

    def reached(head: Head) -> bool:
        return problem.value(head) <= target

    candidates: list[Candidate] = []
    iterations: dict[str, int] = {}
    for name, (peer, solve) in solvers.items():
        if name in skipped:
            continue
        n = iterations["ltstore"] if name == "ltstore, saved moments" else _fewest(solve, reached)
        if n is None:
            skipped[name] = f"does not reach 1.01 f* in {MOST} iterations"
            continue
        iterations[name] = n
        candidates.append(
            Candidate(
                name=name,
                run=partial(solve, n),
                peer=peer,
                aim=2.5 if peer else None,
                stretch=4.0 if peer else None,
            )
        )

    def check(name: str, result: Any) -> None:
        value = problem.value(result)
        if not least * (1 - 1e-3) <= value <= target * (1 + 1e-6):
            raise WrongResultError(f"{name}: objective {value:.6g}, must lie in [{least:.6g}, {target:.6g}]")

    return Workload(
        variant=variant,
        candidates=tuple(candidates),
        check=check,
        unit="runs",
        settings={
            "n_samples": rows.n_samples,
            "n_features": rows.n_features,
            "n_classes": problem.n_classes,
            "l2": L2,
            "least": least,
            "iterations": iterations,
        },
        skipped=skipped,
    )


CASE = Case(
    name="train.fair",
    definition="time to f <= 1.01 f* of the peer, on whitened rows it gets for free / time of ltstore, moments counted",
    build=build,
    rounds=5,
    note="Peers get their whitening for nothing, ltstore pays for its moments. On equal terms, with moments saved, "
    "divide the ratio of a peer by that of `ltstore bf16, saved moments`.",
)
