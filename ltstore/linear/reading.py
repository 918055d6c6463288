"""Read what a directory of this room holds; nothing in the files is executed or believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ltstore.errors import ModelFormatError
from ltstore.provenance import seal_holds
from ltstore.storage import read_regular


def read_header(path: Path, version: int, remedy: str) -> dict[str, Any]:
    """Return the JSON object of a file.

    Parameters
    ----------
    path : Path
    version : int
        What its "format_version" must be.
    remedy : str
        What the error tells to do where the file is damaged.

    Raises
    ------
    ModelFormatError
        The file cannot be read, is no JSON object, or of another version.
    """
    try:
        header = json.loads(read_regular(path))
    except OSError as err:
        raise ModelFormatError(f"cannot read {path}: {err.strerror or err}") from err
    except (ValueError, RecursionError) as err:
        raise ModelFormatError(f"{path} is not whole JSON ({type(err).__name__}): {remedy}") from err
    if not isinstance(header, dict):
        raise ModelFormatError(f"{path} must hold a JSON object, found {type(header).__name__}")
    found = header.get("format_version")
    if found != version:
        raise ModelFormatError(
            f"{path} has format version {found!r}, this ltstore reads {version}: update ltstore"
        )
    return header


def read_arrays(path: Path, remedy: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file; ModelFormatError where it is none, or not whole."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, NDArray[Any]] = load(read_regular(path))
    except OSError as err:
        raise ModelFormatError(f"cannot read {path}: {err.strerror or err}") from err
    except (SafetensorError, KeyError, ValueError, TypeError) as err:
        raise ModelFormatError(f"{path} is not a whole safetensors file ({err}): {remedy}") from err
    return arrays


def digest(data: bytes) -> str:
    """Return what a header says of the bytes of the file with the arrays."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_seal(header_path: Path, header: Mapping[str, Any], arrays_path: Path, remedy: str) -> None:
    """Raise ModelFormatError where the header, or the arrays, have changed since they were written."""
    if not seal_holds(header):
        raise ModelFormatError(f"{header_path} has changed since it was written: {remedy}")
    if "arrays_digest" in header and header["arrays_digest"] != digest(arrays_path.read_bytes()):
        raise ModelFormatError(f"{arrays_path} has changed since it was written: {remedy}")
