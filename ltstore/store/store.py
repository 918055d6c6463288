"""A store: one feature identity, one list of classes, and the splits and artefacts under them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ltstore.atomic import TEMPORARY_SUFFIX, check_no_link, clear_leftovers, write_json
from ltstore.errors import (
    ConfigError,
    IncompleteStoreError,
    LtstoreError,
    StoreExistsError,
    StoreFormatError,
    StoreNotFoundError,
)
from ltstore.store.format import (
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
from ltstore.store.plan import plan_shards
from ltstore.store.split import Split
from ltstore.store.writer import SplitWriter
from ltstore.types import EncoderIdentity

ArtefactKind = Literal["indexes", "stats", "synthetic"]


class Store:
    """An open store. Made by `create_store` and `open_store`; holds no file open."""

    def __init__(self, path: Path, root: RootRecord) -> None:
        self._path = path
        self._root = root

    def __repr__(self) -> str:
        splits = ", ".join(self.splits) or "no splits"
        return f"<Store {str(self._path)!r}: {splits}; {len(self.class_names)} classes>"

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._path

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

    @property
    def format_version(self) -> int:
        """The version of the on-disk format."""
        return self._root.format_version

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits there are, sorted; incomplete ones too."""
        return tuple(name for name in _groups(self._path) if name not in RESERVED_NAMES)

    @property
    def synthetic_names(self) -> tuple[str, ...]:
        """Names of the materialised synthetic splits there are, sorted; incomplete ones too."""
        return _groups(self._path / "synthetic")

    def split(self, name: str, *, allow_incomplete: bool = False) -> Split:
        """Return a split.

        Parameters
        ----------
        name : str
        allow_incomplete : bool
            Also return a split whose writing has not ended; it shows the shards that are whole now.

        Raises
        ------
        StoreNotFoundError
            There is none of that name; lists those there are.
        IncompleteStoreError
            It is not complete.
        """
        return self._open(self._split_path(name, synthetic=False), name, self.splits, allow_incomplete)

    def synthetic(self, name: str, *, allow_incomplete: bool = False) -> Split:
        """Return a materialised synthetic split: like `split`, from synthetic/NAME."""
        return self._open(self._split_path(name, synthetic=True), name, self.synthetic_names, allow_incomplete)

    def _open(self, path: Path, name: str, known: tuple[str, ...], allow_incomplete: bool) -> Split:
        if name not in known:
            there = ", ".join(known) or "none"
            what = "synthetic rows" if path.parent.name == "synthetic" else "split"
            raise StoreNotFoundError(f"{self._path} has no {what} {name!r}; there are: {there}")
        split = Split(path, name, self._root)
        if not split.complete and not allow_incomplete:
            raise IncompleteStoreError(
                f"{path} is not complete: {len(split.commits)} of {split.plan.n_shards} shards are written; "
                "run the same command again to finish it"
            )
        return split

    def _split_path(self, name: str, *, synthetic: bool) -> Path:
        if synthetic:
            return self.artefact_path("synthetic", name)
        if validate_name(name, "split") in RESERVED_NAMES:
            raise ConfigError(f"a split cannot be named {name!r}: the store keeps its artefacts there")
        return self._path / name

    def begin_split(
        self,
        name: str,
        *,
        n_rows: int,
        source_digest: str,
        dtype: str = "float16",
        rows_per_shard: int | str = "auto",
        settings: Mapping[str, Any] | None = None,
        synthetic: bool = False,
    ) -> SplitWriter:
        """Begin a split, or take up one that was begun with the same plan.

        Parameters
        ----------
        name : str
        n_rows : int
            N, rows that will have no embedding included.
        source_digest : str
            The digest of what the rows are made from.
        dtype : {"float16", "float32"}
        rows_per_shard : int or "auto"
            See `plan_shards`; "auto" keeps the plan of a split that was begun.
        settings : mapping, optional
            JSON values, kept with the split.
        synthetic : bool
            Write under synthetic/ instead of among the splits.

        Returns
        -------
        SplitWriter
            `pending` says what is left: nothing for a split that is complete.

        Raises
        ------
        PlanMismatchError
            It was begun with other rows, source, dtype, plan or settings; names the difference.
        StoreBusyError
            Another process is writing it.
        StoreWriteError
            The store cannot be written.
        """
        path = self._split_path(name, synthetic=synthetic)
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, found {dtype!r}")
        plan = plan_shards(n_rows, rows_per_shard)
        wanted = SplitRecord(
            n_rows=plan.n_rows,
            rows_per_shard=plan.rows_per_shard,
            chunk_rows=plan.chunk_rows,
            dtype=dtype,
            source_digest=source_digest,
            settings=plain_json(settings, "split settings"),
        )
        check_no_link(self._path, path)
        group = self._path / "synthetic" / GROUP_FILE
        if synthetic and not group.exists():
            write_json(group, group_document())
        if synthetic:
            clear_leftovers(group)  # of another writer, killed when this one was first
        clear_leftovers(self._path / GROUP_FILE)
        return SplitWriter(path, name, self._root, wanted, auto_plan=rows_per_shard == "auto")

    def artefact_path(self, kind: ArtefactKind, name: str) -> Path:
        """Return where an artefact lies: PATH/kind/name, with a validated name; nothing is created."""
        if kind not in RESERVED_NAMES:
            raise ConfigError(f"artefact kind must be one of {', '.join(RESERVED_NAMES)}, found {kind!r}")
        return self._path / kind / validate_name(name, kind)


def _groups(path: Path) -> tuple[str, ...]:
    """Names of the groups of ours in a directory, sorted, damaged ones too; foreign groups are passed over."""
    found = []
    for entry in sorted(path.glob(f"*/{GROUP_FILE}")):
        name = entry.parent.name
        if name.endswith(TEMPORARY_SUFFIX):
            continue
        try:
            validate_name(name, "split")
            attributes = read_json(entry).get("attributes", {})
            ours = not isinstance(attributes, dict) or ATTRIBUTE in attributes
        except ConfigError:
            continue
        except (LtstoreError, OSError):
            ours = True  # damaged: listed, and named by whoever opens it
        if ours:
            found.append(name)
    return tuple(found)


def create_store(path: str | Path, *, encoder: EncoderIdentity, class_names: Sequence[str]) -> Store:
    """Create an empty store.

    Parameters
    ----------
    path : path
        Nothing, or an empty directory; parents are made.
    encoder : EncoderIdentity
    class_names : sequence of str

    Raises
    ------
    StoreExistsError
        Something is there already.
    StoreWriteError
        It cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        found = [entry.name for entry in path.iterdir() if not entry.name.endswith(TEMPORARY_SUFFIX)]
        if found:
            raise StoreExistsError(f"{path} is not empty (it has {sorted(found)[0]}): choose another path")
    elif path.exists():
        raise StoreExistsError(f"{path} is a file: choose another path for the store")
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ConfigError("class_names must be a list of strings")
    try:
        "".join(class_names).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"class names must be valid Unicode: {err}") from err
    root = RootRecord(encoder=encoder, class_names=tuple(class_names))
    document = group_document(root.to_json())
    checked = RootRecord.from_json(root.to_json(), str(path))
    if sum(map(len, class_names)) + 8 * len(class_names) > LIMIT_ROOT_BYTES // 16:  # it may be too much: look
        n_bytes = len(json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False).encode())
        if n_bytes > LIMIT_ROOT_BYTES:
            raise ConfigError(
                f"class names must fit into {LIMIT_ROOT_BYTES} bytes, found {n_bytes}: shorten them"
            )
    try:
        write_json(path / GROUP_FILE, document, exclusive=True)
    except StoreExistsError as err:
        raise StoreExistsError(f"{path} has just been made by another process: open it") from err
    return Store(path, checked)


def is_store(path: str | Path) -> bool:
    """Whether a store has been begun at `path`; it may still be damaged, or of a newer format."""
    return (Path(path) / GROUP_FILE).is_file()


def open_store(path: str | Path) -> Store:
    """Open a store.

    Raises
    ------
    StoreNotFoundError
        There is nothing at that path.
    StoreFormatError
        It is not a store, is damaged, or was written in a newer format.
    """
    path = Path(path)
    where = path / GROUP_FILE
    if not path.exists():
        raise StoreNotFoundError(f"there is no store at {path}: make one with ltstore ingest or import")
    if not where.is_file():
        raise StoreFormatError(f"{path} is not a store: it has no {GROUP_FILE}")
    return Store(path, RootRecord.from_json(read_attribute(where, root=True), str(where)))
