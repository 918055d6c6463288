"""A trained linear head, as a directory: model.safetensors (weight, bias, class_counts) and model.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.atomic import atomic_directory, write_bytes, write_json
from ltstore.errors import DataError, ModelFormatError, ModelNotFoundError, StoreExistsError
from ltstore.linear.reading import check_seal, digest, read_arrays, read_header
from ltstore.provenance import sealed
from ltstore.types import DoubleArray, EncoderIdentity, FloatArray, IntArray

FORMAT_VERSION = 1
_ARRAYS, _HEADER = "model.safetensors", "model.json"
_REMEDY = "train the model again"


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A linear classifier and what it needs to be used with the right rows.

    Attributes
    ----------
    weight : (C, D) float32
    bias : (C,) float32
    class_names : tuple of str
        C names; a prediction is a position in it.
    encoder : EncoderIdentity
        Of the rows it was trained on; rows of another are refused.
    encoder_spec : str
        How to make the encoder again ("open_clip:ViT-B-32/openai"); "" where that is not known.
    normalized : bool
        Whether rows must have unit norm.
    class_counts : (C,) int64
        Real training rows of each class, for many/medium/few.
    record : mapping
        `ltstore.provenance.record`: settings, what it was made from, versions.

    Raises
    ------
    DataError
        Shapes do not fit together, or a number is not finite.
    """

    weight: FloatArray
    bias: FloatArray
    class_names: tuple[str, ...]
    encoder: EncoderIdentity
    encoder_spec: str
    normalized: bool
    class_counts: IntArray
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arrays(self) -> tuple[DoubleArray, DoubleArray]:
        """Weight (C, D) and bias (C,) in float64, new."""
        return self.weight.astype(np.float64), self.bias.astype(np.float64)

    def __post_init__(self) -> None:
        n_classes, n_features = len(self.class_names), self.encoder.n_features
        arrays: dict[str, tuple[NDArray[Any], tuple[int, ...], type]] = {
            "weight": (self.weight, (n_classes, n_features), np.float32),
            "bias": (self.bias, (n_classes,), np.float32),
            "class_counts": (self.class_counts, (n_classes,), np.int64),
        }
        for name, (array, shape, dtype) in arrays.items():
            if array.shape != shape or array.dtype != dtype:
                raise DataError(
                    f"{name} of a model with {n_classes} classes and {n_features} features must be {shape} of "
                    f"{np.dtype(dtype)}, found {array.shape} of {array.dtype}"
                )
            if not np.isfinite(array).all():
                raise DataError(f"{name} of the model has NaN or Inf: the model cannot be used, train it again")

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.weight.shape[1])

    def decision_function(self, X: FloatArray) -> FloatArray:
        """Return the logits X @ weight.T + bias, (n, C) float32, new.

        Raises
        ------
        DataError
            X is not (n, D), or has NaN or Inf.
        """
        matrix = np.asarray(X, np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_features:
            raise DataError(f"X must have shape (n, {self.n_features}), found {matrix.shape}")
        logits = matrix @ self.weight.T
        logits += self.bias
        if not np.isfinite(logits).all():
            bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise DataError(f"row {bad} has NaN, Inf or values too large for float32: remove or repair it")
        return logits

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return softmax(logits), (n, C) float32; rows sum to 1."""
        logits = self.decision_function(X)
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def predict(self, X: FloatArray) -> IntArray:
        """Return the (n,) int64 class of the largest logit; of equal ones the first."""
        best: IntArray = self.decision_function(X).argmax(axis=1).astype(np.int64)
        return best

    def save(self, directory: str | Path) -> None:
        """Write the model to a directory; it is there whole or not at all, and replaces a model of that name.

        Raises
        ------
        StoreExistsError
            Something else than a model is there: nothing is touched.
        StoreWriteError
            The directory cannot be written.
        """
        from safetensors.numpy import save

        target = Path(directory).absolute()
        check_replaceable(target)

        arrays = {"weight": self.weight, "bias": self.bias, "class_counts": self.class_counts}
        data = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
        header = {
            "format_version": FORMAT_VERSION,
            "arrays_digest": digest(data),
            "class_names": list(self.class_names),
            "encoder": self.encoder.to_json(),
            "encoder_spec": self.encoder_spec,
            "normalized": self.normalized,
            "record": dict(self.record),
        }
        with atomic_directory(target) as temporary:
            write_bytes(temporary / _ARRAYS, data)
            write_json(temporary / _HEADER, sealed(header))


def check_replaceable(path: Path) -> None:
    """Raise StoreExistsError unless there is nothing at `path`, an empty directory, or a model and nothing else."""
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if names - {_ARRAYS, _HEADER}:
        raise StoreExistsError(
            f"{path} holds other things than a model ({sorted(names)[0]}, ...): choose another directory"
        )


def load_model(directory: str | Path) -> LinearModel:
    """Read what `LinearModel.save` wrote. Nothing in the files is executed.

    Raises
    ------
    ModelNotFoundError
        There is no model in the directory.
    ModelFormatError
        A file is missing, truncated, not what it should be, or of a newer format version.
    """
    path = Path(directory)
    if not (path / _HEADER).is_file() and not (path / _ARRAYS).is_file():
        raise ModelNotFoundError(f"no model at {path}: expected a directory with {_HEADER} and {_ARRAYS}")
    header = read_header(path / _HEADER, FORMAT_VERSION, _REMEDY)
    arrays = read_arrays(path / _ARRAYS, _REMEDY)
    try:
        model = LinearModel(
            weight=arrays["weight"],
            bias=arrays["bias"],
            class_names=_names(header["class_names"]),
            encoder=_encoder(header["encoder"]),
            encoder_spec=_typed(header["encoder_spec"], str),
            normalized=_typed(header["normalized"], bool),
            class_counts=arrays["class_counts"],
            record=_typed(header["record"], dict),
        )
    except KeyError as err:
        raise ModelFormatError(f"{path} is damaged: {err} is missing; train the model again") from err
    except (TypeError, ValueError) as err:
        raise ModelFormatError(f"{path} is damaged: {err}") from err
    check_seal(path / _HEADER, header, path / _ARRAYS, _REMEDY)
    return model


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__} in {_HEADER}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_typed(name, str) for name in _typed(value, list))


def _encoder(value: Any) -> EncoderIdentity:
    identity = EncoderIdentity.from_json(_typed(value, dict))
    kinds = {"n_features": int, "normalized": bool, "preprocessing": dict}
    for name, found in identity.to_json().items():
        kind = kinds.get(name, str)
        if type(found) is not kind:
            raise TypeError(f"encoder.{name} must be {kind.__name__}, found {found!r} in {_HEADER}")
    return identity
