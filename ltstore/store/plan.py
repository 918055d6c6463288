"""The plan of a split: which rows go into which shard, fixed before the first row is written (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from ltstore.errors import ConfigError

CHUNK_ROWS = 1024
MIN_SHARD_ROWS = 1024
MAX_SHARD_ROWS = 65536
SHARDS_WANTED = 16
SHARD_BYTES = 256 << 20
"""Most bytes of float32 rows in a shard of the automatic plan: writers hold one or two of them."""
LIMIT_ROWS = 1 << 36
LIMIT_SHARDS = 1 << 20
LIMIT_SHARD_ROWS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """How the rows of a split are cut into shards (one file each) and chunks (one checksum each).

    Attributes
    ----------
    n_rows : int
        N, 0 or more.
    rows_per_shard : int
        A multiple of `chunk_rows`; the last shard may hold fewer.
    chunk_rows : int
        The last chunk of a split is stored full, padded with zeros.

    Raises
    ------
    ConfigError
        A value is out of range, or a shard is not a whole number of chunks.
    """

    n_rows: int
    rows_per_shard: int
    chunk_rows: int

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_rows", 0, LIMIT_ROWS),
            ("rows_per_shard", 1, LIMIT_SHARD_ROWS),
            ("chunk_rows", 1, LIMIT_SHARD_ROWS),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name} must be an integer from {low} to {high}, found {value!r}")
        if self.rows_per_shard % self.chunk_rows:
            raise ConfigError(
                f"rows_per_shard must be a multiple of chunk_rows ({self.chunk_rows}), found {self.rows_per_shard}"
            )
        if self.n_shards > LIMIT_SHARDS:
            raise ConfigError(
                f"a split has at most {LIMIT_SHARDS} shards, found {self.n_shards}: make them larger"
            )

    @property
    def n_shards(self) -> int:
        """Number of shards: ceil(n_rows / rows_per_shard)."""
        return -(-self.n_rows // self.rows_per_shard)

    @property
    def chunks_per_shard(self) -> int:
        """Entries in a shard's index; in the last shard some may be empty."""
        return self.rows_per_shard // self.chunk_rows

    def shard_range(self, shard: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard; IndexError where there is no such shard."""
        if not 0 <= shard < self.n_shards:
            raise IndexError(f"shard {shard} of {self.n_shards}")
        start = shard * self.rows_per_shard
        return start, min(start + self.rows_per_shard, self.n_rows)

    def n_chunks(self, shard: int) -> int:
        """Return how many chunks of a shard hold rows: ceil(rows in it / chunk_rows)."""
        start, stop = self.shard_range(shard)
        return -(-(stop - start) // self.chunk_rows)


def plan_shards(n_rows: int, rows_per_shard: int | str = "auto", *, n_features: int = 1) -> ShardPlan:
    """Return the plan for `n_rows` rows.

    Parameters
    ----------
    n_rows : int
    rows_per_shard : int or "auto"
        "auto" is the power of two at or above n_rows / 16, at least 1,024 and at most 65,536, so that even a
        small ingest loses little when it is killed, halved until a shard of float32 rows fits `SHARD_BYTES`. A number
        above 1,024 must be a multiple of it.
    n_features : int
        D.
    """
    if rows_per_shard == "auto":
        wanted = max(-(-n_rows // SHARDS_WANTED), 1)
        rows = min(max(1 << (wanted - 1).bit_length(), MIN_SHARD_ROWS), MAX_SHARD_ROWS)
        while rows > 1 and 4 * n_features * rows > SHARD_BYTES:
            rows //= 2
    elif isinstance(rows_per_shard, str):
        raise ConfigError(f"rows_per_shard must be a number or 'auto', found {rows_per_shard!r}")
    else:
        rows = rows_per_shard
    return ShardPlan(n_rows=n_rows, rows_per_shard=rows, chunk_rows=min(CHUNK_ROWS, max(rows, 1)))
