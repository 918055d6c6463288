"""A store: one feature identity, one list of classes, and the splits and artefacts under them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ltstore.atomic import TEMPORARY_SUFFIX, encode_json
from ltstore.errors import (
    ConfigError,
    EncoderMismatchError,
    IncompleteStoreError,
    LtstoreError,
    StoreExistsError,
    StoreFormatError,
    StoreNotFoundError,
    StoreReadError,
)
from ltstore.storage import FileLocation, Location, Place, open_location, write_json
from ltstore.store.format import (
    APPENDED_VERSION,
    ARRAYS,
    ATTRIBUTE,
    DTYPES,
    GROUP_FILE,
    LIMIT_ROOT_BYTES,
    RESERVED_NAMES,
    RootRecord,
    SplitRecord,
    group_document,
    plain_json,
    read_attribute,
    read_json,
    validate_name,
)
from ltstore.store.generation import GENERATIONS, generation_location
from ltstore.store.plan import plan_shards
from ltstore.store.split import Split
from ltstore.store.writer import SplitWriter, differences
from ltstore.types import EncoderIdentity

ArtefactKind = Literal["indexes", "stats", "synthetic"]


class Store:
    """An open store. Made by `create_store` and `open_store`; holds no file open."""

    def __init__(self, location: Location, root: RootRecord) -> None:
        self._location = location
        self._root = root

    def __repr__(self) -> str:
        splits = ", ".join(self.splits) or "no splits"
        return f"<Store {str(self._location)!r}: {splits}; {len(self.class_names)} classes>"

    @property
    def location(self) -> Location:
        """Where it lies; `str` of it is what `open_store` takes."""
        return self._location

    @property
    def path(self) -> Path:
        """Its directory; ConfigError where it lies in an object store."""
        return self._location.path

    @property
    def record(self) -> RootRecord:
        """What its zarr.json says."""
        return self._root

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; a label is a position in it."""
        return self._root.class_names

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity of every row in it."""
        return self._root.encoder

    def require_encoder(self, encoder: EncoderIdentity) -> None:
        """Raise EncoderMismatchError, naming the differences, unless embeddings of `encoder` may join these."""
        if self.encoder != encoder:
            differences = "; ".join(self.encoder.differences(encoder))
            raise EncoderMismatchError(
                f"{self._location} holds embeddings of another encoder (store / this run): {differences}; "
                "use the same encoder, or another store"
            )

    @property
    def format_version(self) -> int:
        """The version of the on-disk format."""
        return self._root.format_version

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits there are, sorted; incomplete ones too."""
        return tuple(name for name in _groups(self._location) if name not in RESERVED_NAMES)

    @property
    def synthetic_names(self) -> tuple[str, ...]:
        """Names of the materialised synthetic splits there are, sorted; incomplete ones too."""
        return _groups(self._location / "synthetic")

    def split(self, name: str, *, allow_incomplete: bool = False, generation: int | None = None) -> Split:
        """Return a split.

        Parameters
        ----------
        name : str
        allow_incomplete : bool
            Also return a split whose writing has not ended; it shows the shards that are whole now.
        generation : int, optional
            As it was before rows were appended (0), or after that had been done so many times; default as it is now.

        Raises
        ------
        StoreNotFoundError
            There is none of that name; lists those there are.
        IncompleteStoreError
            It is not complete.
        """
        return self._open(
            self._split_location(name, synthetic=False), name, self.splits, allow_incomplete, generation
        )

    def synthetic(self, name: str, *, allow_incomplete: bool = False) -> Split:
        """Return a materialised synthetic split: like `split`, from synthetic/NAME."""
        return self._open(
            self._split_location(name, synthetic=True), name, self.synthetic_names, allow_incomplete
        )

    def _open(
        self,
        location: Location,
        name: str,
        known: tuple[str, ...],
        allow_incomplete: bool,
        generation: int | None = None,
    ) -> Split:
        if name not in known:
            there = ", ".join(known) or "none"
            what = "synthetic rows" if location.parent.name == "synthetic" else "split"
            raise StoreNotFoundError(f"{self._location} has no {what} {name!r}; there are: {there}")
        split = Split(location, name, self._root, generation)
        if not split.complete and not allow_incomplete:
            raise IncompleteStoreError(
                f"{location} is not complete: {len(split.commits)} of {split.generations[0].plan.n_shards} shards "
                "are written; run the same command again to finish it"
            )
        return split

    def _split_location(self, name: str, *, synthetic: bool) -> Location:
        if synthetic:
            return self._location / "synthetic" / validate_name(name, "synthetic")
        if validate_name(name, "split") in RESERVED_NAMES:
            raise ConfigError(f"a split cannot be named {name!r}: the store keeps its artefacts there")
        return self._location / name

    def begin_split(
        self,
        name: str,
        *,
        n_rows: int,
        source_digest: str,
        dtype: str = "auto",
        rows_per_shard: int | str = "auto",
        settings: Mapping[str, Any] | None = None,
        synthetic: bool = False,
        append: bool = False,
    ) -> SplitWriter:
        """Begin a split, or take up one that was begun with the same plan.

        Parameters
        ----------
        name : str
        n_rows : int
            N, rows that will have no embedding included.
        source_digest : str
            The digest of what the rows are made from.
        dtype : {"auto", "float16", "float32"}
            "auto" is that of the split where there is one, else float16.
        rows_per_shard : int or "auto"
            See `plan_shards`; "auto" keeps the plan of a split that was begun.
        settings : mapping, optional
            JSON values, kept with the split.
        synthetic : bool
            Write under synthetic/ instead of among the splits.
        append : bool
            Where the split is complete, write the rows after those it has: they become part of it, all at once,
            when the writer finishes. Rows of a source that it has already are not written again. `rows_per_shard`
            and the rows that the writer counts from 0 are those of the new rows.

        Returns
        -------
        SplitWriter
            `pending` says what is left: nothing where all of it is there.

        Raises
        ------
        PlanMismatchError
            It was begun with other rows, source, dtype, plan or settings; names the difference.
        StoreBusyError
            Another process is writing it.
        StoreWriteError
            The store cannot be written.
        """
        location = self._split_location(name, synthetic=synthetic)
        if dtype not in ("auto", *DTYPES):
            raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, found {dtype!r}")
        plan = plan_shards(n_rows, rows_per_shard, n_features=self.encoder.n_features)
        group = self._location / "synthetic" / GROUP_FILE
        location.check_no_link(self._location)
        if synthetic and not group.exists():
            write_json(group, group_document())
        if synthetic:
            group.clear_leftovers()  # of another writer, killed when this one was first
        (self._location / GROUP_FILE).clear_leftovers()
        location.make_directory()
        lock = location.lock()
        try:
            there = _dtype_there(location)
            split = Split(location, name, self._root) if there and append else None
            wanted = SplitRecord(
                n_rows=plan.n_rows,
                rows_per_shard=plan.rows_per_shard,
                chunk_rows=plan.chunk_rows,
                dtype=dtype if dtype != "auto" else there or "float16",
                source_digest=source_digest,
                settings=plain_json(settings, "split settings"),
            )
            number = 0
            if append and split is not None and split.complete:
                number, wanted = self._next_generation(split, wanted)
            generation = generation_location(location, number)
            for inner in ("rows", "commits", *(f"{array}/c" for array in ARRAYS)):
                (generation / inner).check_no_link(self._location)
            return SplitWriter(
                generation,
                self._root,
                wanted,
                rows_per_shard == "auto",
                lock,
                lambda: Split(location, name, self._root),
            )
        except BaseException:
            lock.release()
            raise

    def _next_generation(self, split: Split, wanted: SplitRecord) -> tuple[int, SplitRecord]:
        """Return the number and record of the generation that rows are to be appended in: theirs, if it is there."""
        if wanted.dtype != split.dtype:
            raise ConfigError(
                f"{split.location} is stored as {split.dtype}: append with that dtype, or with 'auto'"
            )
        for number, generation in enumerate(split.generations):
            record = generation.record
            same = replace(wanted, first_row=record.first_row, follows=record.follows)
            if record.source_digest == wanted.source_digest and not differences(record, same, plan=False):
                return number, replace(same, rows_per_shard=record.rows_per_shard, chunk_rows=record.chunk_rows)
        where = self._location / GROUP_FILE
        root = RootRecord.from_json(read_attribute(where, root=True), str(where))
        if (
            root.format_version < APPENDED_VERSION
        ):  # first: a reader that knows no generations must not miss one
            raised = replace(root, format_version=APPENDED_VERSION)
            write_json(self._location / GROUP_FILE, group_document(raised.to_json()))
        group = split.location / GENERATIONS / GROUP_FILE
        if not group.exists():
            write_json(group, group_document())
        return len(split.generations), replace(wanted, first_row=split.n_rows, follows=split.digest)

    def artefact_location(self, kind: ArtefactKind) -> FileLocation:
        """Return the directory of the artefacts of a kind; nothing is created.

        STORE/kind; for a store behind a URL, whose indexes and moments must be files of this machine all the same,
        a directory for that URL below ``$LTSTORE_CACHE``, by default ``~/.cache/ltstore``.
        """
        if kind not in RESERVED_NAMES:
            raise ConfigError(f"artefact kind must be one of {', '.join(RESERVED_NAMES)}, found {kind!r}")
        if isinstance(self._location, FileLocation):
            return self._location / kind
        cache = os.environ.get("LTSTORE_CACHE") or Path(
            os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ltstore"
        )
        digest = hashlib.sha256(str(self._location).encode()).hexdigest()[:16]
        return FileLocation(Path(cache) / digest / kind)

    def artefact_path(self, kind: ArtefactKind, name: str) -> Path:
        """Return where an artefact lies, with a validated name; nothing is created."""
        return self.artefact_location(kind).path / validate_name(name, kind)


def _dtype_there(split: Location) -> str:
    """Return how a split that was begun is stored, "" where there is none."""
    where = split / GROUP_FILE
    try:
        return SplitRecord.from_json(read_attribute(where), str(where)).dtype
    except FileNotFoundError:
        return ""


def _groups(location: Location) -> tuple[str, ...]:
    """Names of the groups of ours in a directory, sorted, damaged ones too; foreign groups are passed over."""
    found = []
    for name in location.child_names():
        if name.endswith(TEMPORARY_SUFFIX):
            continue
        try:
            validate_name(name, "split")
            attributes = read_json(location / name / GROUP_FILE).get("attributes", {})
            ours = not isinstance(attributes, dict) or ATTRIBUTE in attributes
        except (ConfigError, FileNotFoundError):
            continue
        except StoreReadError:
            if location.n_parallel > 1:  # a service that fails: the list would be wrong
                raise
            ours = (location / name / GROUP_FILE).exists()
        except LtstoreError:
            ours = True  # damaged: listed, and named by whoever opens it
        if ours:
            found.append(name)
    return tuple(found)


def create_store(path: Place, *, encoder: EncoderIdentity, class_names: Sequence[str]) -> Store:
    """Create an empty store.

    Parameters
    ----------
    path : path, URL or Location
        Nothing, or an empty directory; parents are made. See `ltstore.storage.open_location`.
    encoder : EncoderIdentity
    class_names : sequence of str

    Raises
    ------
    StoreExistsError
        Something is there already.
    StoreWriteError
        It cannot be written.
    """
    location = open_location(path)
    if location.exists():
        raise StoreExistsError(f"{location} is a file: choose another path for the store")
    if found := [name for name in location.child_names() if not name.endswith(TEMPORARY_SUFFIX)]:
        raise StoreExistsError(f"{location} is not empty (it has {found[0]}): choose another path")
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ConfigError("class_names must be a list of strings")
    try:
        "".join(class_names).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"class names must be valid Unicode: {err}") from err
    root = RootRecord(encoder=encoder, class_names=tuple(class_names))
    document = group_document(root.to_json())
    checked = RootRecord.from_json(root.to_json(), str(location))
    if sum(map(len, class_names)) + 8 * len(class_names) > LIMIT_ROOT_BYTES // 16:  # it may be too much: look
        n_bytes = len(encode_json(document))
        if n_bytes > LIMIT_ROOT_BYTES:
            raise ConfigError(
                f"class names must fit into {LIMIT_ROOT_BYTES} bytes, found {n_bytes}: shorten them"
            )
    try:
        write_json(location / GROUP_FILE, document, exclusive=True)
    except StoreExistsError as err:
        raise StoreExistsError(f"{location} has just been made by another process: open it") from err
    return Store(location, checked)


def open_or_create_store(path: Place, *, encoder: EncoderIdentity, class_names: Sequence[str]) -> Store:
    """Open the store at `path`, or create it; where another process creates it in this moment, open that one.

    Raises
    ------
    EncoderMismatchError
        It holds embeddings of another identity. Its class names may be others: look at them.
    StoreExistsError, StoreFormatError, StoreWriteError
        As in `create_store` and `open_store`.
    """
    try:
        store = open_store(path)
    except StoreNotFoundError:
        store = _created(path, encoder, class_names)
    except StoreFormatError:
        if is_store(path):
            raise
        store = _created(path, encoder, class_names)
    store.require_encoder(encoder)
    return store


def _created(path: Place, encoder: EncoderIdentity, class_names: Sequence[str]) -> Store:
    try:
        return create_store(path, encoder=encoder, class_names=class_names)
    except StoreExistsError:
        if not is_store(path):
            raise
        return open_store(path)


def is_store(path: Place) -> bool:
    """Whether a store has been begun at `path`; it may still be damaged, or of a newer format."""
    return (open_location(path) / GROUP_FILE).exists()


def open_store(path: Place) -> Store:
    """Open a store.

    Parameters
    ----------
    path : path, URL or Location
        See `ltstore.storage.open_location`.

    Raises
    ------
    StoreNotFoundError
        There is nothing at that path.
    StoreFormatError
        It is not a store, is damaged, or was written in a newer format.
    """
    location = open_location(path)
    where = location / GROUP_FILE
    if not where.exists():
        if location.path.exists() if isinstance(location, FileLocation) else location.child_names():
            raise StoreFormatError(f"{location} is not a store: it has no {GROUP_FILE}")
        raise StoreNotFoundError(f"there is no store at {location}: make one with ltstore ingest or import")
    return Store(location, RootRecord.from_json(read_attribute(where, root=True), str(where)))
