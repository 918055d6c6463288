"""read.batches: shuffled float32 minibatches of a float16 split, against the bare conversion of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.case import Case, Size
from bench.data import load_compiled, made_half_rows, stored
from bench.peers import missing
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (3000, 16, 256), "full": (400_000, 768, 4096)}
Converter = Callable[[NDArray[np.float16]], NDArray[np.float32]]
Answer = tuple[NDArray[np.int64], NDArray[np.float32]]


def build(size: Size) -> Iterator[Workload]:
    """Yield batches in buffers that are reused, and batches in arrays of their own."""
    from ltstore.stream import iter_batches

    n_rows, n_features, batch_rows = SHAPES[size]
    rows = made_half_rows(n_rows, n_features)
    load_compiled()
    with TemporaryDirectory() as directory:
        view = stored(Path(directory) / "store", rows).split("train").rows(normalize=False)

        def check(name: str, result: Any) -> None:
            ids, last = result
            if not np.array_equal(last, rows[ids % n_rows].astype(np.float32)):
                raise WrongResultError(f"{name}: rows differ from those written")
            if name.startswith("ltstore"):
                seen = np.zeros(n_rows, np.int64)
                for batch in iter_batches(view, batch_rows):
                    seen[batch.row_ids] += 1
                    if not np.array_equal(batch.X, rows[batch.row_ids].astype(np.float32)):
                        raise WrongResultError(f"{name}: rows differ from those written")
                if not (seen == 1).all():
                    raise WrongResultError(f"{name}: not every row came once")

        for reuse in (True, False):
            skipped: dict[str, str] = {}
            bare = [
                Candidate(
                    name=name,
                    run=partial(_consume_memory, rows, batch_rows, convert),
                    work=n_rows,
                    aim=0.8 if name.startswith("torch") else None,
                    stretch=0.95 if name.startswith("torch") else None,
                )
                for name, convert in _converters(batch_rows, n_features, reuse, skipped).items()
            ]
            yield Workload(
                variant="buffer reused" if reuse else "new arrays",
                candidates=(
                    Candidate(
                        name="ltstore iter_batches",
                        run=partial(_consume_store, view, batch_rows, reuse),
                        work=n_rows,
                    ),
                    *bare,
                ),
                check=check,
                settings={
                    "n_samples": n_rows,
                    "n_features": n_features,
                    "batch_size": batch_rows,
                    "prefetch": 0,
                    "dtype": "float16",
                },
                skipped=skipped,
            )


def _consume_store(view: Any, batch_rows: int, reuse: bool) -> Answer:
    from ltstore.stream import iter_batches

    batches = iter_batches(view, batch_rows, reuse=reuse, prefetch=0)
    return consume((batch.row_ids, batch.X) for batch in batches)


def _consume_memory(rows: NDArray[np.float16], batch_rows: int, convert: Converter) -> Answer:
    return consume(_in_memory(rows, batch_rows, convert))


def consume(batches: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> Answer:
    """Take every batch and keep the last row of each, with its id."""
    ids, last = [], []
    for row_ids, X in batches:
        ids.append(int(row_ids[-1]))
        last.append(X[-1].copy())
    return np.array(ids), np.array(last)


def _in_memory(
    rows: NDArray[np.float16], batch_rows: int, convert: Converter
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the rows in their order, from memory: no store, no shuffle, no thread."""
    for start in range(0, len(rows), batch_rows):
        batch = rows[start : start + batch_rows]
        yield np.arange(start, start + len(batch)), convert(batch)


def _converters(batch_rows: int, n_features: int, reuse: bool, skipped: dict[str, str]) -> dict[str, Converter]:
    out = np.empty((batch_rows, n_features), np.float32)

    def numpy_into(batch: NDArray[np.float16]) -> NDArray[np.float32]:
        np.copyto(out[: len(batch)], batch)
        return out[: len(batch)]

    found: dict[str, Converter] = {
        "NumPy conversion": numpy_into if reuse else lambda batch: batch.astype(np.float32)
    }
    if reason := missing("torch"):
        skipped["torch conversion"] = reason
        return found
    import torch

    tensor = torch.from_numpy(out)

    def torch_into(batch: NDArray[np.float16]) -> NDArray[np.float32]:
        tensor[: len(batch)].copy_(torch.from_numpy(batch))
        return out[: len(batch)]

    def torch_new(batch: NDArray[np.float16]) -> NDArray[np.float32]:
        new: NDArray[np.float32] = torch.from_numpy(batch).to(torch.float32).numpy()
        return new

    found["torch conversion"] = torch_into if reuse else torch_new
    return found


CASE = Case(
    name="read.batches",
    definition=(
        "shuffled float32 batches of 4,096 out of a float16 split, segments of 64 rows: rows/s of ltstore / rows/s of "
        "converting the same bytes in memory, in order, warm cache"
    ),
    build=build,
    note=(
        "Numba is loaded before, as in a process that trains. On one core there is nothing that reading ahead could "
        "overlap with, so it is off. The bare conversions go through an array in memory in its order: no files, no "
        "shuffle."
    ),
)
