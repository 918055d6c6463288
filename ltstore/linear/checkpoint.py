"""A training run put away in the middle, and taken up again so that it ends in the same bits.

A directory with checkpoint.json, which says what is trained and names the file of the arrays, and that file. Heads that
share their passes are one run, each with a state of its own. The arrays are there before the record names them, so
whoever dies at any moment leaves the last whole checkpoint.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltstore.atomic import TEMPORARY_SUFFIX, encode_json, remove_directory, write_bytes, write_json
from ltstore.errors import ConfigError, ModelFormatError, PlanMismatchError, StoreExistsError
from ltstore.linear.progress import PassRecord
from ltstore.linear.reading import check_seal, digest, read_arrays, read_header
from ltstore.provenance import seal_holds, sealed, versions
from ltstore.types import DoubleArray

FORMAT_VERSION = 2
_HEADER = "checkpoint.json"
_ARRAYS = re.compile(r"state-[0-9a-f]{16}\.safetensors")
_REMEDY = "remove the directory to begin anew"


Shapes = Sequence[tuple[str, tuple[int, ...]]]


class State(NamedTuple):
    """Where a head stands: float64 arrays and JSON values, "passes" among them."""

    arrays: dict[str, DoubleArray]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Where and how often a run is put away; validated when made.

    Attributes
    ----------
    directory : path
        Only for checkpoints: nothing else may be in it. What lies there of the same run is taken up.
    every_passes : int
        Save when so many passes have been made since the last time, at least 1 ...
    every_seconds : float
        ... or so many seconds have gone by, at least 0.
    """

    directory: Path | str
    every_passes: int = 10
    every_seconds: float = 60.0

    def __post_init__(self) -> None:
        if (
            isinstance(self.every_passes, bool)
            or not isinstance(self.every_passes, int)
            or self.every_passes < 1
        ):
            raise ConfigError(f"every_passes must be an integer of at least 1, found {self.every_passes!r}")
        if not (np.isfinite(self.every_seconds) and self.every_seconds >= 0):
            raise ConfigError(
                f"every_seconds must be a finite number of at least 0, found {self.every_seconds!r}"
            )


@dataclass
class Checkpoint:
    """The checkpoint of one run.

    Parameters
    ----------
    how : Checkpointing
    identity : mapping
        All that decides how the run goes, as JSON values: a checkpoint of anything else is refused.
    passes : int
        Behind the last state that was saved or loaded.

    Raises
    ------
    StoreExistsError
        Something else than a checkpoint lies in the directory.
    """

    how: Checkpointing
    identity: Mapping[str, Any]
    passes: int = 0
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.path = Path(self.how.directory).absolute()
        check_directory(self.path)

    def load(self, shapes: Sequence[Shapes]) -> list[State] | None:
        """Return the state of each head to go on from, None where there is none yet.

        Parameters
        ----------
        shapes : sequence of K sequences of (name, shape)
            Of arrays that must be there; -1 stands for any length. All must be finite float64.

        Raises
        ------
        PlanMismatchError
            It is of another run; names what differs.
        ModelFormatError
            It is damaged.
        """
        header_path = self.path / _HEADER
        if not header_path.exists():
            return None
        header = read_header(header_path, FORMAT_VERSION, _REMEDY)
        own = plain(self.identity)
        found = header.get("identity")
        if found != own:
            if not seal_holds(header):
                raise ModelFormatError(f"{header_path} has changed since it was written: {_REMEDY}")
            raise PlanMismatchError(
                f"the checkpoint in {self.path} is of another training ({_differences(found, own)} differ): give the "
                "settings and rows of that one, another directory, or remove it"
            )
        name, facts = header.get("arrays"), _facts(header.get("facts"), len(shapes))
        if not isinstance(name, str) or not _ARRAYS.fullmatch(name) or facts is None:
            raise ModelFormatError(f"{header_path} is damaged: {_REMEDY}")
        arrays_path = self.path / name
        arrays = read_arrays(arrays_path, _REMEDY)
        check_seal(header_path, header, arrays_path, _REMEDY)
        states = []
        for head, wanted in enumerate(shapes):
            of_head = {}
            for key, shape in wanted:
                array = arrays.get(_key(head, key))
                if array is None or not _fits(array, shape):
                    raise ModelFormatError(f"{arrays_path} does not hold {key} of this training: {_REMEDY}")
                of_head[key] = array
            states.append(State(of_head, facts[head]))
        self.passes = max(map(n_passes, states))
        return states

    def due(self, passes: int) -> bool:
        """Return whether to save after so many passes: unless the last time was only a moment ago."""
        made = passes - self.passes
        late = time.monotonic() - self._saved >= self.how.every_seconds
        return made >= self.how.every_passes or (made > 0 and late)

    def save(self, states: Sequence[State]) -> None:
        """Save: arrays first, then the record that names them; older arrays are removed last.

        Raises
        ------
        StoreWriteError
            The directory cannot be written.
        """
        from safetensors.numpy import save

        arrays = {
            _key(head, key): np.ascontiguousarray(array)
            for head, state in enumerate(states)
            for key, array in state.arrays.items()
        }
        data = save(arrays)
        arrays_digest = digest(data)
        name = f"state-{arrays_digest[-16:]}.safetensors"
        write_bytes(self.path / name, data)
        header = {
            "format_version": FORMAT_VERSION,
            "identity": plain(self.identity),
            "facts": [state.facts for state in states],
            "arrays": name,
            "arrays_digest": arrays_digest,
            "versions": versions(),
        }
        write_json(self.path / _HEADER, sealed(header))
        for old in self.path.iterdir():
            if _ARRAYS.fullmatch(old.name) and old.name != name:
                old.unlink(missing_ok=True)
        self.passes, self._saved = max(map(n_passes, states)), time.monotonic()


def remove_checkpoint(how: Checkpointing) -> None:
    """Remove the directory: the run has ended and its model is written."""
    path = Path(how.directory).absolute()
    check_directory(path)
    remove_directory(path)


def check_directory(path: Path) -> None:
    """Raise StoreExistsError unless there is nothing at `path`, or a directory of checkpoints alone."""
    if not path.exists():
        return
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    for name in sorted(names):
        if name != _HEADER and not _ARRAYS.fullmatch(name) and not name.endswith(TEMPORARY_SUFFIX):
            raise StoreExistsError(
                f"{path} holds other things than a checkpoint ({name}, ...): choose another directory"
            )


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come out of JSON."""
    found: dict[str, Any] = json.loads(encode_json(dict(values)))
    return found


def n_passes(state: State) -> int:
    """Return how many passes a state has behind it."""
    passes = state.facts.get("passes")
    if not isinstance(passes, list) or not passes:
        raise ModelFormatError(f"a checkpoint must say which passes were made: {_REMEDY}")
    return len(passes)


def number(facts: Mapping[str, Any], key: str) -> float:
    """Return a finite number of a state."""
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ModelFormatError(f"{key} of the checkpoint must be a finite number, found {value!r}: {_REMEDY}")
    return float(value)


def numbers(facts: Mapping[str, Any], key: str, length: int) -> list[float]:
    """Return a list of finite numbers of a state."""
    values = facts.get(key)
    if not isinstance(values, list) or len(values) != length:
        raise ModelFormatError(f"{key} of the checkpoint must be {length} numbers: {_REMEDY}")
    return [number({key: value}, key) for value in values]


def records(state: State) -> list[PassRecord]:
    """Return the passes of a state."""
    n_passes(state)
    try:
        return [PassRecord.from_json(one) for one in state.facts["passes"]]
    except (TypeError, ValueError) as err:
        raise ModelFormatError(f"the passes of the checkpoint are damaged ({err}): {_REMEDY}") from err


def _differences(found: Any, own: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "everything"
    names = []
    for key in sorted({*found, *own}):
        theirs, mine = found.get(key), own.get(key)
        if theirs == mine:
            continue
        if isinstance(theirs, dict) and isinstance(mine, dict):
            names += [f"{key}.{k}" for k in sorted({*theirs, *mine}) if theirs.get(k) != mine.get(k)]
        else:
            names.append(key)
    return ", ".join(names)


def _facts(found: Any, n_heads: int) -> list[dict[str, Any]] | None:
    """Return the facts of every head, None where they are something else."""
    if not isinstance(found, list) or len(found) != n_heads or not all(isinstance(one, dict) for one in found):
        return None
    return found


def _key(head: int, key: str) -> str:
    """Return the name in the file of an array of head number `head`."""
    return f"{head}.{key}"


def _fits(array: NDArray[Any], shape: tuple[int, ...]) -> bool:
    if array.dtype != np.float64 or array.ndim != len(shape):
        return False
    lengths = zip(array.shape, shape, strict=True)
    return all(wanted in (-1, length) for length, wanted in lengths) and bool(np.isfinite(array).all())
