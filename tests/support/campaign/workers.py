"""Workers in other processes, and on a Ray cluster, that are killed; and their driver."""

from __future__ import annotations

import os
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


def _commands(kind: str, *where: str) -> tuple[Command, ...]:
    engine = " ".join(["--engine", kind, *where, "--workers 2"])
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
    ray = find_spec("ray") is not None and rng.random() < 0.4
    command = rng.choice(_commands("ray", "--address", "local") if ray else _commands("processes"))
    whole = round_.shop.whole(command)
    round_.counts[f"rounds of {command.name.split(', ')[1]}"] += 1
    if rng.random() < 0.7:
        times, seconds = rng.randint(1, 2), rng.uniform(0, 0.7) * whole.seconds
        label = f"{times} workers killed, {seconds:.3f} s after the first was there"
        outside = partial(_kill_workers, seconds, times, round_)
    else:
        seconds = rng.uniform(0.2, 1.0) * whole.seconds
        label, outside = f"driver killed after {seconds:.3f} s", partial(kill_after, seconds)
    disturbed(round_, command, whole, [(label, outside, lambda: None)])


def _kill_workers(seconds: float, times: int, round_: Round, running: Running) -> None:
    while not _workers(running.process) and not running.poll():
        time.sleep(0.01)
    time.sleep(seconds)
    for _ in range(times):
        workers = _workers(running.process)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(round_.rng.choice(workers), signal.SIGKILL)
                round_.counts["workers killed"] += 1
        time.sleep(0.1)


def _workers(process: int) -> list[int]:
    """The workers of an engine that a process has started, or those have that it has."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                words = Path(f"/proc/{child}/cmdline").read_bytes()
                found += [child] if b"spawn_main" in words or b"ray::_State" in words else _workers(child)
    return found
