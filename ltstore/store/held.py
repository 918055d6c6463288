"""What is left of a shard in quarantine: the rows whose stored bytes are known to be those that were written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import StoreFormatError
from ltstore.store.format import SplitRecord
from ltstore.store.parts import COLUMNS, parse_part
from ltstore.store.plan import ShardPlan
from ltstore.store.quarantine import Entry, kept_name
from ltstore.store.shard import CHECKSUM_BYTES, checksum_holds, index_of
from ltstore.types import UNLABELLED, BoolArray, ByteArray, FloatArray, IntArray, RowStatus


def read_column(
    data: ByteArray,
    plan: ShardPlan,
    shard: int,
    dtype: str,
    row_shape: tuple[int, ...],
    sha256: str | None = None,
) -> tuple[NDArray[Any], BoolArray]:
    """Return the rows of a shard file that may be damaged, and which of them are as they were written.

    Parameters
    ----------
    data : (n,) uint8
        The file, or what is left of it.
    plan, shard, dtype, row_shape
        What it must hold. Chunks are looked for where the writer puts them, whatever the index says.
    sha256 : str, optional
        Of the file that was written, if that is known.

    Returns
    -------
    (n, ...) array, zeros where damaged; (n,) bool
        A checksum says that a chunk is whole, not that it belongs here. So a file of whole chunks that is not the file
        that was written is another one (of another shard, say), and none of its rows are taken.
    """
    start, stop = plan.shard_range(shard)
    kind = np.dtype(dtype).newbyteorder("<")
    values = np.zeros((stop - start, *row_shape), kind)
    whole = np.zeros(stop - start, np.bool_)
    chunk_bytes = plan.chunk_rows * int(np.prod(row_shape, dtype=np.int64)) * kind.itemsize
    stored = chunk_bytes + CHECKSUM_BYTES
    n_chunks = plan.n_chunks(shard)
    for chunk in range(n_chunks):
        piece = data[chunk * stored : (chunk + 1) * stored]
        if len(piece) == stored and checksum_holds(piece):
            at = slice(chunk * plan.chunk_rows, min((chunk + 1) * plan.chunk_rows, stop - start))
            rows = np.frombuffer(piece[:chunk_bytes].tobytes(), kind).reshape(-1, *row_shape)
            values[at] = rows[: at.stop - at.start]
            whole[at] = True
    if sha256 is not None and whole.all() and hashlib.sha256(data.data).hexdigest() != sha256:
        state = hashlib.sha256(data[: n_chunks * stored].data)
        state.update(index_of(n_chunks, plan.chunks_per_shard, chunk_bytes).data)
        if state.hexdigest() != sha256:
            values[:], whole[:] = 0, False
    return values, whole


@dataclass(kw_only=True)
class Held:
    """A shard in quarantine, read.

    Attributes
    ----------
    where : str
        Its place, for messages.
    chunk_rows : int
    embeddings : (n, D) as stored
    whole : (n,) bool
        The stored embedding is as it was written.
    status, status_known : (n,) uint8, (n,) bool
    labels, labels_known : (n,) int64, (n,) bool
    part : pyarrow Table or None
        Keys, errors and extra columns, where they are whole.
    proven : bool
        Whether a digest says so of the part; else it only agrees with the other files.
    """

    where: str
    shard: int
    chunk_rows: int
    embeddings: NDArray[Any]
    whole: BoolArray
    status: ByteArray
    status_known: BoolArray
    labels: IntArray
    labels_known: BoolArray
    part: Any
    proven: bool

    @property
    def kept(self) -> BoolArray:
        """(n,) bool: rows of which status and embedding are known; a row without an embedding needs none."""
        without = (self.status != RowStatus.OK) & (self.status != RowStatus.LOST)
        kept: BoolArray = self.status_known & (without | (self.whole & (self.status == RowStatus.OK)))
        return kept

    def errors(self, status: ByteArray, texts: Sequence[str | None]) -> list[str | None]:
        """Return the error text of each row: as it was stored where `kept`, else `texts`."""
        stored = [None] * len(texts) if self.part is None else self.part.column("error").to_pylist()
        return [
            (
                stored[row]
                if self.part is not None or status[row] == RowStatus.OK
                else texts[row] or self.lost("reason")
            )
            if kept
            else texts[row]
            for row, kept in enumerate(self.kept.tolist())
        ]

    def lost(self, what: str) -> str:
        """Return the text for a row of which something else than the embedding was lost."""
        return f"{lost_text(what)}; see {self.where}"

    def merge(
        self, X: NDArray[Any], status: ByteArray, errors: Sequence[str | None]
    ) -> tuple[NDArray[Any], ByteArray, list[str | None]]:
        """Return a shard that was made anew with the rows that are `kept` as they were stored."""
        kept = self.kept
        merged, reasons = X.copy(), np.where(kept, self.status, status)
        merged[kept] = self.embeddings[kept]
        return merged, reasons, self.errors(reasons, errors)

    def salvage(self, like: Any = None) -> dict[str, Any]:
        """Return the columns of the shard as `SplitWriter.write_shard` takes them; what is not left is LOST.

        Parameters
        ----------
        like : pyarrow Schema, optional
            Of another part of the split: its extra columns are null here where this shard's part is lost.
        """
        n, kept = len(self.kept), self.kept
        status = np.where(kept, self.status, np.uint8(RowStatus.LOST)).astype(np.uint8)
        texts: list[str | None] = [None] * n
        for row in np.flatnonzero(~kept).tolist():
            texts[row] = (
                f"the embedding was damaged (shard {self.shard}, chunk {row // self.chunk_rows}) and could not be "
                f"re-made; the damaged file is {self.where}/embeddings"
            )
        errors = self.errors(status, texts)
        if (
            self.part is not None and (self.status == RowStatus.LOST).any()
        ):  # salvaged before: what was said then
            stored = self.part.column("error").to_pylist()
            errors = [
                stored[row] if self.status_known[row] and self.status[row] == RowStatus.LOST else text
                for row, text in enumerate(errors)
            ]
        for what, known in (("label", self.labels_known), ("key", np.full(n, self.part is not None))):
            for row in np.flatnonzero(~known).tolist():
                errors[row] = "; ".join(filter(None, [errors[row], self.lost(what)]))
        if self.part is not None and not self.proven:
            doubt = (
                f"the key of this row could not be checked: no record of its shard was left; see {self.where}"
            )
            errors = ["; ".join(filter(None, [text, doubt])) for text in errors]
        return {
            "embeddings": self._floats(status),
            "labels": np.where(self.labels_known, self.labels, UNLABELLED),
            "status": status,
            "keys": [""] * n if self.part is None else self.part.column("key").to_pylist(),
            "errors": errors,
            "extra": self._extra(like),
        }

    def _floats(self, status: ByteArray) -> FloatArray:
        X = self.embeddings.copy()
        X[status != RowStatus.OK] = 0
        return X

    def _extra(self, like: Any) -> dict[str, Any]:
        if self.part is not None:
            names = [name for name in self.part.column_names if name not in COLUMNS]
            return {name: self.part.column(name).combine_chunks() for name in names}
        if like is None:
            return {}
        import pyarrow as pa

        return {
            field.name: pa.nulls(len(self.whole), field.type) for field in like if field.name not in COLUMNS
        }


def lost_text(what: str) -> str:
    """Return how the text of a row begins of which something else than the embedding was lost."""
    return f"the {what} of this row was damaged and could not be re-made"


def read_held(entry: Entry, record: SplitRecord, shard: int, n_features: int) -> Held | None:
    """Return what is left of a shard in quarantine; None where the entry is of other rows than the split's."""
    plan = record.plan
    if (entry.start, entry.stop) != plan.shard_range(shard) or entry.source_digest != record.source_digest:
        return None
    commit = entry.commit()
    digests = {
        name: None if commit is None else str(commit.files[name]["sha256"]) for name in ("embeddings", "rows")
    }

    def column(name: str, dtype: str, row_shape: tuple[int, ...]) -> tuple[NDArray[Any], BoolArray]:
        sha256 = None if commit is None else str(commit.files[name]["sha256"])
        return read_column(_kept(entry, name), plan, shard, dtype, row_shape, sha256)

    embeddings, whole = column("embeddings", record.dtype, (n_features,))
    labels, labels_known = column("labels", "int64", ())
    status, status_known = column("status", "uint8", ())
    part = _part(_kept(entry, "rows"), len(whole), digests["rows"])
    if part is not None:
        stored_labels, stored_status = (np.asarray(part.column(name)) for name in ("label", "status"))
        if commit is None:  # nothing vouches for it but what the other files say
            agrees = labels_known.all() and status_known.all()
            if not agrees or (stored_labels != labels).any() or (stored_status != status).any():
                part = None
    if part is not None:
        labels, status = (
            np.where(labels_known, labels, stored_labels),
            np.where(status_known, status, stored_status),
        )
        labels_known, status_known = np.ones_like(labels_known), np.ones_like(status_known)
    sure = ~status_known & whole & (embeddings != 0).any(axis=1)  # rows that failed are all zeros
    return Held(
        where=entry.where,
        shard=shard,
        chunk_rows=plan.chunk_rows,
        embeddings=embeddings,
        whole=whole,
        status=np.where(sure, np.uint8(RowStatus.OK), status).astype(np.uint8),
        status_known=status_known | sure,
        labels=labels.astype(np.int64),
        labels_known=labels_known,
        part=part,
        proven=commit is not None,
    )


def _kept(entry: Entry, name: str) -> ByteArray:
    try:
        return (entry.location / kept_name(name)).view()
    except FileNotFoundError:
        return np.empty(0, np.uint8)


def _part(data: ByteArray, n_rows: int, sha256: str | None) -> Any:
    """Return the table of a Parquet part if it is the one that was written, or if no one can say: else None."""
    if sha256 is not None and hashlib.sha256(data.data).hexdigest() != sha256:
        return None
    try:
        return parse_part(data, n_rows, "the part")
    except StoreFormatError:
        return None
