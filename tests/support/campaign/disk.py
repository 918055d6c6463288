"""A file system that fails: EIO, ENOSPC, EDQUOT, EROFS, short writes, syncs that fail; once, or from then on."""

from __future__ import annotations

import errno
from functools import partial

from support.campaign.process import NAME, OPEN, READ, SHORT, SYNC, WRITE, arm
from support.campaign.trial import Round, disturbed

FAULTS = {
    "no space": (OPEN | WRITE | NAME, errno.ENOSPC),
    "over quota": (WRITE, errno.EDQUOT),
    "write error": (WRITE, errno.EIO),
    "sync error": (SYNC, errno.EIO),
    "rename error": (NAME, errno.EIO),
    "read-only": (OPEN | NAME, errno.EROFS),
    "short writes": (WRITE, SHORT),
    "read error": (READ, errno.EIO),
}


def run(round_: Round) -> None:
    """Let calls of a command fail, then let it end on a sound disk."""
    command = round_.draw()
    whole = round_.shop.whole(command)
    fault = round_.rng.choice(list(FAULTS))
    kinds, action = FAULTS[fault]
    first = round_.rng.randrange(max(whole.calls, 8))
    times = round_.rng.choice([1, 1, 3, 1 << 40])
    label = f"{fault} at call {first}, {'for good' if times > 3 else f'{times} times'}"
    disturbed(
        round_,
        command,
        whole,
        [(label, None, partial(arm, round_.shop.directory, kinds, action, first, times))],
        may_die=(),
    )
