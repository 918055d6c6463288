"""Workers in other processes, and on a Ray cluster, that are killed; and their driver."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from support.campaign.kills import kill_after
from support.campaign.process import Running
from support.campaign.trial import Round, disturbed
from support.campaign.workshop import LT, Command

PROCESSES = "--engine processes --workers 2"
RAY = "--engine ray --address local --workers 2"


def _commands(engine: str) -> tuple[Command, ...]:
    kind = engine.split()[1]
    return (
        Command(
            name=f"ingest, {kind}", words=(*f"ingest digits new.zarr {engine}".split(),), writes=("new.zarr",)
        ),
        Command(
            name=f"import, {kind}",
            words=(*f"import vectors.npy new.zarr --labels labels.npy --model made {engine}".split(),),
            writes=("new.zarr",),
        ),
        Command(name=f"train, {kind}", words=(*f"train {LT} --out new {engine}".split(),)),
        Command(name=f"verify, {kind}", words=(*f"verify digits.zarr {engine}".split(),)),
    )


def run(round_: Round) -> None:
    """Kill one or two workers, or the driver, of a command; then let it end."""
    rng = round_.rng
    ray = find_spec("ray") is not None and round_.number % 5 == 4
    command = rng.choice(_commands(RAY if ray else PROCESSES))
    whole = round_.shop.whole(command)
    seconds = rng.uniform(0.2, 1.0) * whole.seconds
    if rng.random() < 0.7:
        times = rng.randint(1, 2)
        label = f"{times} workers killed from {seconds:.3f} s on"
        outside = partial(_kill_workers, seconds, times, random.Random(rng.random()))
    else:
        label, outside = f"driver killed after {seconds:.3f} s", partial(kill_after, seconds)
    disturbed(round_, command, whole, [(label, outside, lambda: None)])


def _kill_workers(seconds: float, times: int, rng: random.Random, running: Running) -> None:
    time.sleep(seconds)
    for _ in range(times):
        workers = [number for number in _below(running.process) if _is_worker(number)]
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
        time.sleep(0.1)


def _below(process: int) -> list[int]:
    """The processes that a process has started, and those have."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_below(child)]
    return found


def _is_worker(process: int) -> bool:
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        return b"spawn_main" in words or b"ray::" in words
    return False
