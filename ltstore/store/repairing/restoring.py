"""What a store knows twice: damaged files that can be written again from the rest of it, byte for byte.

A candidate is taken only if its SHA-256 is the recorded one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltstore.errors import StoreFormatError, StoreReadError
from ltstore.storage import Location, write_json
from ltstore.store.findings import Repair
from ltstore.store.format import FILES, CommitRecord, SplitRecord, group_document, read_json, seal_holds
from ltstore.store.held import read_column
from ltstore.store.parts import parse_part, part_location
from ltstore.store.quarantine import file_location
from ltstore.store.repairing.bitflip import MOST_JSON_BYTES, mend_chunk, mend_digested, mend_json
from ltstore.store.shard import CHECKSUM_BYTES, checksum_holds, encode_shard, index_of
from ltstore.store.subsets import ids_digest
from ltstore.types import ByteArray, IntArray, RowStatus

if TYPE_CHECKING:
    from typing_extensions import Buffer

FLIPPED = "one bit was flipped, and is flipped back"
COLUMNS = {"labels": "label", "status": "status"}


def restore_file(
    split: Location, record: SplitRecord, n_features: int, name: str, commit: CommitRecord
) -> str | None:
    """Write a damaged file of a shard again from what else there is.

    Returns
    -------
    str or None
        What it was made from; None where no candidate is the file that the commit record names.
    """
    expected = commit.files[name]
    location = file_location(split, name, commit.shard)
    for pieces, made_from in _candidates(split, record, n_features, name, commit):
        if _described(pieces)["sha256"] == expected["sha256"]:
            location.write(pieces)
            return made_from
    return None


def _candidates(
    split: Location, record: SplitRecord, n_features: int, name: str, commit: CommitRecord
) -> Iterator[tuple[Sequence[Buffer], str]]:
    plan = record.plan
    row_bytes = {"embeddings": np.dtype(record.dtype).itemsize * n_features, "labels": 8, "status": 1}
    chunk_bytes, n_chunks = plan.chunk_rows * row_bytes.get(name, 1), plan.n_chunks(commit.shard)
    stored = chunk_bytes + CHECKSUM_BYTES
    index = index_of(n_chunks, plan.chunks_per_shard, chunk_bytes)
    with suppress(FileNotFoundError):
        data = file_location(split, name, commit.shard).view()
        if name in row_bytes:
            yield [data[: n_chunks * stored].data, index.data], "its chunks, which are whole"
            rows = np.zeros((n_chunks, stored), np.uint8)
            given = data[: rows.size]
            rows.reshape(-1)[: len(given)] = given
            rows = np.ascontiguousarray(rows[:, :chunk_bytes]).reshape(-1, row_bytes[name])
            pieces = encode_shard(rows, plan.chunk_rows, plan.chunks_per_shard)
            yield [piece.tobytes() for piece in pieces], "its rows, which are whole"
    if name in COLUMNS:
        with suppress(FileNotFoundError, StoreFormatError):
            part = part_location(split, commit.shard).view()
            if hashlib.sha256(part.data).hexdigest() == commit.files["rows"]["sha256"]:
                table = parse_part(part, commit.stop - commit.start, "the part")
                column = np.asarray(table.column(COLUMNS[name]))
                pieces = encode_shard(np.ascontiguousarray(column), plan.chunk_rows, plan.chunks_per_shard)
                yield [piece.tobytes() for piece in pieces], "the rows' Parquet part"
    with suppress(FileNotFoundError):
        data = file_location(split, name, commit.shard).view()
        if name == "rows":
            mended = mend_digested(data.tobytes(), commit.files[name]["sha256"])
            if mended is not None:
                yield [mended], "itself, with one flipped bit flipped back"
        elif (chunks := _mended_chunks(data, stored, n_chunks)) is not None:
            yield (
                [*(chunk.data for chunk in chunks), index.data],
                "itself, with single flipped bits flipped back",
            )


def _mended_chunks(data: ByteArray, stored: int, n_chunks: int) -> list[ByteArray] | None:
    """Return the chunks, those with one flipped bit mended; None where one is damaged otherwise."""
    chunks = []
    for chunk in range(n_chunks):
        piece = data[chunk * stored : (chunk + 1) * stored]
        if len(piece) != stored:
            return None
        mended = piece if checksum_holds(piece) else mend_chunk(piece)
        if mended is None:
            return None
        chunks.append(mended)
    return chunks


def restore_record(location: Location, accept: Callable[[dict[str, Any]], bool] = lambda _: True) -> bool:
    """Write a sealed JSON document again in which one bit was flipped; whether it was one.

    Nothing happens where the seal holds, or where `accept` does not take what was written.
    """
    try:
        data = location.read(MOST_JSON_BYTES + 1)
    except FileNotFoundError:
        return False
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        if not isinstance(document, dict) or seal_holds(document):
            return False
    mended = mend_json(data, lambda document: seal_holds(document) and accept(document))
    if mended is None:
        return False
    location.write([mended])
    return True


def restore_ids(data: ByteArray, digest: str) -> IntArray | None:
    """Return the row ids of a subset whose file is damaged, if its checksum alone is, or one bit."""
    for candidate in (data, mend_chunk(data)):
        if candidate is not None and len(candidate) % 8 == CHECKSUM_BYTES:
            ids = np.frombuffer(candidate[:-CHECKSUM_BYTES].tobytes(), "<i8").astype(np.int64)
            if ids_digest(ids) == digest:
                return ids
    return None


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A commit record, and the files that must be written again for it to be true."""

    commit: CommitRecord
    files: Mapping[str, Sequence[Buffer]]


def rebuild_commit(split: Location, record: SplitRecord, n_features: int, shard: int) -> Rebuilt | None:
    """Return the commit record that the files of a shard would have, timings aside; None where they are not whole.

    Labels and status may come from the part. It says what is there, not that this is what was written: compare the
    digest of the split.
    """
    plan = record.plan
    start, stop = plan.shard_range(shard)
    try:
        part = part_location(split, shard).view()
        table = parse_part(part, stop - start, "the part")
    except (FileNotFoundError, StoreFormatError):
        return None
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {
        "embeddings": (record.dtype, (n_features,)),
        "labels": ("int64", ()),
        "status": ("uint8", ()),
    }
    contents: dict[str, Sequence[Buffer]] = {"rows": [part.data]}
    values: dict[str, Any] = {}
    again = {}
    for name, (dtype, row_shape) in kinds.items():
        data = np.empty(0, np.uint8)
        with suppress(FileNotFoundError):
            data = file_location(split, name, shard).view()
        column, whole = read_column(data, plan, shard, dtype, row_shape)
        if not whole.all():
            if name not in COLUMNS:
                return None
            column = np.ascontiguousarray(np.asarray(table.column(COLUMNS[name])))
        values[name] = column
        pieces = [piece.tobytes() for piece in encode_shard(column, plan.chunk_rows, plan.chunks_per_shard)]
        contents[name] = pieces
        if b"".join(pieces) != data.tobytes():
            again[name] = pieces
    X, status = values["embeddings"], values["status"]
    counts: Counter[str] = Counter()
    for value in status[status != RowStatus.OK].tolist():
        if value not in list(map(int, RowStatus)):
            return None
        counts[RowStatus(value).name] += 1
    commit = CommitRecord(
        shard=shard,
        start=start,
        stop=stop,
        files={name: _described(contents[name]) for name in FILES},
        failures=dict(sorted(counts.items())),
        zero_norm=int((~(X != 0).any(axis=1) & (status == RowStatus.OK)).sum()),
        timings={},
    )
    return Rebuilt(commit=commit, files=again)


def _described(pieces: Sequence[Buffer]) -> dict[str, Any]:
    state, n_bytes = hashlib.sha256(), 0
    for piece in pieces:
        state.update(piece)
        n_bytes += len(memoryview(piece))
    return {"sha256": state.hexdigest(), "n_bytes": n_bytes}


def restore_group(location: Location, split: str, array: str, done: list[Repair]) -> None:
    """Write the zarr.json of a group that says nothing but that it is one, where it is damaged."""
    try:
        if seal_holds(read_json(location)):
            return
    except (StoreFormatError, FileNotFoundError):
        pass
    except OSError as err:
        raise StoreReadError(f"cannot read {location}: {err.strerror}") from err
    write_json(location, group_document())
    done.append(Repair(split=split, array=array, action="restored", message=f"{location} is always the same"))


@contextmanager
def locked(location: Location) -> Iterator[None]:
    """Hold the writer's lock of a location."""
    lock = location.lock()
    try:
        yield
    finally:
        lock.release()
