"""Too little memory: a limit on the address space (an allocation fails), or a control group (the kernel kills)."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.campaign.process import KILLED
from support.campaign.trial import Round, disturbed

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMITS = {V1: ("memory.limit_in_bytes", "tasks"), V2: ("memory.max", "cgroup.procs")}
# C++ libraries end the process where they cannot allocate
DEATHS = (KILLED, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)


def run(round_: Round) -> None:
    """Run a command with a limit, then without one."""
    command = round_.draw()
    whole = round_.shop.whole(command)
    if round_.rng.random() < 0.5:
        n_bytes = int(2 ** round_.rng.uniform(21, 28.5))
        with _group(round_, n_bytes) as joined:
            if joined is not None:
                round_.counts["rounds in a control group"] += 1
                label = f"a control group of {n_bytes >> 20} MiB"
                disturbed(round_, command, whole, [(label, None, lambda: joined.write_text(str(os.getpid())))])
                return
    n_bytes = int(2 ** round_.rng.uniform(25, 30))  # a command refuses to begin with less than some hundred MiB

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + n_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    round_.counts["rounds with a limit on addresses"] += 1
    disturbed(round_, command, whole, [(f"{n_bytes >> 20} MiB more of addresses", None, limit)], may_die=DEATHS)


@contextmanager
def _group(round_: Round, n_bytes: int) -> Iterator[Path | None]:
    """Make a control group with a limit; give the file that a process writes its number to, None where not allowed."""
    for root, (limit, members) in LIMITS.items():
        group = root / f"ltstore-{os.getpid()}-{round_.number}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(n_bytes))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group / members
        finally:
            group.rmdir()
        return
    yield None
