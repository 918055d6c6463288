"""SIGKILL at a random moment of a command, or at a random one of its calls that change the disk."""

from __future__ import annotations

import time
from functools import partial

from support.campaign.process import KILL, NAME, OPEN, SYNC, WRITE, Running, arm, has_faults
from support.campaign.trial import Round, disturbed


def run(round_: Round) -> None:
    """Kill a command one to three times, then let it end."""
    command = round_.draw()
    whole = round_.shop.whole(command)
    disturbances = []
    for _ in range(round_.rng.choice([1, 1, 2, 3])):
        if has_faults() and whole.calls and round_.rng.random() < 0.6:
            number = round_.rng.randrange(whole.calls)
            inside = partial(arm, round_.shop.directory, OPEN | WRITE | SYNC | NAME, KILL, number)
            disturbances.append((f"killed at call {number}", None, inside))
        else:
            seconds = round_.rng.uniform(0, 1.05) * whole.seconds
            disturbances.append((f"killed after {seconds:.3f} s", partial(kill_after, seconds), lambda: None))
    disturbed(round_, command, whole, disturbances)


def kill_after(seconds: float, running: Running) -> None:
    """Kill a command that has run so long."""
    time.sleep(seconds)
    running.kill()
