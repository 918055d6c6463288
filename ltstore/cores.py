"""How many CPU cores this process may use, and how many threads it starts; which GPUs; how much memory there is."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path

from ltstore.errors import ConfigError

_LIBRARY_BYTES = 96 << 20  # addresses of NumPy or SciPy, loaded, each with an OpenBLAS of its own
_MOST_THREADS = 64  # of OpenBLAS in the wheels of NumPy and SciPy
_THREAD_BYTES = 40 << 20  # of a thread of OpenBLAS: a buffer, and its stack


def available_cores() -> int:
    """Return the cores this process may run on: the affinity mask where there is one, not all the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def cpu_flags() -> frozenset[str]:
    """Return what the processor can do, by the names of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def reserve_addresses() -> None:
    """Where the addresses of this process are limited (RLIMIT_AS), let linear algebra take its buffers now.

    OpenBLAS asks for a thread's buffer when that first computes, and where the system gives none, some versions ask
    again without end. So room is asked for first, in a way that can fail. Nothing is done where there is no limit.

    Raises
    ------
    MemoryError
        The limit leaves too little room.
    """
    if sys.platform == "win32":
        return
    import mmap
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    said = (os.environ.get(f"{name}_NUM_THREADS", "") for name in ("OPENBLAS", "GOTO", "OMP"))
    n_threads = next((int(n) for n in said if n.isdecimal() and int(n)), min(available_cores(), _MOST_THREADS))
    n_bytes = 2 * (_LIBRARY_BYTES + (n_threads + 1) * _THREAD_BYTES)
    try:
        mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as err:
        raise MemoryError(
            f"addresses are limited to {limit >> 20} MiB (ulimit -v), and NumPy and SciPy with {n_threads} threads "
            f"need {n_bytes >> 20} MiB more than are in use: OPENBLAS_NUM_THREADS=1 needs fewest"
        ) from err
    import numpy as np
    from scipy.linalg.blas import dgemm

    square = np.ones((512, 512))  # large enough for all threads
    dgemm(1.0, square, square @ square)


def available_gpus() -> list[str]:
    """Return the NVIDIA GPUs this process may use, as CUDA_VISIBLE_DEVICES names them where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for word in visible.split(",") if (name := word.strip()) and name != "-1"]
    numbers = [entry.name.removeprefix("nvidia") for entry in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(filter(str.isdigit, numbers), key=int)


def resolve_n_workers(n_workers: int | str) -> int:
    """Turn "auto" into the number of cores of this process; ConfigError where it is no positive integer."""
    return available_cores() if n_workers == "auto" else check_positive(n_workers, "n_workers")


def check_positive(value: int | str, name: str) -> int:
    """Return a number that could have been "auto"; ConfigError where it is no positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f'{name} must be a positive integer or "auto", found {value!r}')
    return value
