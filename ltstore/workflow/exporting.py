"""Write a head, or an encoder and a head, for programs that know nothing of ltstore."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ltstore.atomic import atomic_file, write_bytes
from ltstore.encode.onnx_graph import EMBEDDINGS, joined, onnx_package
from ltstore.errors import BackendUnavailableError, ConfigError, EncoderMismatchError, StoreExistsError
from ltstore.linear import LinearModel
from ltstore.linear.export import LOGITS, PROBABILITIES, metadata, to_onnx, to_safetensors, to_sklearn
from ltstore.rows import normalize_rows
from ltstore.types import Encoder, FloatArray

FORMATS = ("safetensors", "sklearn", "onnx")
TOLERANCE = 1e-3
"""How far a graph may be from our own answers: |found - ours| / |ours| over all checked logits, and probabilities."""
_CHECKED_ROWS, _CHECKED_IMAGES = 64, 4


@dataclass(frozen=True, kw_only=True)
class ModelExport:
    """What was written.

    Attributes
    ----------
    out, format : str
    takes : str
        What the file is to be given: "embeddings" or "pixels".
    shape : tuple of int
        Of one input.
    n_classes : int
    normalize : bool
        Whether rows are scaled to unit norm before the head: in the file, or by who reads a safetensors file.
    n_bytes : int
    difference : float or None
        Of an ONNX file, how far it was from our own answers when it was checked: see `TOLERANCE`.
    """

    out: str
    format: str
    takes: str
    shape: tuple[int, ...]
    n_classes: int
    normalize: bool
    n_bytes: int
    difference: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def export_model(
    model: LinearModel,
    out: Path | str,
    *,
    format: str,  # noqa: A002 - the word on the command line
    encoder: Encoder | None = None,
) -> ModelExport:
    """Write a model as one new file that needs no ltstore.

    Parameters
    ----------
    model : LinearModel
    out : path
    format : str
        "safetensors" (arrays, and in the header the class names, encoder and preprocessing), "sklearn" (a fitted
        LogisticRegression as joblib writes it; it is a pickle, which runs code when it is loaded, and nothing here
        reads one) or "onnx".
    encoder : Encoder, optional
        "onnx" only: its network comes before the head, so that the file takes images. Of the model's identity.

    Raises
    ------
    ConfigError
        Unknown format, an encoder with another than onnx, or one that cannot be put into a file.
    EncoderMismatchError
        The encoder is not the model's.
    StoreExistsError
        Something is at `out`.
    BackendUnavailableError
        A package is missing, or onnxruntime does not compute what the model does: nothing is kept then.

    Notes
    -----
    An ONNX file is run by onnxruntime and compared with our own answers before it gets its name.
    """
    if format not in FORMATS:
        raise ConfigError(f"a model is exported as {', '.join(FORMATS)}, found {format!r}")
    if encoder is not None and format != "onnx":
        raise ConfigError(f"an encoder is exported with its head as onnx only, found {format}")
    if encoder is not None and encoder.identity != model.encoder:
        differences = "; ".join(model.encoder.differences(encoder.identity))
        raise EncoderMismatchError(f"the model was trained on other features (model / encoder): {differences}")
    target = Path(out).absolute()
    if target.exists():
        raise StoreExistsError(f"{out} is there already: choose another name")
    takes, difference = EMBEDDINGS, None
    shape: tuple[int, ...] = (model.n_features,)
    if format == "safetensors":
        write_bytes(target, to_safetensors(model), exclusive=True)
    elif format == "sklearn":
        import joblib

        estimator = to_sklearn(model)
        with atomic_file(target, exclusive=True) as handle:
            joblib.dump(estimator, handle)
    else:
        data, takes, shape, difference = _checked(model, encoder)
        write_bytes(target, data, exclusive=True)
    return ModelExport(
        out=str(out),
        format=format,
        takes=takes,
        shape=shape,
        n_classes=model.n_classes,
        normalize=model.normalized,
        n_bytes=target.stat().st_size,
        difference=difference,
    )


def _checked(model: LinearModel, encoder: Encoder | None) -> tuple[bytes, str, tuple[int, ...], float]:
    """Return an ONNX file that was seen to work, what it takes, the shape of one input, and the difference."""
    graph = to_onnx(model) if encoder is None else _with_encoder(model, encoder)
    onnx_package().helper.set_model_props(graph, metadata(model))
    graph.producer_name, graph.producer_version = "ltstore", metadata(model)["ltstore"]
    data: bytes = graph.SerializeToString()
    entry = graph.graph.input[0]
    fixed, *sides = (size.dim_value for size in entry.type.tensor_type.shape.dim)
    shape, rng = tuple(map(int, sides)), np.random.default_rng(0)
    inputs: Any
    if encoder is None:
        inputs = rng.standard_normal((_CHECKED_ROWS, *shape)).astype(np.float32)
        inputs[0] = 0  # nothing to divide by its norm
        X = inputs.copy()
    else:
        inputs = rng.integers(0, 256, (fixed or _CHECKED_IMAGES, *shape), np.uint8)
        X = encoder.encode(inputs.reshape(len(inputs), *encoder.preprocess(Image.new("RGB", (8, 8))).shape))
    if model.normalized:
        X = normalize_rows(np.array(X))
    found = _run(data, {entry.name: inputs})
    difference = max(
        float(np.linalg.norm(theirs - ours) / max(float(np.linalg.norm(ours)), 1e-30))
        for theirs, ours in zip(found, (model.decision_function(X), model.predict_proba(X)), strict=True)
    )
    if not difference <= TOLERANCE:
        raise BackendUnavailableError(
            f"onnxruntime gives other logits and probabilities than the model, off by {difference:.2g} of their size "
            f"where {TOLERANCE:g} is allowed: nothing was written"
        )
    return data, entry.name, shape, difference


def _with_encoder(model: LinearModel, encoder: Encoder) -> Any:
    write = getattr(encoder, "to_onnx", None)
    if write is None:
        raise ConfigError(f"encoder {encoder.spec} cannot be written as ONNX: export the head alone")
    network = write()
    return joined(network, to_onnx(model, like=network), [(EMBEDDINGS, EMBEDDINGS)])


def _run(data: bytes, inputs: dict[str, Any]) -> list[FloatArray]:
    try:
        import onnxruntime
    except ImportError as err:
        raise BackendUnavailableError(
            "an ONNX file is checked by onnxruntime before it is kept: pip install 'ltstore[onnx]'"
        ) from err
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: the library does not print
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        found: list[FloatArray] = session.run([LOGITS, PROBABILITIES], inputs)
    except Exception as err:  # onnxruntime's exceptions share no base class
        raise BackendUnavailableError(
            f"onnxruntime cannot run what was made ({str(err).splitlines()[0][:200]}): nothing was written"
        ) from err
    return found
