"""How many CPU cores this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the cores this process may run on: the affinity mask where there is one, not all the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
