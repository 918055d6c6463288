"""Build the index of a selection, ask it, and name the donors of its tail classes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltstore.atomic import check_no_link, make_directory, remove_directory
from ltstore.errors import (
    ConfigError,
    DataError,
    ImageError,
    IndexNotFoundError,
    IndexStaleError,
    LtstoreError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.metrics import count_groups
from ltstore.neighbors import query_neighbors, resolve_among
from ltstore.provenance import record
from ltstore.rows import normalize_rows
from ltstore.sources import decode_image, open_recorded, read_file
from ltstore.storage import FileLocation, Place, read_regular
from ltstore.store import Store
from ltstore.types import Donors, FloatArray, ImageSource, IntArray, Progress, TextEncoder, no_progress
from ltstore.workflow.encoders import recorded_spec, reopen_encoder
from ltstore.workflow.selection import Selection, select

if TYPE_CHECKING:
    from PIL.Image import Image

    from ltstore.neighbors.faiss_index import FaissIndex


@dataclass(frozen=True, kw_only=True)
class IndexResult:
    """What `build_store_index` made or found.

    Attributes
    ----------
    done : str
        "built", "kept", "added 120 rows", or "built again: ..." with the reason.
    reason : str
        Why this kind.
    parameters : dict of str to int
        How hard it looks, see `ltstore.neighbors.FaissIndex`.
    report : dict or None
        See `ltstore.neighbors.RecallReport`.
    graph : str or None
        Directory of the graph of all rows, where one was asked for.
    """

    path: str
    done: str
    kind: str
    reason: str
    metric: str
    device: str
    parameters: dict[str, int]
    report: dict[str, Any] | None
    n_rows: int
    n_features: int
    n_bytes: int
    seconds: float
    graph: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def build_store_index(
    store: Place | Store,
    *,
    split: str = "train",
    subset: str | None = None,
    kind: str = "auto",
    metric: str = "cosine",
    device: str = "auto",
    recall: float = 0.95,
    memory_bytes: int | None = None,
    graph: int | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> IndexResult:
    """See that the store's indexes/ directory has the FAISS index of a selection, as asked for and up to date.

    A good one of these rows and settings is kept. Rows that were appended to the split since are added, unless they are
    more than there were or `auto` would take another kind by now. Anything else (damaged, foreign, other settings) is
    built again from the store; a build that was killed goes on.

    Parameters
    ----------
    store : path or Store
    split, subset, kind, metric, device, recall, memory_bytes
        See `ltstore.neighbors.build_index`.
    graph : int, optional
        Write the graph of so many nearest rows of every row too, see `ltstore.neighbors.write_graph`. One of this index
        is kept; a run that was killed goes on.
    force : bool
        Build anew whatever there is.

    Raises
    ------
    StoreNotFoundError, ConfigError, StoreWriteError
    StoreBusyError
        Another process is building an index of this split.
    """
    from ltstore.neighbors import build_index, read_record, save_index, write_graph  # loads faiss

    selection = select(store, split, subset)
    started = time.perf_counter()
    path = selection.index_path
    check_no_link(selection.store.artefact_location("indexes").path.parent, path.parent)
    asked = {"kind": kind, "metric": metric, "recall": recall, "memory_bytes": memory_bytes}
    with ExitStack() as held:
        if force or graph is not None or not _is_of(path, selection.rows.digest, asked):
            try:
                make_directory(path.parent)
            except OSError as err:
                raise StoreWriteError(f"cannot make {path.parent}: {err.strerror or err}") from err
            # two commands at once would leave the graph of one beside the index of the other
            held.callback(FileLocation(path.parent).lock().release)
        unfinished = path.with_name(f"building-{path.name}")  # no selection has that name
        index, done = (None, "built") if force else _index_there(selection, asked, device, progress)
        if index is None:
            selection.check()
            index = build_index(
                selection.rows,
                kind=kind,
                metric=metric,
                device=device,
                recall=recall,
                memory_bytes=memory_bytes,
                checkpoint=unfinished,
                progress=progress,
            )
        if done == "kept":
            progress(selection.rows.n_samples, {})
        else:
            settings = {"kind": index.kind, "metric": metric, "parameters": index.parameters, "asked": asked}
            save_index(index, path, record("index", settings=settings, made_from=selection.made_from))
            remove_directory(unfinished)
        if graph is not None:
            root = selection.store.artefact_location("indexes").path.parent
            check_no_link(root, path / "graph")
            check_no_link(root, path / "building-graph")
            made_from = {**selection.made_from, "index": read_record(path)["sha256"]}
            asked_for = {"k": graph, "kind": index.kind, "metric": metric, "parameters": index.parameters}
            made = record("graph", settings=asked_for, made_from=made_from)
            if not _is_there(path / "graph" / "record.json", made):
                write_graph(index, selection.rows, graph, path / "graph", made, progress=progress)
        return IndexResult(
            path=str(path),
            done=done,
            kind=index.kind,
            reason=index.plan.reason,
            metric=index.metric,
            device=index.device,
            parameters=index.parameters,
            report=None if index.report is None else index.report.to_json(),
            n_rows=selection.rows.n_samples,
            n_features=selection.rows.n_features,
            n_bytes=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
            seconds=time.perf_counter() - started,
            graph=None if graph is None else str(path / "graph"),
        )


def _is_of(path: Path, digest: str, asked: Mapping[str, Any]) -> bool:
    """Whether the stored index is of these rows and settings: there is nothing to write then."""
    from ltstore.neighbors import read_record

    try:
        there = read_record(path)
        return bool(there["rows"] == digest and there["record"]["settings"]["asked"] == asked)
    except (IndexNotFoundError, IndexStaleError, StoreFormatError, KeyError, TypeError):
        return False


def stored_indexes(store: Store) -> dict[str, dict[str, Any]]:
    """Return what each stored index was found to find, by "SPLIT/all" or "SPLIT/subset-NAME"; nothing is checked.

    Returns
    -------
    dict of str to dict
        "kind", "n_rows", "wanted", "recall" and "reached"; the last three None where it was not measured. An index
        whose record cannot be read is {"damaged": why}.
    """
    root = store.artefact_location("indexes").path
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("*/*/record.json")):
        if path.parent.name.startswith(("building-", ".")):
            continue
        try:
            there = json.loads(read_regular(path))
            facts = {"kind": str(there["plan"]["kind"]), "n_rows": int(there["n_samples"])}
            report = there["report"]
            facts |= {
                "wanted": report and float(report["wanted"]),
                "recall": report and {name: float(value) for name, value in report["recall"].items()},
                "reached": report and bool(report["reached"]),
            }
        except (LtstoreError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            facts = {"damaged": repr(err)}
        found[path.parent.relative_to(root).as_posix()] = facts
    return found


def _is_there(path: Path, made: Mapping[str, Any]) -> bool:
    """Whether the artefact with its record at `path` is of the same settings and origin as the one to be made."""
    try:
        there = json.loads(path.read_bytes())
        return all(there[name] == made[name] for name in ("kind", "settings", "made_from"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _index_there(
    selection: Selection, asked: Mapping[str, Any], device: str, progress: Progress
) -> tuple[FaissIndex | None, str]:
    """Return the stored index of the selection, rows appended since added, or None; and what to say of it."""
    from ltstore.neighbors import extend_index, load_index, plan_index, read_record

    rows, path = selection.rows, selection.index_path
    try:
        there = read_record(path)
        if there["record"].get("settings", {}).get("asked") != asked:
            return None, "built again: other settings were asked for"
        if there["rows"] == rows.digest:
            return load_index(path, rows=rows, device=device), "kept"
        before = selection.indexed_before()
        if before is None:
            return None, "built again: it was of other rows"
        selection.check()
        index = load_index(path, rows=before, device=device)
    except IndexNotFoundError:
        return None, "built"
    except (IndexStaleError, StoreFormatError, KeyError, AttributeError) as err:
        return None, f"built again: {err}"
    added = rows.n_samples - before.n_samples
    was, wanted = (
        plan_index(
            asked["kind"],
            each.n_samples,
            rows.n_features,
            recall=asked["recall"],
            memory_bytes=asked["memory_bytes"],
            on_gpu=index.device != "cpu",
        ).kind
        for each in (before, rows)
    )
    if wanted not in (was, index.kind):
        return None, f"built again: with {added:,} rows more, {wanted} is the better kind"
    if rows.n_samples > 2 * index.parts[0][0] and index.plan.n_lists:
        return None, f"built again: its lists were learned from fewer than half of {rows.n_samples:,} rows"
    grown = extend_index(index, rows, recall=asked["recall"], progress=progress)
    if asked["kind"] == "auto" and grown.report is not None and not grown.report.reached:
        progress(-added, {})
        return None, f"built again: with {added:,} rows more it found too little"
    return grown, f"added {added:,} rows"


def query_store(
    selection: Selection,
    X: FloatArray,
    k: int = 10,
    *,
    among: str | None = None,
    exclude: IntArray | None = None,
) -> list[list[dict[str, Any]]]:
    """Return the k nearest rows of each query, as records with key, class, class size, group, similarity.

    Parameters
    ----------
    selection : Selection
        Its index must have been built.
    X : (n, D) float32
        Queries in the selection's feature space; unit norm where its rows are.
    k : int
    among : str, optional
        "many", "medium", "few", "tail" or class names separated by commas.
    exclude : (n,) int64, optional
        One row id per query to leave out: itself.
    """
    names, counts = selection.store.class_names, selection.counts
    wanted = None if among is None else resolve_among(among, counts, names)
    found = query_neighbors(
        selection.index(),
        X,
        k,
        labels=selection.rows.labels,
        class_names=names,
        counts=counts,
        among=wanted,
        exclude=exclude,
    )
    row_ids = sorted({neighbor.row_id for neighbor in found})
    keys = dict(zip(row_ids, selection.store.split(selection.split).keys(row_ids), strict=True))
    answers: list[list[dict[str, Any]]] = [[] for _ in range(len(X))]
    for neighbor in found:
        answers[neighbor.query].append(asdict(neighbor) | {"key": keys[neighbor.row_id]})
    return answers


def store_donors(
    store: Place | Store,
    *,
    split: str = "train",
    subset: str | None = None,
    by: str = "means",
    k: int = 5,
) -> tuple[Selection, Donors]:
    """Return the selection and the donors of its classes, see `Selection.donors`."""
    selection = select(store, split, subset)
    selection.require_labels()
    return selection, selection.donors(by, k)


def donor_records(selection: Selection, donors: Donors) -> list[dict[str, Any]]:
    """Return one JSON record per class that has donors, smallest class first."""
    names, counts = selection.store.class_names, selection.counts
    groups = count_groups(counts)
    return [
        {
            "class": names[c],
            "rows": int(counts[c]),
            "group": next(group for group, members in groups.items() if members[c]),
            "donors": [
                {
                    "class": names[donor],
                    "rows": int(counts[donor]),
                    "weight": float(donors.weights[c, i]),
                    "similarity": float(donors.similarity[c, i]),
                }
                for i, donor in enumerate(donors.class_ids[c])
                if donor >= 0
            ],
        }
        for c in counts.argsort(kind="stable")
        if (donors.class_ids[c] >= 0).any()
    ]


def query_vectors(
    selection: Selection,
    *,
    image: Path | str | None = None,
    row: int | None = None,
    text: str | None = None,
    vectors: Path | str | None = None,
    encoder: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    encoder_config: Path | str | None = None,
    device: str = "auto",
) -> tuple[FloatArray, list[str], IntArray | None]:
    """Return (queries (n, D), their names, row ids to leave out) of an image, a stored row, a text or a vectors file.

    Raises
    ------
    DataError
        The row is not one of the selection's, or the vectors do not fit.
    ConfigError
        The store's encoder has no text.
    ImageError, EncoderMismatchError
    """
    rows = selection.rows
    if row is not None:
        position = int(np.searchsorted(rows.row_ids, row))
        if position == rows.n_samples or rows.row_ids[position] != row:
            raise DataError(f"row {row} is not one of the {rows.n_samples:,} usable rows of {selection.name!r}")
        return rows.take(np.array([position])), [f"row {row}"], np.array([row])
    if vectors is not None:
        X = load_vectors(Path(vectors), rows.n_features)
        names = [f"{vectors}[{i}]" for i in range(len(X))]
    elif image is not None or text is not None:
        used = reopen_encoder(
            rows.encoder,
            encoder or recorded_spec(selection.store),
            device=device,
            options=encoder_options,
            config=encoder_config,
        )
        if image is not None:
            data = read_file(Path(image), str(image))
            picture = decode_image(data, str(image), getattr(used, "least_side", None))
            X, names = used.encode(np.stack([used.preprocess(picture)])).copy(), [str(image)]
        elif isinstance(used, TextEncoder):
            X, names = used.encode_text([str(text)]).copy(), [str(text)]
        else:
            raise ConfigError(
                f"encoder {rows.encoder.encoder} has no text: --text is for open_clip stores, give an image or a row"
            )
    else:
        raise ConfigError("give an image, a row, a text or a vectors file")
    return (normalize_rows(X) if rows.normalized else X), names, None


def write_contact_sheet(
    path: Path, selection: Selection, names: Sequence[str], answers: Sequence[Sequence[Mapping[str, Any]]]
) -> int:
    """Write answers of `query_store` as one HTML page with the images, where the split's source is still there.

    Returns
    -------
    int
        How many images could not be shown: their cells say so.

    Raises
    ------
    StoreWriteError
    """
    from ltstore.report import Cell, write_sheet

    show = image_reader(selection)
    sheet = [
        (name, [Cell(image=show(one["row_id"]), **{key: one[key] for key in _SHOWN}) for one in answer])
        for name, answer in zip(names, answers, strict=True)
    ]
    write_sheet(path, f"{selection.store.location.name}, {selection.name}", sheet)
    return sum(cell.image is None for _, cells in sheet for cell in cells)


_SHOWN = ("rank", "class_name", "class_count", "group", "similarity", "row_id", "key")


def image_reader(selection: Selection) -> Callable[[int], Image | None]:
    """Return what gives the image of a row by its id, or None where it cannot be had."""
    split = selection.store.split(selection.split)
    places: list[tuple[int, ImageSource | None, dict[str, int]]] = []
    for generation in split.generations:
        source, by_key = None, {}
        with suppress(LtstoreError):  # it has moved, or there never was one
            source = open_recorded(generation.record.settings.get("source") or {})
            by_key = {source.key(position): position for position in range(source.n_samples)}
        places.append((generation.first_row, source, by_key))

    def read(row_id: int) -> Image | None:
        source, by_key = next(place[1:] for place in reversed(places) if place[0] <= row_id)
        position = by_key.get(split.keys([row_id])[0])
        with suppress(ImageError):
            return None if source is None or position is None else source.read(position)
        return None

    return read


def load_vectors(path: Path, n_features: int) -> FloatArray:
    """Read (n, D) query vectors from a .npy file, never unpickling anything."""
    try:
        X = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as err:
        raise DataError(f"cannot read vectors from {path}: {err}") from err
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "fiu" or X.ndim not in (1, 2):
        raise DataError(f"{path} must hold one (n, {n_features}) array of numbers")
    X = np.atleast_2d(X).astype(np.float32)
    if X.shape[1] != n_features or not np.isfinite(X).all():
        raise DataError(f"{path} holds {X.shape} vectors; expected (n, {n_features}), all finite")
    return X
