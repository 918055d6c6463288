"""A head for programs that know nothing of ltstore: safetensors, scikit-learn, ONNX.

Whatever a head was trained by, it is softmax(W x + b) of rows that are normalised or not (`LinearModel`), and so is
what is written here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ltstore import __version__
from ltstore.encode.onnx_graph import EMBEDDINGS, Step, Value, chain
from ltstore.errors import DataError
from ltstore.linear.model import LinearModel

LOGITS, PROBABILITIES = "logits", "probabilities"
"""The outputs of a head's graph, both (n, C) float32; its input is `EMBEDDINGS`."""


def metadata(model: LinearModel) -> dict[str, str]:
    """Return what a file says of the head beside its numbers; values that are no text are JSON.

    "class_names" (a list), "normalize" (whether rows must be scaled to unit norm), "encoder" (an `EncoderIdentity`,
    with the preprocessing) and "ltstore" (a version). Nothing of the machine or the files that the head was trained on.
    """
    return {
        "class_names": json.dumps(model.class_names),
        "normalize": json.dumps(model.normalized),
        "encoder": json.dumps(model.encoder.to_json()),
        "ltstore": __version__,
    }


def to_safetensors(model: LinearModel) -> bytes:
    """Return a safetensors file with "weight" (C, D) and "bias" (C,), float32, and `metadata` in its header."""
    from safetensors.numpy import save

    arrays = {"weight": model.weight, "bias": model.bias}
    data: bytes = save({name: np.ascontiguousarray(each) for name, each in arrays.items()}, metadata(model))
    return data


def to_sklearn(model: LinearModel) -> Any:
    """Return a fitted scikit-learn ``Pipeline``: a Normalizer where rows must be normalised, and LogisticRegression.

    It takes embeddings as the encoder gives them, and answers with class names.

    Raises
    ------
    DataError
        The model has one class, which scikit-learn's does not allow.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    if model.n_classes < 2:
        raise DataError("a LogisticRegression has two classes or more, and this model has one")
    head = LogisticRegression()
    head.classes_ = np.array(model.class_names)
    head.n_features_in_ = model.n_features
    head.n_iter_ = np.zeros(1, np.int32)
    if model.n_classes == 2:  # one row: the second class against the first
        head.coef_, head.intercept_ = np.diff(model.weight, axis=0), np.diff(model.bias)
    else:
        head.coef_, head.intercept_ = model.weight.copy(), model.bias.copy()
    return make_pipeline(*([Normalizer().fit(model.weight)] if model.normalized else []), head)


def to_onnx(model: LinearModel, *, like: Any = None) -> Any:
    """Return an ``onnx.ModelProto``: embeddings (n, D) as the encoder gives them -> logits and probabilities (n, C).

    Rows are normalised in it where the head wants that.

    Parameters
    ----------
    model : LinearModel
    like : ModelProto, optional
        As in `ltstore.encode.onnx_graph.chain`.

    Raises
    ------
    BackendUnavailableError
        onnx is not installed.
    """
    normalize = [Step("LpNormalization", settings={"axis": 1, "p": 2})] if model.normalized else []
    return chain(
        [
            *normalize,
            Step("Gemm", {"weight": model.weight, "bias": model.bias}, {"transB": 1}, gives=LOGITS),
            Step("Softmax", settings={"axis": 1}),
        ],
        takes=Value(EMBEDDINGS, "FLOAT", ["n", model.n_features]),
        gives=[Value(name, "FLOAT", ["n", model.n_classes]) for name in (LOGITS, PROBABILITIES)],
        like=like,
    )
