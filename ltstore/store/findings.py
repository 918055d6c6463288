"""What `verify` finds and `repair` does, as records (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it was written; what is not known is None.

    Attributes
    ----------
    split : str
        "train", or "synthetic/NAME"; "" for the store itself.
    array : str
        "embeddings", "labels", "status", "rows", "commits", "subsets/NAME", or "" for the split itself.
    shard, chunk : int or None
    rows : (start, stop) or None
        Row ids that are concerned.
    message : str
    """

    split: str
    array: str
    shard: int | None = None
    chunk: int | None = None
    rows: tuple[int, int] | None = None
    message: str


@dataclass(frozen=True, kw_only=True)
class Repair:
    """One thing that a repair did; what does not apply is None.

    Attributes
    ----------
    split, array, shard, rows
        As in `Problem`.
    action : str
        "restored": byte for byte, from the rest of the store. "re-made": by what wrote the split. "lost": rows that
        have no embedding, key or label any more. "quarantined": kept aside as it was found. "removed": a leftover.
    message : str
    """

    split: str
    array: str
    shard: int | None = None
    rows: tuple[int, int] | None = None
    action: str
    message: str


@dataclass(kw_only=True)
class VerifyReport:
    """What `verify` looked at and found, and what `repair` did before."""

    repaired: list[Repair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_shards: int = 0
    n_bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def add(self, other: VerifyReport) -> None:
        """Append what another report says."""
        self.problems += other.problems
        self.notes += other.notes
        self.n_shards += other.n_shards
        self.n_bytes += other.n_bytes
        self.seconds += other.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}
