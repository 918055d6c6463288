"""How many CPU cores this process may use, and how many threads it starts."""

from __future__ import annotations

import os

from ltstore.errors import ConfigError


def available_cores() -> int:
    """Return the cores this process may run on: the affinity mask where there is one, not all the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_n_workers(n_workers: int | str) -> int:
    """Turn "auto" into the number of cores of this process; ConfigError where it is no positive integer."""
    if n_workers == "auto":
        return available_cores()
    if not isinstance(n_workers, int) or isinstance(n_workers, bool) or n_workers < 1:
        raise ConfigError(f'n_workers must be a positive integer or "auto", found {n_workers!r}')
    return n_workers
