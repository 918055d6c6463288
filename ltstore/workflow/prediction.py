"""Label images with a trained model, through the encoder its rows were made with, or rows that are stored already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltstore.encode import iter_arriving, iter_encoded
from ltstore.errors import EncoderMismatchError
from ltstore.linear import LinearModel
from ltstore.linear.prediction import check_rows
from ltstore.rows import BLOCK_ROWS, normalize_rows
from ltstore.storage import Place
from ltstore.store import Store, open_store
from ltstore.types import Encoder, FloatArray, ImageSource, Progress, RowStatus, no_progress


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image, or why it has none.

    Attributes
    ----------
    key : str
        The image, as its source names it.
    classes : tuple of str
        Best first; empty where the image could not be read.
    probabilities : tuple of float
        Softmax probabilities, beside `classes`.
    error : str or None
    """

    key: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "key": self.key,
            "predictions": [
                {"class": name, "probability": round(value, 6)}
                for name, value in zip(self.classes, self.probabilities, strict=True)
            ],
            "error": self.error,
        }


def predict(
    model: LinearModel,
    source: ImageSource,
    encoder: Encoder,
    *,
    top: int = 5,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> Iterator[Prediction]:
    """Yield one Prediction per image of `source`, in its order, failed ones included.

    Parameters
    ----------
    model : LinearModel
    source : ImageSource
    encoder : Encoder
        Must have the model's identity: see `ltstore.workflow.encoders.reopen_encoder`.
    top : int
        Classes per image, at most C.

    Raises
    ------
    EncoderMismatchError
    """
    _check_encoder(model, encoder)
    for batch in iter_encoded(source, encoder, batch_size=batch_size, n_workers=n_workers, progress=progress):
        keys = [source.key(batch.start + row) for row in range(len(batch.X))]
        yield from _answers(model, keys, _scaled(model, batch.X), batch.errors, top)


def predict_arriving(
    model: LinearModel,
    paths: Iterable[str],
    encoder: Encoder,
    *,
    top: int = 5,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> Iterator[Prediction]:
    """Yield one Prediction per image file, in the order of their paths, each when its path has come.

    Parameters
    ----------
    paths : iterable of str
        May wait for the next one: see `ltstore.encode.iter_arriving`.
    model, encoder, top
        As in `predict`.

    Raises
    ------
    EncoderMismatchError
    """
    _check_encoder(model, encoder)
    found = iter_arriving(paths, encoder, batch_size=batch_size, n_workers=n_workers, progress=progress)
    for keys, batch in found:
        yield from _answers(model, keys, _scaled(model, batch.X), batch.errors, top)


def predict_stored(
    model: LinearModel,
    store: Place | Store,
    *,
    split: str = "test",
    subset: str | None = None,
    top: int = 5,
    progress: Progress = no_progress,
) -> Iterator[Prediction]:
    """Yield one Prediction per row of a split or subset, in the order of row ids, failed ones included.

    No encoder is needed: the embeddings are those of the store.

    Raises
    ------
    EncoderMismatchError
        The rows are of another encoder than the model's.
    StoreNotFoundError, IncompleteStoreError, StoreFormatError
    """
    opened = (store if isinstance(store, Store) else open_store(store)).split(split)
    rows = opened.rows(subset, normalize=model.normalized)
    check_rows(model, rows)
    rows.check()
    row_ids = np.arange(opened.n_rows) if subset is None else opened.subset(subset)
    n_read = 0
    for start in range(0, len(row_ids), BLOCK_ROWS):
        ids = row_ids[start : start + BLOCK_ROWS]
        ok = opened.status[ids] == RowStatus.OK
        X = np.zeros((len(ids), model.n_features), np.float32)
        X[ok] = rows.read(n_read, n_read + int(ok.sum()))
        n_read += int(ok.sum())
        errors: list[str | None] = [None] * len(ids)
        for row, reason in zip(np.flatnonzero(~ok), opened.errors(ids[~ok]), strict=True):
            errors[row] = reason or f"no embedding: {RowStatus(opened.status[ids[row]]).name}"
        yield from _answers(model, opened.keys(ids), X, errors, top)
        progress(len(ids), {})


def _check_encoder(model: LinearModel, encoder: Encoder) -> None:
    if encoder.identity != model.encoder:
        differences = "; ".join(model.encoder.differences(encoder.identity))
        raise EncoderMismatchError(f"the model was trained on other features (model / encoder): {differences}")


def _scaled(model: LinearModel, X: FloatArray) -> FloatArray:
    return normalize_rows(X.copy()) if model.normalized else X


def _answers(
    model: LinearModel, keys: Sequence[str], X: FloatArray, errors: Sequence[str | None], top: int
) -> Iterator[Prediction]:
    """Yield what the model says of rows as it wants them; a row with an error has no answer."""
    probabilities = model.predict_proba(X)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for row, (key, error) in enumerate(zip(keys, errors, strict=True)):
        chosen = best[row] if error is None else best[row][:0]
        yield Prediction(
            key=key,
            classes=tuple(model.class_names[c] for c in chosen),
            probabilities=tuple(float(probabilities[row, c]) for c in chosen),
            error=error,
        )
