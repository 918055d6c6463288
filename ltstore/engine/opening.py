"""From words to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ltstore.engine.crew import Engine
from ltstore.engine.local import LocalEngine
from ltstore.engine.ray_cluster import RayEngine
from ltstore.errors import ConfigError

ENGINES = ("local", "processes", "ray")


@contextmanager
def open_engine(
    name: str, n_workers: int | str = "auto", *, address: str | None = None, use_gpus: bool = False
) -> Iterator[Engine | None]:
    """Open an engine by its name, for the time of a `with` statement.

    Parameters
    ----------
    name : {"local", "processes", "ray"}
        "local" is no engine: what is asked to use it works in this process, with threads of its own.
    n_workers : int or "auto"
    address : str, optional
        Of the Ray cluster, as in `RayEngine`; default "auto".
    use_gpus : bool
        Give each worker a GPU where there are any.

    Raises
    ------
    ConfigError
        Another name, or an address where there is no cluster.
    BackendUnavailableError
        ray is not installed, or no cluster answers.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, found {name!r}")
    if address is not None and name != "ray":
        raise ConfigError(f"an address is that of a Ray cluster, and the engine is {name}: name engine ray")
    if name == "local":
        yield None
    elif name == "processes":
        with LocalEngine(n_workers, "processes", use_gpus=use_gpus) as engine:
            yield engine
    else:
        with RayEngine(address or "auto", n_workers, use_gpus=use_gpus) as cluster:
            yield cluster
