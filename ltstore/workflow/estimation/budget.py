"""How long the steps will take for so many rows, features and classes, and in how much memory: no embedding is read."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ltstore.cores import available_gpus, physical_bytes
from ltstore.errors import ConfigError, LtstoreError
from ltstore.linear.device import LEAST_FLOPS, PRECISIONS, precision_of_cpu
from ltstore.neighbors import head_classes
from ltstore.rows import class_counts as counts_of
from ltstore.sampling import balance_targets
from ltstore.sources.longtail import long_tail_counts
from ltstore.storage import Place
from ltstore.types import IntArray
from ltstore.workflow.estimation import costs
from ltstore.workflow.estimation.costs import PASSES, Size, Step
from ltstore.workflow.estimation.rates import Rates, measure_rates
from ltstore.workflow.selection import select

FILL = "fill"
_LONG_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """All steps, on what they are counted, and what will not fit.

    Attributes
    ----------
    size : Size
    rates : Rates
    memory_bytes : int
        Of the machine.
    steps : tuple of Step
    advice : tuple of str
        Where it does not fit, or takes hours, and what to do.
    """

    size: Size
    rates: Rates
    memory_bytes: int
    steps: tuple[Step, ...]
    advice: tuple[str, ...]

    def step(self, name: str) -> Step:
        """Return the step of that name."""
        return next(step for step in self.steps if step.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        steps = [
            asdict(step) | {"seconds": None if step.seconds is None else step.seconds._asdict()}
            for step in self.steps
        ]
        return {
            "size": asdict(self.size),
            "rates": self.rates.to_json(),
            "memory_bytes": self.memory_bytes,
            "steps": steps,
            "advice": list(self.advice),
        }


def estimate(
    n_rows: float | None = None,
    n_features: int | None = None,
    n_classes: int | None = None,
    *,
    store: Place | None = None,
    split: str = "train",
    subset: str | None = None,
    imbalance: float | None = None,
    class_counts: IntArray | None = None,
    synthetic: float | str = 0.0,
    n_heads: int = 1,
    passes: int | None = None,
    n_test: float | None = None,
    dtype: str = "float16",
    precision: str = "auto",
    device: str = "auto",
    images_per_second: float | None = None,
    gflops: float | None = None,
    memory_bytes: int | None = None,
    rates: Rates | None = None,
) -> CostEstimate:
    """Say what every step will take: seconds from and to, memory at most, and bytes on disk.

    Parameters
    ----------
    n_rows, n_features, n_classes : int, optional
        N (1e8 is as good), D and C; what is left out is the store's.
    store : path, optional
        Its rows, features, classes, class sizes, dtype and rate of ingest are taken where they are not given.
    split, subset : str
    imbalance : float, optional
        Largest class over smallest, for class sizes that fall exponentially.
    class_counts : (C,) int64, optional
        Instead. Without either all classes may lend, and none can be filled up.
    synthetic : float or "fill"
        Synthetic rows for each real one, or as many as fill every class up to the largest.
    n_heads : int
        Heads of a grid.
    passes : int, optional
        Default: `PASSES`, from and to.
    n_test : int, optional
        Rows to judge a model on; default: those of the store's split "test", else a tenth of N.
    dtype : {"float16", "float32"}
        Of the store.
    precision : {"auto", "float32", "tf32", "bf16"}
        "auto" as in a training whose rows bf16 does not harm.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        "auto" is a GPU where one is there and a pass has 1e11 flops.
    images_per_second : float, optional
        Of the ingest; default: that of the store.
    gflops : float, optional
        Of matrix products of another machine; everything else is measured here.
    memory_bytes : int, optional
        Of another machine.
    rates : Rates, optional
        Measured here if left out: a second or two.

    Raises
    ------
    ConfigError
        A number is missing or out of range.
    StoreNotFoundError, IncompleteStoreError, StoreFormatError
        Of the store.
    """
    found = {} if store is None else _of_store(store, split, subset)
    same_rows = n_rows in (None, found.get("n_rows")) and n_classes in (None, found.get("n_classes"))
    n_rows = _whole("rows", found.get("n_rows") if n_rows is None else n_rows)
    n_features = _whole("features", found.get("n_features") if n_features is None else n_features)
    n_classes = _whole("classes", found.get("n_classes") if n_classes is None else n_classes)
    if imbalance is not None:
        class_counts = _falling(n_rows, n_classes, imbalance)
    elif class_counts is None and same_rows:
        class_counts = found.get("class_counts")
    if dtype not in ("float16", "float32"):
        raise ConfigError(f"dtype must be float16 or float32, found {dtype!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")
    n_test = found.get("n_test") if n_test is None else n_test
    size = Size(
        n_rows=n_rows,
        n_features=n_features,
        n_classes=n_classes,
        n_synthetic=_n_synthetic(synthetic, n_rows, class_counts),
        n_heads=_whole("heads", n_heads),
        n_test=max(1, n_rows // 10) if n_test is None else _whole("test rows", n_test),
        passes=PASSES if passes is None else (_whole("passes", passes), passes),
        n_donors=n_classes if class_counts is None else int(head_classes(class_counts).sum()),
        row_bytes=np.dtype(found.get("dtype", dtype)).itemsize * n_features,
    )
    size = replace(size, device=_resolved_device(device, size))
    if precision == "auto":
        on_cpu = size.device == "cpu"
        precision = precision_of_cpu(size.pass_flops, size.n_heads * n_classes) if on_cpu else "float32"
    size = replace(size, precision=precision)
    for name, value in (("images per second", images_per_second), ("gflops", gflops), ("memory", memory_bytes)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be above 0, found {value}")
    rate = found.get("images_per_second") if images_per_second is None else images_per_second
    if rates is None:
        rates = measure_rates(
            n_features, size.n_heads * n_classes, precision=precision, device=size.device, gflops=gflops
        )
    machine = physical_bytes() if memory_bytes is None else memory_bytes
    steps = (
        costs.ingest(size, rate, found.get("disk_bytes") if same_rows and subset is None else None),
        costs.moments(size, rates),
        costs.donors(size, rates),
        _index(size, rates, machine),
        *([costs.sample(size, rates)] if size.n_synthetic else []),
        costs.train(size, rates),
        costs.evaluate(size, rates),
    )
    return CostEstimate(
        size=size, rates=rates, memory_bytes=machine, steps=steps, advice=_advice(size, rates, machine, steps)
    )


def _of_store(place: Place, split: str, subset: str | None) -> dict[str, Any]:
    """Return what a store says of its rows: labels and commit records are read, no embedding."""
    selection = select(place, split, subset)
    opened, rows = selection.store.split(split), selection.rows
    files = [entry["n_bytes"] for commit in opened.commits for entry in commit.files.values()]
    wall = sum(commit.timings.get("wall", 0.0) for commit in opened.commits)
    try:
        n_test = selection.store.split("test").n_rows
    except LtstoreError:
        n_test = None
    return {
        "n_rows": rows.n_samples,
        "n_features": rows.n_features,
        "n_classes": len(rows.class_names),
        "class_counts": counts_of(rows),
        "dtype": opened.dtype,
        "disk_bytes": sum(files),
        "images_per_second": opened.n_rows / wall if wall >= 1.0 else None,
        "n_test": n_test,
    }


def _whole(name: str, value: float | None) -> int:
    if value is None:
        raise ConfigError(f"how many {name}? give them, or a store that has them")
    if not (math.isfinite(value) and value >= 1 and value == int(value)):
        raise ConfigError(f"{name} must be a whole number of at least 1, found {value:g}")
    return int(value)


def _falling(n_rows: int, n_classes: int, imbalance: float) -> IntArray:
    """Return (C,) class sizes that fall exponentially and add up to about N."""
    if not imbalance >= 1:
        raise ConfigError(f"imbalance is the largest class over the smallest, at least 1; found {imbalance:g}")
    return long_tail_counts(n_rows, n_classes, imbalance)


def _n_synthetic(synthetic: float | str, n_rows: int, class_counts: IntArray | None) -> int:
    if synthetic == FILL:
        if class_counts is None:
            raise ConfigError(
                "to fill classes up to the largest their sizes must be known: give imbalance or a store"
            )
        return int(balance_targets(class_counts).sum())
    if isinstance(synthetic, str) or not (math.isfinite(synthetic) and synthetic >= 0):
        raise ConfigError(
            f"synthetic must be a number of at least 0 for each real row, or {FILL!r}; found {synthetic!r}"
        )
    return round(synthetic * n_rows)


def _resolved_device(device: str, size: Size) -> str:
    """Return "cpu" or "cuda:N"; unlike a training this does not import torch to look."""
    if device == "auto":
        return "cuda:0" if available_gpus() and size.pass_flops >= LEAST_FLOPS else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; found {device!r}")
    return "cuda:0" if device == "cuda" else device


def _index(size: Size, rates: Rates, machine: int) -> Step:
    try:
        return costs.index(size, rates, machine)
    except ConfigError:
        return Step("index", None, None, 0, "none fits")


def _advice(size: Size, rates: Rates, machine: int, steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Say where memory is too small or time long, and what to do."""
    said = [
        f"{step.name} needs {_gb(step.memory_bytes)}, the machine has {_gb(machine)}: {_remedy(step.name, size)}"
        for step in steps
        if step.memory_bytes is not None and step.memory_bytes > machine
    ]
    if any(step.name == "index" and step.memory_bytes is None for step in steps):
        said.append(f"no kind of index fits into half of {_gb(machine)}: donors by class means need none")
    if not size.rows_kept:
        rate = size.read_bytes / max(costs.pass_seconds(size, rates).low, 1e-9)
        said.append(
            f"a pass reads {_gb(size.read_bytes)}, which is more than is kept in memory: it waits for a disk of less "
            f"than {_gb(rate)}/s"
        )
    if size.n_synthetic and not size.all_kept:
        said.append(
            f"{size.n_synthetic:,} synthetic rows are drawn again in every pass: sums of real rows (smote, "
            "residual-transfer) need not be, and --max-ratio gives fewer"
        )
    longest = max(step.seconds.high for step in steps if step.name == "train" and step.seconds is not None)
    if longest > _LONG_SECONDS:
        said.append(
            f"training is up to {size.pass_flops * max(size.passes):.1e} flops: share them (--workers on other "
            "machines, docs/scaling.md), use a GPU, or an encoder of fewer features"
        )
    return tuple(said)


def _remedy(step: str, size: Size) -> str:
    if step == "train":
        kept = f"the solver keeps {_gb(costs.solver_bytes(size))}"
        if size.n_heads > 1:
            return f"{kept} for {size.n_heads} heads: put fewer into a grid"
        return f"{kept}: take --solver sgd, or an encoder of fewer features"
    if step == "evaluate":
        return "judge a subset of the rows"
    return "take a larger one, a subset of the rows, or an encoder of fewer features"


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.3g} GB"
