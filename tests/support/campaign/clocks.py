"""Clocks that are wrong and that jump, files of the past and the future (leases: `objects`)."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

from support.campaign.kills import kill_after
from support.campaign.trial import Round, disturbed

JUMPS = (-4000 * 86400, -86400, -3600, -5, 5, 3600, 86400, 4000 * 86400)


def run(round_: Round) -> None:
    """Kill a command, and run it again at another time, on files of any time."""
    rng = round_.rng
    command = round_.draw()
    whole = round_.shop.whole(command)
    for path in round_.shop.directory.rglob("*"):
        moment = time.time() + rng.choice(JUMPS)
        os.utime(path, (moment, moment))
    disturbances = []
    for _ in range(rng.randint(1, 2)):
        jumps = [rng.choice(JUMPS) for _ in range(rng.randint(1, 3))]
        seconds = rng.uniform(0.1, 1.3) * whole.seconds
        label = f"clock off by {jumps} s, killed after {seconds:.3f} s"
        disturbances.append((label, partial(kill_after, seconds), partial(wrong_clock, jumps)))
    disturbed(round_, command, whole, disturbances)


def wrong_clock(jumps: list[float]) -> None:
    """From now on this process's clock is off: each time it is read by the next of these, and so on in a circle."""
    import ltstore.provenance
    import ltstore.storage.lease
    import ltstore.storage.lock

    real, reads = time.time, [0]

    def off() -> float:
        reads[0] += 1
        return jumps[reads[0] % len(jumps)]

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = UTC) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=off())

    time.time = lambda: real() + off()
    for module in (ltstore.provenance, ltstore.storage.lease, ltstore.storage.lock):
        module.datetime = Wrong  # type: ignore[attr-defined]
