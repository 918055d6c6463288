"""Ingest by several workers: each takes a shard, encodes it and writes its files; whoever holds the lock records it.

What is sent: to each worker once the source (keys, labels and offsets; a few dozen bytes a row) and how its encoder is
opened; then numbers of shards, and back a commit record each. Embeddings go from a worker to the store.

A shard is done by one worker from beginning to end, in the batches that it has without workers, so that the bytes do
not depend on who does it. Until its record is there it is no part of the split: a worker may die at any moment.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ltstore.encode.encoders import open_encoder
from ltstore.encode.shards import encoded_shards, lacking
from ltstore.engine import Engine
from ltstore.errors import ConfigError, EncoderMismatchError
from ltstore.store import ShardPlan, ShardWriter, SplitWriter
from ltstore.store.format import CommitRecord
from ltstore.types import Encoder, EncoderIdentity, ImageSource, Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """What every worker is sent; `opened` is empty for an encoder that travels itself, as `pickled`."""

    source: ImageSource
    identity: EncoderIdentity
    opened: Mapping[str, Any]
    pickled: bytes
    device: str
    files: tuple[ShardWriter, ...]
    plan: ShardPlan
    batch_size: int
    n_threads: int


@dataclass(frozen=True)
class _Share:
    """What a worker keeps."""

    sent: _Sent
    encoder: Encoder


def write_shared(
    engine: Engine,
    source: ImageSource,
    encoder: Encoder,
    writers: Sequence[SplitWriter],
    batch_size: int,
    n_threads: int,
    note: Progress,
    on_failed: Callable[[int], None],
) -> dict[str, Any]:
    """Write the pending shards of splits by the workers of an engine; return what a report says of these.

    An encoder of `open_encoder` is opened again by each worker, on a GPU of its own where the engine gives it one, and
    must be the same; another one is sent as it is.

    Raises
    ------
    ConfigError
        Source or encoder cannot be sent.
    EncoderMismatchError
        A worker finds another encoder under the same name.
    WorkerLostError
        A worker was lost more often than it is replaced.
    """
    pending = lacking(writers)
    if not pending:
        return {**engine.describe(), "restarts": 0}
    opened = getattr(encoder, "opened", {})
    try:
        pickled = b"" if opened else pickle.dumps(encoder)
    except (pickle.PicklingError, TypeError, AttributeError) as err:
        raise ConfigError(f"encoder {encoder.spec} cannot be sent to workers ({err}): leave them out") from err
    sent = _Sent(
        source=source,
        identity=encoder.identity,
        opened=opened,
        pickled=pickled,
        device="cuda" if engine.has_gpus else encoder.device,
        files=tuple(writer.shards for writer in writers),
        plan=writers[0].plan,
        batch_size=batch_size,
        n_threads=n_threads,
    )
    with (
        engine.start(_take_share, sent) as crew,
        closing(crew.iter_items(_write_shard, pending.items())) as written,
    ):
        for commits, seconds in written:
            for place, commit in commits:
                writers[place].commit(commit)
            commit = commits[0][1]
            note(commit.stop - commit.start, seconds)
            if n_failed := sum(commit.failures.values()):
                on_failed(n_failed)
        return {**engine.describe(), "restarts": crew.restarts}


def _take_share(sent: _Sent, number: int, n_workers: int) -> _Share:
    if not sent.opened:
        return _Share(sent, pickle.loads(sent.pickled))  # noqa: S301 - from the process that started this one
    options = sent.opened["options"]
    if sent.identity.encoder == "onnx" and sent.device == "cpu":
        options = {"n_threads": sent.n_threads, **(options or {})}
    encoder = open_encoder(**{**sent.opened, "options": options}, device=sent.device)
    if encoder.identity != sent.identity:
        differences = "; ".join(sent.identity.differences(encoder.identity))
        raise EncoderMismatchError(
            f"worker {number + 1} of {n_workers} finds another encoder {encoder.spec} (expected / found): {differences}"
        )
    return _Share(sent, encoder)


def _write_shard(
    share: _Share, item: tuple[int, tuple[int, ...]]
) -> tuple[list[tuple[int, CommitRecord]], dict[str, float]]:
    sent, (number, places) = share.sent, item
    (shard,) = encoded_shards(
        sent.source, share.encoder, sent.plan, [number], sent.batch_size, sent.n_threads, no_progress
    )
    began = time.perf_counter()
    columns = shard.columns(sent.source)
    commits = [(place, sent.files[place].write(number, **columns[place])) for place in places]
    return commits, {**shard.timings, "write": time.perf_counter() - began}
