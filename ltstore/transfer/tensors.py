"""safetensors files: named tensors, read by slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.transfer.parts import Part

DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "U16": "<u2",
    "U32": "<u4",
}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except (SafetensorError, OSError) as err:
        raise SourceError(f"{path} is not a safetensors file that can be read: {err}") from err


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file; `dtype` None where NumPy has no such type."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The NumPy dtype."""
        return np.dtype(DTYPES[self.kind]) if self.kind in DTYPES else None

    def part(self) -> Part:
        """Return it as embeddings."""
        if self.dtype is None:
            raise SourceError(f"{self.path} [{self.name}] is {self.kind}: save it as F16 or F32")
        return _TensorPart(self.path, self.name, self.shape, self.dtype)

    def array(self) -> NDArray[Any]:
        """Return a small tensor (labels) whole."""
        if self.dtype is None:
            raise SourceError(f"{self.path} [{self.name}] is {self.kind}: save it as I64")
        with _open(self.path) as file:
            return np.asarray(file.get_tensor(self.name))


class _TensorPart(Part):
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) as a new array."""
        with _open(self.path) as file:
            return np.asarray(file.get_slice(self.array)[start:stop])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without reading their data."""
    with _open(path) as file:
        found = {}
        for name in file.keys():  # noqa: SIM118 - not a mapping
            piece = file.get_slice(name)
            found[name] = Tensor(path, name, tuple(piece.get_shape()), str(piece.get_dtype()))
    if not found:
        raise SourceError(f"{path} has no tensors")
    return found
