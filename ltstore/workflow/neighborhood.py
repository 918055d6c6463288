"""Build the index of a selection, ask it, and name the donors of its tail classes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import check_no_link
from ltstore.errors import ConfigError, DataError
from ltstore.metrics import count_groups
from ltstore.neighbors import query_neighbors, resolve_among
from ltstore.provenance import record
from ltstore.rows import normalize_rows
from ltstore.sources import decode_image, read_file
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import Donors, FloatArray, IntArray, Progress, no_progress
from ltstore.workflow.encoders import recorded_spec, reopen_encoder
from ltstore.workflow.selection import Selection, select


@dataclass(frozen=True, kw_only=True)
class IndexResult:
    """What `build_store_index` made."""

    path: str
    kind: str
    reason: str
    metric: str
    device: str
    n_rows: int
    n_features: int
    n_bytes: int
    seconds: float

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
    progress: Progress = no_progress,
) -> IndexResult:
    """Build the FAISS index of a selection and keep it in the store's indexes/ directory.

    Raises
    ------
    StoreNotFoundError, ConfigError, StoreWriteError
    """
    from ltstore.neighbors import build_index  # loads faiss

    selection = select(store, split, subset)
    started = time.perf_counter()
    index = build_index(selection.rows, kind=kind, metric=metric, device=device, progress=progress)
    settings = {"kind": index.kind, "metric": metric}
    check_no_link(selection.store.artefact_location("indexes").path.parent, selection.index_path.parent)
    index.save(selection.index_path, record("index", settings=settings, made_from=selection.made_from))
    return IndexResult(
        path=str(selection.index_path),
        kind=index.kind,
        reason=index.reasons.get("kind", "asked for"),
        metric=index.metric,
        device=index.device,
        n_rows=selection.rows.n_samples,
        n_features=selection.rows.n_features,
        n_bytes=sum(file.stat().st_size for file in selection.index_path.iterdir()),
        seconds=time.perf_counter() - started,
    )


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
    vectors: Path | str | None = None,
    encoder: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    encoder_config: Path | str | None = None,
    device: str = "auto",
) -> tuple[FloatArray, list[str], IntArray | None]:
    """Return (queries (n, D), their names, row ids to leave out) of an image, a stored row or a vectors file.

    Raises
    ------
    DataError
        The row is not one of the selection's, or the vectors do not fit.
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
    elif image is not None:
        used = reopen_encoder(
            rows.encoder,
            encoder or recorded_spec(selection.store),
            device=device,
            options=encoder_options,
            config=encoder_config,
        )
        data = read_file(Path(image), str(image))
        picture = decode_image(data, str(image), getattr(used, "least_side", None))
        X, names = used.encode(np.stack([used.preprocess(picture)])).copy(), [str(image)]
    else:
        raise ConfigError("give an image, a row or a vectors file")
    return (normalize_rows(X) if rows.normalized else X), names, None


def load_vectors(path: Path, n_features: int) -> FloatArray:
    """Read (n, D) query vectors from a .npy file, never unpickling anything."""
    try:
        X = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as err:
        raise DataError(f"cannot read vectors from {path}: {err}") from err
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "fiu" or X.ndim not in (1, 2):
        raise DataError(f"{path} must hold one (n, {n_features}) array of numbers")
    X = np.atleast_2d(X).astype(np.float32)
    if X.shape[1] != n_features or not np.isfinite(X).all():
        raise DataError(f"{path} holds {X.shape} vectors; expected (n, {n_features}), all finite")
    return X
