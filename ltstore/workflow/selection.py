"""Which rows a step works on, and what is derived from them and kept beside the store."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltstore.atomic import check_no_link
from ltstore.engine import Engine
from ltstore.errors import (
    ConfigError,
    DataError,
    IndexNotFoundError,
    IndexStaleError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.neighbors import class_donors, row_donors
from ltstore.provenance import record
from ltstore.rows import TailRows, class_counts
from ltstore.stats import ClassMoments, class_moments, load_moments, merge_moments, save_moments
from ltstore.storage import Place
from ltstore.store import RowView, Store, open_store
from ltstore.types import UNLABELLED, Donors, IntArray, Progress, no_progress

if TYPE_CHECKING:
    from ltstore.neighbors.faiss_index import FaissIndex

DONORS_BY = ("means", "index")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The usable, unit-norm rows of a split or of a named subset of it.

    Attributes
    ----------
    store : Store
    split : str
    subset : str or None
    """

    store: Store
    split: str
    subset: str | None = None

    @property
    def name(self) -> str:
        """How these rows are called in messages: "train", or "train/SUBSET"."""
        return self.split if self.subset is None else f"{self.split}/{self.subset}"

    @cached_property
    def rows(self) -> RowView:
        """The rows (`ltstore.types.Rows`)."""
        return self.store.split(self.split).rows(self.subset)

    @cached_property
    def counts(self) -> IntArray:
        """(C,) int64 labelled rows of each class."""
        return class_counts(self.rows)

    @property
    def made_from(self) -> dict[str, str | None]:
        """What an artefact's record says of these rows."""
        return {"split": self.split, "subset": self.subset, "rows": self.rows.digest}

    @property
    def index_path(self) -> Path:
        """Directory of the index of these rows."""
        return self._artefact("indexes")

    @property
    def stats_path(self) -> Path:
        """Directory of what was computed of these rows."""
        return self._artefact("stats")

    def _artefact(self, kind: Literal["indexes", "stats"]) -> Path:
        """KIND/SPLIT/all, or KIND/SPLIT/subset-NAME: no two selections share a directory."""
        leaf = "all" if self.subset is None else f"subset-{self.subset}"
        return self.store.artefact_path(kind, self.split) / leaf

    def require_labels(self) -> None:
        """Raise DataError unless some row has a label."""
        if not self.counts.any():
            raise DataError(f"split {self.name!r} of {self.store.location} has no labelled rows")

    def check(self) -> None:
        """Raise ChecksumMismatchError where stored embeddings of these rows are damaged; they are gone over once."""
        self._checked  # noqa: B018

    @cached_property
    def _checked(self) -> bool:
        self.rows.check()
        return True

    def moments(self, *, engine: Engine | None = None, progress: Progress = no_progress) -> ClassMoments:
        """Return the class moments of these rows: kept in stats/, made anew (by workers) when the rows changed."""
        path = self.stats_path / "moments.safetensors"
        try:
            return load_moments(path, rows_digest=self.rows.digest)
        except (FileNotFoundError, DataError, StoreFormatError) as err:
            logger.info("class moments of %s are made anew: %s", self.name, err)
        self.check()
        moments = self._updated(path, engine, progress) or class_moments(
            self.rows, engine=engine, progress=progress
        )
        try:
            check_no_link(self.store.artefact_location("stats").path.parent, path.parent)
            save_moments(
                moments,
                path,
                record("moments", settings={"rank": moments.basis.shape[1]}, made_from=self.made_from),
            )
        except StoreWriteError as err:
            logger.warning("class moments are not kept: %s", err)
        return moments

    def _updated(self, path: Path, engine: Engine | None, progress: Progress) -> ClassMoments | None:
        """Return the kept moments with those of rows that were appended since; None where none are kept of these."""
        split = self.store.split(self.split)
        for number in reversed(range(len(split.generations) - 1) if self.subset is None else ()):
            before = self.store.split(self.split, generation=number).rows()
            try:
                kept = load_moments(path, rows_digest=before.digest)
            except (FileNotFoundError, DataError, StoreFormatError):
                continue
            added = TailRows(self.rows, before.n_samples)
            if kept.counts.sum() < added.n_samples:
                return None  # the basis would be that of the smaller part
            logger.info("class moments of %s are updated with %d rows", self.name, added.n_samples)
            if not (added.labels != UNLABELLED).any():
                return kept
            more = class_moments(added, basis=kept.basis, engine=engine, progress=progress)
            return merge_moments(kept, more)
        return None

    def index(self) -> FaissIndex:
        """Open the stored index of these rows; what is raised says how to make it, or to bring it up to date.

        Raises
        ------
        IndexNotFoundError, IndexStaleError, ChecksumMismatchError, StoreFormatError
        """
        from ltstore.neighbors import load_index  # loads faiss

        subset = f" --subset {self.subset}" if self.subset else ""
        command = f"run `ltstore index {self.store.location} --split {self.split}{subset}`"
        try:
            return load_index(self.index_path, rows=self.rows)
        except IndexNotFoundError as err:
            raise IndexNotFoundError(f"no index of {self.name!r} in {self.store.location}: {command}") from err
        except IndexStaleError as err:
            before = self.indexed_before()
            if before is None:
                raise IndexStaleError(f"{err}: {command}") from err
            raise IndexStaleError(
                f"the index of {self.name!r} is behind, it has the first {before.n_samples:,} of "
                f"{self.rows.n_samples:,} rows: {command}, which adds the others"
            ) from err
        except StoreFormatError as err:
            raise type(err)(f"{err}: {command}") from err

    def indexed_before(self) -> RowView | None:
        """Return the rows that the stored index is of where others were appended since; None where it is not so."""
        from ltstore.neighbors import read_record

        split = self.store.split(self.split)
        for number in reversed(range(len(split.generations) - 1) if self.subset is None else ()):
            before = self.store.split(self.split, generation=number).rows()
            if read_record(self.index_path)["rows"] == before.digest:
                return before
        return None

    def donors(self, by: str = "means", k: int = 5) -> Donors:
        """Return the donors of every class.

        Parameters
        ----------
        by : {"means", "index"}
            The nearest class means (no index needed), or the votes of the nearest rows in the stored index.
        k : int
            At most this many of each class.

        Raises
        ------
        ConfigError, IndexNotFoundError, IndexStaleError
        """
        if by == "means":
            return class_donors(self.moments().means, self.counts, k=k)
        if by == "index":
            return row_donors(self.index(), self.rows, self.counts, k=k)
        raise ConfigError(f"donors are found by {' or '.join(DONORS_BY)}, found {by!r}")


def select(store: Place | Store, split: str = "train", subset: str | None = None) -> Selection:
    """Choose rows of a store.

    Parameters
    ----------
    store : path or Store
    split : str
    subset : str, optional

    Raises
    ------
    StoreNotFoundError, IncompleteStoreError, StoreFormatError
    """
    opened = store if isinstance(store, Store) else open_store(store)
    selection = Selection(store=opened, split=split, subset=subset)
    selection.rows  # noqa: B018 - a missing split or subset is reported here, not in mid-work
    return selection
