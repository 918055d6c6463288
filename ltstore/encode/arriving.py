"""Embeddings of files whose paths come in while the work goes on: each is answered when it is there, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ltstore.cores import resolve_n_workers
from ltstore.encode.pipeline import (
    EncodedBatch,
    PreparedRows,
    begin_rows,
    join_rows,
    prepare_rows,
    resolve_batch_size,
)
from ltstore.sources import FileSource
from ltstore.types import UNLABELLED, Encoder, Progress, no_progress

_BATCHES_AHEAD = 2


class _Arrived(NamedTuple):
    """A file that is being read and decoded."""

    key: str
    rows: Future[PreparedRows]


class _End(NamedTuple):
    """No more paths, or what was raised in place of the next one."""

    error: BaseException | None


def iter_arriving(
    paths: Iterable[str],
    encoder: Encoder,
    *,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> Iterator[tuple[tuple[str, ...], EncodedBatch]]:
    """Yield (keys, embeddings) of image files, in the order of their paths.

    Nothing waits for a batch to fill: the encoder is given what has been decoded when it is free, so that a path which
    comes alone is answered alone, and paths that come faster than they are encoded go in batches.

    Parameters
    ----------
    paths : iterable of str
        Read by a thread of its own, which may wait as long as it likes; it is read no further ahead than two batches.
    encoder, batch_size, n_workers, progress
        As in `ltstore.encode.iter_encoded`; a batch has `batch_size` rows at most.

    Raises
    ------
    ConfigError
        A size below 1. Raised at the call.
    Exception
        What `paths` raises, after the answers to those before; and as in `iter_encoded`.

    Notes
    -----
    Memory: the inputs of four batches. When the iteration is left, the thread stays behind as long as `paths` does not
    give it another one; it does not keep the program alive.
    """
    most = resolve_batch_size(batch_size, encoder)
    return _arriving(paths, encoder, most, resolve_n_workers(n_workers), progress)


def _arriving(
    paths: Iterable[str], encoder: Encoder, most: int, n_workers: int, progress: Progress
) -> Iterator[tuple[tuple[str, ...], EncodedBatch]]:
    arrived: queue.Queue[_Arrived | _End] = queue.Queue(_BATCHES_AHEAD * most)
    left = threading.Event()
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="ltstore-decode")
    prepare = partial(_prepared, encoder)

    def feed() -> None:
        end = _End(None)
        try:
            for path in paths:
                if left.is_set():
                    return
                source = FileSource(Path(), [path], [UNLABELLED], ())
                arrived.put(_Arrived(source.key(0), pool.submit(prepare, source)))
        except BaseException as err:  # noqa: BLE001 - raised again where the answers are waited for
            end = _End(err)
        arrived.put(end)

    threading.Thread(target=feed, name="ltstore-arriving", daemon=True).start()
    start, ahead = 0, None
    try:
        while isinstance(item := ahead or arrived.get(), _Arrived):
            item.rows.result()
            batch, ahead = [item], None
            while len(batch) < most and not arrived.empty():  # nobody else takes any
                following = arrived.get()
                if isinstance(following, _End) or not following.rows.done():
                    ahead = following
                    break
                batch.append(following)
            rows = join_rows([each.rows.result() for each in batch])
            found = begin_rows(encoder, None, start, start + len(batch), rows)()
            start += len(batch)
            progress(len(batch), found.seconds)
            yield tuple(each.key for each in batch), found
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        pool.shutdown(wait=False, cancel_futures=True)
        while not arrived.empty():  # whoever waits to put one more finds room, and sees that all is over
            arrived.get_nowait()


def _prepared(encoder: Encoder, source: FileSource) -> PreparedRows:
    return prepare_rows(source, encoder.preprocess, getattr(encoder, "least_side", None), 0, 1)
