"""Label new images with a trained model, through the encoder its rows were made with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltstore.encode import iter_encoded
from ltstore.errors import EncoderMismatchError
from ltstore.linear import LinearModel
from ltstore.rows import normalize_rows
from ltstore.types import Encoder, ImageSource, Progress, RowStatus, no_progress


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
    if encoder.identity != model.encoder:
        differences = "; ".join(model.encoder.differences(encoder.identity))
        raise EncoderMismatchError(f"the model was trained on other features (model / encoder): {differences}")
    top = min(top, len(model.class_names))
    for batch in iter_encoded(source, encoder, batch_size=batch_size, n_workers=n_workers, progress=progress):
        X = normalize_rows(batch.X.copy()) if model.normalized else batch.X
        probabilities = model.predict_proba(X)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        for row in range(len(X)):
            ok = batch.status[row] == RowStatus.OK
            chosen = best[row] if ok else best[row][:0]
            yield Prediction(
                key=source.key(batch.start + row),
                classes=tuple(model.class_names[c] for c in chosen),
                probabilities=tuple(float(probabilities[row, c]) for c in chosen),
                error=batch.errors[row],
            )
