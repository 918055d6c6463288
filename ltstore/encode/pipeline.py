"""Images to embeddings, in order: a bounded pool of threads reads and decodes ahead while the encoder works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.cores import check_positive, resolve_n_workers
from ltstore.errors import ConfigError, ImageError
from ltstore.sources import LabelledSource, to_image
from ltstore.types import ByteArray, Encoder, FloatArray, ImageSource, Progress, RowStatus, no_progress

STAGES = ("read", "decode", "encode", "write")
_PIECE_ROWS = 16
_BATCHES_AHEAD = 2
_IMAGE_FAULTS = (OSError, ValueError, ArithmeticError, RuntimeError, IndexError, SyntaxError)
"""What preprocessing may raise because of the image; anything else (TypeError, MemoryError, ...) ends the run."""


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """Embeddings of consecutive rows.

    Attributes
    ----------
    start : int
        Position of the first row in the source.
    X : (n, D) float32
        Zero where there is no embedding.
    status : (n,) uint8
        `RowStatus` of each row.
    errors : n str or None
        Why a row has no embedding.
    seconds : mapping of str to float
        Seconds of "read", "decode" (with preprocessing; both summed over threads) and "encode".
    """

    start: int
    X: FloatArray
    status: ByteArray
    errors: tuple[str | None, ...]
    seconds: Mapping[str, float]


def iter_encoded(
    source: ImageSource,
    encoder: Encoder,
    *,
    start: int = 0,
    stop: int | None = None,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> Iterator[EncodedBatch]:
    """Yield the embeddings of rows [start, stop) of a source, batch by batch, in order.

    A row that cannot be read or decoded, or whose preprocessing raises OSError, ValueError, ArithmeticError,
    RuntimeError, IndexError or SyntaxError, keeps its place with a status; so does one whose embedding is not
    finite. Every other exception, in whatever thread, ends the iteration with that exception.

    Parameters
    ----------
    source : ImageSource
    encoder : Encoder
        `preprocess` is called from threads, `encode` from the calling one.
    start, stop : int
        Default: all rows.
    batch_size : int or "auto"
        Rows given to the encoder at a time: see `resolve_batch_size`.
    n_workers : int or "auto"
        Threads that read and decode; "auto" is one per core.
    progress : callable
        Called after every batch with its rows and seconds.

    Raises
    ------
    ConfigError
        A range outside the source, or a size below 1. Raised at the call, not at the first batch.

    Notes
    -----
    Memory: the inputs of three batches, of four where the encoder takes one ahead (`begin`). Leaving the
    iteration early, by whatever way, stops the threads.
    """
    stop = source.n_samples if stop is None else stop
    if not 0 <= start <= stop <= source.n_samples:
        raise ConfigError(f"rows [{start}, {stop}) are outside the source's 0..{source.n_samples}")
    spans = batch_spans(start, stop, resolve_batch_size(batch_size, encoder))
    return encoded_spans(source, encoder, spans, resolve_n_workers(n_workers), progress)


def batch_spans(start: int, stop: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) into consecutive (start, stop) of at most `batch_size` rows."""
    return [(at, min(at + batch_size, stop)) for at in range(start, stop, batch_size)]


def resolve_batch_size(batch_size: int | str, encoder: Encoder) -> int:
    """Turn "auto" into a number: the encoder's `batch_size_hint` if it has one, else 256 on a GPU, 32 on a CPU."""
    if batch_size == "auto":
        return int(getattr(encoder, "batch_size_hint", 32 if encoder.device == "cpu" else 256))
    return check_positive(batch_size, "batch_size")


def encoded_spans(
    source: ImageSource,
    encoder: Encoder,
    spans: Sequence[tuple[int, int]],
    n_workers: int,
    progress: Progress = no_progress,
) -> Generator[EncodedBatch, None, None]:
    """Yield one `EncodedBatch` for each of the spans, which need not be adjacent; see `iter_encoded`."""
    begin = getattr(encoder, "begin", None)
    running: deque[Callable[[], EncodedBatch]] = deque()
    # closed here and now: threads that the garbage collector had to join, in whatever thread it runs, may wait for ever
    with closing(_prepared_spans(source, encoder, spans, n_workers)) as prepared:
        for (start, stop), rows in zip(spans, prepared, strict=True):
            running.append(begin_rows(encoder, begin, start, stop, rows))
            if len(running) > (begin is not None):  # one more is begun while the encoder works on one
                yield _noted(running.popleft()(), progress)
    while running:
        yield _noted(running.popleft()(), progress)


def _noted(batch: EncodedBatch, progress: Progress) -> EncodedBatch:
    progress(len(batch.X), batch.seconds)
    return batch


def begin_rows(
    encoder: Encoder,
    begin: Callable[[NDArray[Any]], Callable[[], FloatArray]] | None,
    start: int,
    stop: int,
    rows: PreparedRows,
) -> Callable[[], EncodedBatch]:
    """Give the encoder a batch and return what waits for it; one that cannot begin ahead does all of it then."""
    began = time.perf_counter()
    inputs = np.stack(rows.inputs) if rows.inputs else None
    wait = None if inputs is None or begin is None else begin(inputs)
    spent = time.perf_counter() - began

    def finish() -> EncodedBatch:
        began = time.perf_counter()
        X = np.zeros((stop - start, encoder.identity.n_features), np.float32)
        if inputs is not None:
            X[rows.status == RowStatus.OK] = encoder.encode(inputs) if wait is None else wait()
        _mark_non_finite(X, rows.status, rows.errors)
        encode = spent + time.perf_counter() - began
        seconds = {"read": rows.read, "decode": rows.decode, "encode": encode}
        return EncodedBatch(start=start, X=X, status=rows.status, errors=tuple(rows.errors), seconds=seconds)

    return finish


@dataclass
class PreparedRows:
    """Rows ready for the encoder; `inputs` holds those with status OK, in order."""

    inputs: list[NDArray[Any]]
    status: ByteArray
    errors: list[str | None]
    read: float = 0.0
    decode: float = 0.0


def _prepared_spans(
    source: ImageSource, encoder: Encoder, spans: Sequence[tuple[int, int]], n_workers: int
) -> Generator[PreparedRows, None, None]:
    prepare = partial(prepare_rows, source, encoder.preprocess, getattr(encoder, "least_side", None))
    longest = max((stop - start for start, stop in spans), default=1)
    piece_rows = max(1, min(_PIECE_ROWS, -(-longest // n_workers)))
    pieces = iter([(i, piece) for i, span in enumerate(spans) for piece in batch_spans(*span, piece_rows)])
    in_flight = max(_BATCHES_AHEAD * -(-longest // piece_rows), 2 * n_workers)
    queue: deque[tuple[int, Future[PreparedRows]]] = deque()
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="ltstore-decode")
    try:

        def fill() -> None:
            while len(queue) < in_flight and (following := next(pieces, None)) is not None:
                i, (start, stop) = following
                queue.append((i, pool.submit(prepare, start, stop)))

        fill()
        for i in range(len(spans)):
            parts = []
            while queue and queue[0][0] == i:
                parts.append(queue.popleft()[1].result())
                fill()
            yield join_rows(parts)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prepare_rows(
    source: ImageSource,
    preprocess: Callable[[Image.Image], NDArray[Any]],
    least_side: int | None,
    start: int,
    stop: int,
) -> PreparedRows:
    n = stop - start
    rows = PreparedRows([], np.full(n, RowStatus.OK, np.uint8), [None] * n)
    for i in range(n):
        position = start + i
        began = reached = time.perf_counter()
        try:
            if isinstance(source, LabelledSource):
                fetched = source.fetch(position)
                reached = time.perf_counter()
                image = to_image(fetched, source.key(position), least_side)
            else:
                image = source.read(position)
                reached = time.perf_counter()
        except ImageError as err:
            rows.status[i], rows.errors[i] = err.status, str(err)
        else:
            try:
                rows.inputs.append(preprocess(image))
            except _IMAGE_FAULTS as err:
                rows.status[i] = err.status if isinstance(err, ImageError) else RowStatus.CORRUPT
                rows.errors[i] = f"{source.key(position)}: preprocessing: {type(err).__name__}: {err}"
        rows.read += reached - began
        rows.decode += time.perf_counter() - reached
    return rows


def join_rows(parts: Sequence[PreparedRows]) -> PreparedRows:
    return PreparedRows(
        [each for part in parts for each in part.inputs],
        np.concatenate([part.status for part in parts]),
        [error for part in parts for error in part.errors],
        sum(part.read for part in parts),
        sum(part.decode for part in parts),
    )


def _mark_non_finite(X: FloatArray, status: ByteArray, errors: list[str | None]) -> None:
    for row in np.flatnonzero(~np.isfinite(X).all(axis=1)).tolist():
        status[row] = RowStatus.NON_FINITE
        errors[row] = (
            f"the encoder gave NaN or Inf in {int((~np.isfinite(X[row])).sum())} of {X.shape[1]} features"
        )
        X[row] = 0
