"""What each step costs for so many rows, features and classes: formulas over the rates of a machine. Pure.

Times are the formulas of the rooms ("Notes" of `ltstore.stats.moments`, `ltstore.stream.loader` and of `objective`,
`solver` and `metric` in `ltstore.linear`). The low end is `LEAST` of the work, with reading hidden behind it; the high
end is `MOST` of work and reading. Memory is an upper bound. `python -m bench run scale` holds both against runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltstore.linear.device import LEAST_FLOPS
from ltstore.linear.solver import MEMORY
from ltstore.neighbors.kinds import plan_index
from ltstore.rows import BLOCK_ROWS
from ltstore.stats.moments import BLOCK_ROWS as MOMENT_ROWS
from ltstore.store.pages import RESIDENT_BYTES
from ltstore.store.plan import CHUNK_ROWS, plan_shards
from ltstore.stream.loader import CACHE_BYTES
from ltstore.workflow.estimation.rates import Rates

PASSES = (19, 52)
"""Of eight in ten of the 219 trained heads of docs/accuracy.md: seven problems, 10 to 1,000 classes."""
LEAST, MOST = 0.8, 1.5
"""Of the time that the formulas give: what runs were seen to take, and a little on either side (docs/scaling.md)."""
KEY_BYTES = 32
"""Of a row's key in its Parquet part, at most; names such as ImageNet's take 5."""
_BASE_BYTES, _TORCH_BYTES = 350 << 20, 700 << 20  # of Python, NumPy, Numba and FAISS; of importing torch
_TORCH_SECONDS = 2.5
_NEW_SECONDS = 1.5e-9  # of a byte of memory that the system gives for the first time, page by page
_RETURNED_BYTES = 32 << 20  # of an array that goes back to it each time
_ROW_BYTES = 34  # label, id and what is made of them when a split is opened
_LOGITS_BYTES = 128 << 20  # of a block at most, as in ltstore.linear.objective
_LOGIT_SECONDS = 0.9e-9  # of a softmax on a core (docs/kernels.md)
_DRAW_SECONDS = 2.5e-9  # of a feature of a neighbor-gauss row on a core (sample.rows in docs/benchmarks.md)
RANK = 16
N_HELD = 1000  # rows that an index is judged by, as in ltstore.neighbors.building
_MEANS_ROUNDS, _LIST_ROWS = 10, 64  # of k-means, as in ltstore.neighbors.faiss_index
_RESAMPLE_SECONDS = 2e-6  # of a test row, for intervals (ltstore.metrics.evaluation)


class Span(NamedTuple):
    """Seconds, from and to."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is to be done.

    Attributes
    ----------
    n_rows, n_features, n_classes : int
        N, D, C.
    n_synthetic : int
        Rows that are drawn for training.
    n_heads : int
        K, of a grid.
    n_test : int
        Rows that a model is judged on.
    passes : (int, int)
        Of a training, from and to.
    n_donors : int
        Classes that may lend.
    row_bytes : int
        Of an embedding in the store.
    precision, device : str
        Of the products; "cpu" or "cuda:N".
    """

    n_rows: int
    n_features: int
    n_classes: int
    n_synthetic: int = 0
    n_heads: int = 1
    n_test: int = 0
    passes: tuple[int, int] = PASSES
    n_donors: int
    row_bytes: int
    precision: str = "float32"
    device: str = "cpu"

    @property
    def weights(self) -> int:
        """K C D."""
        return self.n_heads * self.n_classes * self.n_features

    @property
    def pass_flops(self) -> float:
        """4 (N + S) K C D."""
        return 4.0 * (self.n_rows + self.n_synthetic) * self.weights

    @property
    def rows_kept(self) -> bool:
        """Whether the real rows stay in memory between passes."""
        return 4 * self.n_features * self.n_rows <= CACHE_BYTES

    @property
    def all_kept(self) -> bool:
        """Whether the synthetic ones do, too."""
        return 4 * self.n_features * (self.n_rows + self.n_synthetic) <= CACHE_BYTES

    @property
    def read_bytes(self) -> int:
        """Of the rows in the store."""
        return self.row_bytes * self.n_rows


@dataclass(frozen=True)
class Step:
    """What one step takes.

    Attributes
    ----------
    name : str
    seconds : Span or None
        None where there is no telling.
    memory_bytes : int or None
        Most that is resident in its process, mapped pages of the store included; None where it depends on an encoder.
    disk_bytes : int
        What it leaves behind.
    note : str
    """

    name: str
    seconds: Span | None
    memory_bytes: int | None
    disk_bytes: int
    note: str


def ingest(size: Size, images_per_second: float | None, store_bytes: int | None) -> Step:
    """Return what embedding the images takes, and the store they are kept in.

    Parameters
    ----------
    images_per_second : float, optional
        Without it there is no telling.
    store_bytes : int, optional
        Where they are known.
    """
    seconds, note = None, "images/s not given"
    if images_per_second is not None:
        took = size.n_rows / images_per_second
        seconds, note = Span(LEAST * took, MOST * took), f"at {images_per_second:,.0f} images/s"
    if store_bytes is None:
        store_bytes = size.row_bytes * size.n_rows + _columns_bytes(size)
    return Step("ingest", seconds, None, store_bytes, note)


def _columns_bytes(size: Size) -> int:
    """Return what lies beside the embeddings: labels, status, keys, checksums, the padding of the last chunk."""
    plan = plan_shards(size.n_rows, n_features=size.n_features)
    chunks = 3 * (4 + 16) * -(-size.n_rows // CHUNK_ROWS)
    return (9 + KEY_BYTES) * size.n_rows + chunks + 4096 * plan.n_shards + size.row_bytes * CHUNK_ROWS


def moments(size: Size, rates: Rates) -> Step:
    """Return what the class moments take: two passes over the rows."""
    n, d, c = size.n_rows, size.n_features, size.n_classes
    present = (
        c * -np.expm1(MOMENT_ROWS * np.log1p(-1 / c)) if c > 1 else 1.0
    )  # classes in a block, if all are of one size
    work = (
        1.0 * n * d * d / rates.gram_flops
        + 8.0 * n * d * RANK / rates.product_flops  # thin products reach half of it
        + 250.0 * n * d / rates.copied_bytes  # gathered by class, centred, squared, summed
        + _NEW_SECONDS * 64 * c * d
        + 4.0 * present * -(-n // MOMENT_ROWS) / rates.calls
        + 600.0 * d * d / rates.copied_bytes  # eigenvectors by Lanczos: 50 to 70 products with the matrix
    )
    kept = 8 * (2 * c * d + c * RANK**2 + d * (d + RANK))
    memory = 8 * (5 * c * d + c * RANK**2 + 5 * d * d) + 24 * MOMENT_ROWS * d
    return Step(
        "moments", _span(work, 2 * _read_seconds(size, rates)), _resident(size) + memory, kept, "two passes"
    )


def donors(size: Size, rates: Rates) -> Step:
    """Return what finding donor classes by their means takes."""
    c, h = size.n_classes, size.n_donors
    work = 4.0 * c * h * size.n_features / rates.product_flops + c * h / rates.sorted_logits
    memory = 16 * c * size.n_features + 40_000 * h
    return Step("donors", _span(work), _resident(size) + memory, 0, f"{h:,} classes may lend")


def index(size: Size, rates: Rates, memory_bytes: int) -> Step:
    """Return what the index of `auto` takes on a machine with so much memory; raises ConfigError where none fits."""
    n, d = size.n_rows, size.n_features
    plan = plan_index("auto", n, d, memory_bytes=memory_bytes // 2)
    trained = min(max(_LIST_ROWS * plan.n_lists, 4096), n) if plan.n_lists else 0
    seconds, note = None, "no telling"
    if plan.kind != "hnsw":
        learnt = 2.0 * _MEANS_ROUNDS * trained * plan.n_lists * d
        filled = 2.0 * n * plan.n_lists * d
        judged = 4.0 * N_HELD * n * d * bool(plan.effort)  # in float64, half as fast
        work = (learnt + filled + judged) / rates.product_flops + 24.0 * n * d / rates.copied_bytes
        seconds = _span(work, (1 + bool(plan.effort)) * _read_seconds(size, rates))
        note = f"{plan.n_lists:,} lists" if plan.n_lists else "exact"
    memory = plan.n_bytes + 4 * d * trained + 8 * BLOCK_ROWS * d
    return Step("index", seconds, _resident(size) + memory, plan.n_bytes, f"{plan.kind}, {note}")


def draws(size: Size) -> float:
    """Return the seconds of drawing all synthetic rows once."""
    return _DRAW_SECONDS * size.n_features * size.n_synthetic


def sample(size: Size, rates: Rates) -> Step:
    """Return what a materialised set of the synthetic rows takes."""
    written = 4 * size.n_features * size.n_synthetic
    work = draws(size) + 3.0 * written / rates.copied_bytes
    memory = 8 * size.n_classes * size.n_features * (RANK + 4) + (1 << 28)
    note = f"{size.n_synthetic:,} rows, if kept"
    disk = (size.row_bytes + 9 + KEY_BYTES) * size.n_synthetic
    return Step("sample", _span(work), _resident(size) + memory, disk, note)


def pass_seconds(size: Size, rates: Rates) -> Span:
    """Return what a pass of training takes, with what the solver does after it."""
    n, weights = size.n_rows + size.n_synthetic, size.weights
    n_logits = size.n_heads * size.n_classes
    returned = 8 * weights > _RETURNED_BYTES
    n_parts = n / min(BLOCK_ROWS, max(256, _LOGITS_BYTES // (4 * n_logits)))
    work = (
        size.pass_flops / rates.product_flops
        + _LOGIT_SECONDS * n * n_logits
        + 28.0
        * n_parts
        * weights
        / rates.copied_bytes  # a part's gradient is made in float32, added in float64
        + 4.0 * weights * size.n_features / rates.product_flops  # the preconditioner, twice
        + 1300.0 * weights / rates.copied_bytes  # two loops over the pairs
        + (_NEW_SECONDS * 8 * (10 + 2 * min(MEMORY, size.passes[1])) * weights if returned else 0.0)
        + (0.0 if size.all_kept else draws(size))
    )
    return _span(work, 0.0 if size.rows_kept else _read_seconds(size, rates))


def train(size: Size, rates: Rates) -> Step:
    """Return what training takes, without the moments, and the file of a model."""
    one = pass_seconds(size, rates)
    fewest, most = (n - (not size.n_synthetic) for n in size.passes)  # the first is told by the moments
    once = (
        4.0 * size.n_features**3 / rates.gram_flops  # the inverse, in float64
        + size.all_kept * draws(size)
        + size.rows_kept * (_read_seconds(size, rates) + _NEW_SECONDS * _kept_bytes(size))
        + _TORCH_SECONDS * _loads_torch(size)
    )
    seconds = Span(fewest * one.low + LEAST * once, most * one.high + MOST * once)
    passes = f"{size.passes[0]}" if fewest == most else f"{size.passes[0]}-{size.passes[1]}"
    note = f"{passes} passes {'in memory' if size.rows_kept else 'over the store'}"
    model = 4 * size.n_classes * (size.n_features + 1)
    return Step("train", seconds, train_bytes(size), model, note)


def solver_bytes(size: Size) -> int:
    """Return what the solvers of all heads keep between passes."""
    return 16 * (min(MEMORY, max(size.passes)) + 3) * size.weights


def train_bytes(size: Size) -> int:
    """Return the most that is resident while a head, or a grid of them, is trained."""
    d, n_logits = size.n_features, size.n_heads * size.n_classes
    blocks = 3 * 4 * d * BLOCK_ROWS
    halves = (2 * d + 12) * size.n_rows if size.precision == "bf16" else 0
    if halves > CACHE_BYTES:  # not kept: two blocks on their way
        halves = 16 * d * BLOCK_ROWS
    logits = max(min(4 * BLOCK_ROWS * n_logits, _LOGITS_BYTES), 4 * 256 * n_logits)
    sums = 48 * size.weights
    of_classes = 8 * (2 * size.n_classes * d + size.n_classes * RANK**2 + 8 * d * d)
    torch = _TORCH_BYTES * _loads_torch(size)
    labels = 16 * size.n_synthetic * size.all_kept
    parts = (_kept_bytes(size), blocks, halves, logits, sums, of_classes, torch, labels, solver_bytes(size))
    return _resident(size) + sum(parts)


def _kept_bytes(size: Size) -> int:
    """Return what is kept of the rows between passes, in float32."""
    kept = size.n_rows * size.rows_kept + size.n_synthetic * size.all_kept
    return 4 * size.n_features * kept


def _loads_torch(size: Size) -> bool:
    """Return whether a training looks for a GPU, or computes in torch."""
    return size.pass_flops >= LEAST_FLOPS or size.precision != "float32" or size.device != "cpu"


def evaluate(size: Size, rates: Rates) -> Step:
    """Return what judging a model on the test rows takes: the best five classes of each, and intervals."""
    n, c = size.n_test, size.n_classes
    work = (
        2.0 * n * c * size.n_features / rates.product_flops
        + n * c / rates.sorted_logits
        + 48.0 * n * c / rates.copied_bytes
        + _RESAMPLE_SECONDS * n
    )
    part = max(256, min(BLOCK_ROWS, (1 << 23) // c))
    memory = 24 * part * c + 200 * n + (256 << 20)
    tested = _resident(size, n) + memory
    read = size.row_bytes * n / rates.converted_bytes
    return Step("evaluate", _span(work, read), tested, 0, f"{n:,} rows")


def _span(work: float, read: float = 0.0) -> Span:
    return Span(max(LEAST * work, read), MOST * (work + read))


def _read_seconds(size: Size, rates: Rates) -> float:
    return size.read_bytes / rates.converted_bytes


def _resident(size: Size, n_rows: int | None = None) -> int:
    """Return what a process has in memory that has opened the rows and reads them."""
    n = size.n_rows if n_rows is None else n_rows
    return _BASE_BYTES + _ROW_BYTES * n + min(size.row_bytes * n, RESIDENT_BYTES)
