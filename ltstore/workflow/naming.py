"""Models by the names that tables give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltstore.errors import ConfigError


def model_names(models: Sequence[Path | str]) -> dict[str, Path]:
    """Return {name: path}; the last path part, or the whole path where two would share a name."""
    paths = list(dict.fromkeys(Path(model) for model in models))
    last = [path.name for path in paths]
    return {(path.name if last.count(path.name) == 1 else str(path)): path for path in paths}


def position(model: Path | str, paths: dict[str, Path], role: str) -> int:
    """Return the position of a model among paths; ConfigError, which names its role, where it is not among them."""
    found = [i for i, path in enumerate(paths.values()) if path == Path(model)]
    found += [i for i, path in enumerate(paths.values()) if path.resolve() == Path(model).resolve()]
    if not found:
        raise ConfigError(f"the {role} {model} is not among the models: {', '.join(map(str, paths.values()))}")
    return found[0]
