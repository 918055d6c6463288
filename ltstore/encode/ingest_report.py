"""What an ingest did, for those who print or keep it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ltstore.encode.usage import Usage


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingest did.

    Attributes
    ----------
    store, split : str
    encoder, device : str
        Encoder spec and where it ran.
    first_row : int
        Row id of the first row of the source: 0, or where rows were appended the rows there were before.
    n_rows, n_failed : int
        Of the source; failed rows have no embedding.
    failures : dict of str to int
        Failed rows by status name.
    n_shards, resumed_shards : int
        Shards of the split, and those of them that an earlier run had written.
    n_encoded : int
        Rows that this run went through.
    seconds, images_per_second : float
        Wall time of this run, and n_encoded by it.
    shares : dict of str to float
        Of the working time of all threads, the share of "read", "decode" (with preprocessing), "encode", "write".
    usage : Usage or None
        How busy workers, encoder and writer were, and what limited the run; None where it was too short to tell.
    batch_size, n_workers : int
        As resolved; `n_workers` are the threads that decode, of each worker where there is an engine.
    reasons : dict of str to str
        Why "batch_size" and "n_workers" are what they are.
    engine : dict
        Kind and size of the engine, and "restarts", how many of its workers were lost; empty without one.
    beside : tuple of IngestReport
        Of the stores of the encoder's other kinds of features.
    """

    store: str
    split: str
    encoder: str
    device: str
    first_row: int
    n_rows: int
    n_failed: int
    failures: dict[str, int]
    n_shards: int
    resumed_shards: int
    n_encoded: int
    seconds: float
    images_per_second: float
    shares: dict[str, float]
    usage: Usage | None
    batch_size: int
    n_workers: int
    reasons: dict[str, str]
    engine: dict[str, Any]
    beside: tuple[IngestReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)
