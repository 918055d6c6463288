"""Engines of every kind, and work for them whose functions can travel to other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from ltstore.engine import Engine, LocalEngine, RayEngine
from ltstore.errors import DataError
from ltstore.rows import ArrayRows

KINDS = ("threads", "processes", "ray")


def need(kind: str) -> None:
    """Skip where an engine cannot run."""
    if kind == "ray" and find_spec("ray") is None:
        pytest.skip('ray is not installed: pip install "ltstore[ray]"')


@contextmanager
def engine_of(kind: str, n_workers: int) -> Iterator[Engine]:
    """An engine; a Ray cluster of this machine is started by the first and stays (`ray_cluster`)."""
    need(kind)
    engine = RayEngine("local", n_workers, {"CPU": 0.1}) if kind == "ray" else LocalEngine(n_workers, kind)
    with engine:
        yield engine


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A Ray cluster for many engines, which find it running and leave it so."""
    need("ray")
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers see what is installed, not what pytest puts in its path.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]))
        with RayEngine("local", 2):
            yield


class Unreadable:
    """Can be sent, and not be read."""

    def __reduce__(self):
        return refuse, (["those that were sent"],)


def part_of(source: list[int], number: int, n_workers: int) -> list[int]:
    """Every n-th number, from this worker's on."""
    return source[number::n_workers]


def product_sum(state: list[int], factor: int) -> int:
    return factor * sum(state)


def remember(state: list[int], value: int) -> int:
    """Keep a value; returns how many there are."""
    state.append(value)
    return len(state)


def directory(_: object) -> str:
    return str(Path.cwd())


def visible_gpus(_: object) -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def process_id(_: object) -> int:
    return os.getpid()


def die_if_first(state: list[int], marker: str) -> int:
    """End the process of the worker that holds number 1, the first time."""
    if 1 in state and not Path(marker).exists():
        Path(marker).touch()
        os._exit(7)
    return sum(state)


def die_at(state: list[int], item: tuple[int, str]) -> tuple[int, int]:
    """End the worker's process at number 3, the first time; returns the number and the process."""
    number, marker = item
    if number == 3 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def refuse_at(state: list[int], item: int) -> int:
    """Refuse number 3, and remember the others."""
    if item == 3:
        raise DataError("number 3 is refused")
    state.append(item)
    return item


def wait_for(state: list[int], item: tuple[int, Path]) -> int:
    """Number 0 ends when number 4 has: whoever is free goes on."""
    number, marker = item
    deadline = time.monotonic() + 60
    while number == 0 and not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == 4:
        marker.touch()
    return number


def die(state: list[int]) -> None:
    """End the process of the worker that holds number 1."""
    if 1 in state:
        os._exit(7)


def refuse(state: list[int]) -> None:
    raise DataError(f"numbers {state} are refused")


def n_blas_threads(_: object) -> int:
    from threadpoolctl import threadpool_info

    return max(int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")


class DyingRows(ArrayRows):
    """Rows whose `at`-th read in another process ends it, once."""

    _marker, _at, _home, _reads = "", 0, 0, 0

    def arm(self, marker: Path, at: int) -> DyingRows:
        """Name the file that says it has happened."""
        self._marker, self._at, self._home = str(marker), at, os.getpid()
        return self

    def read(self, start, stop, out=None):
        if self._home not in (0, os.getpid()):
            self._reads += 1
            if self._reads >= self._at:
                with suppress(FileExistsError), Path(self._marker).open("x"):
                    os._exit(9)
        return super().read(start, stop, out)
