"""Workers that are killed while they start, before they have read what they are sent."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ltstore.engine import LocalEngine

SOURCE_BYTES = 4 << 20  # more than a pipe holds
ENOUGH_SECONDS = 60


def length_of(source: bytes, number: int, n_workers: int) -> int:
    return len(source)


def kept(state: int) -> int:
    return state


def spawned() -> list[int]:
    """The workers that this process has started and that have not ended."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                with suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the process table of Linux")
def test_a_worker_that_dies_before_it_has_read_its_source_is_replaced() -> None:
    results: list[list[int]] = []
    restarts: list[int] = []

    def work() -> None:
        with LocalEngine(1, "processes") as engine, engine.start(length_of, bytes(SOURCE_BYTES)) as crew:
            results.append(crew.run(kept))
            restarts.append(crew.restarts)

    before = set(spawned())
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not (new := set(spawned()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(new.pop(), signal.SIGKILL)
    thread.join(ENOUGH_SECONDS)
    assert not thread.is_alive()
    assert results == [[SOURCE_BYTES]]
    assert restarts == [1]
