"""Run the campaign, or some kinds of it; print what was tried and what was lost."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

KINDS = {
    "kills": "SIGKILL at a moment, or at a call that changes the disk, one to three times",
    "disk": "calls that fail (EIO, ENOSPC, EDQUOT, EROFS, fsync, rename, read), short writes",
    "full": "a file system of few pages; a limit on the size of files",
    "objects": "an object store's errors, cut, lost and late answers; killed clients, jumping clocks",
    "damage": "bits, cuts, blocks, swaps, removals in every artefact, then a command that reads it",
    "races": "two commands at once: the same, or two that meet",
    "clocks": "clocks that are off and jump, files of any date, kills",
    "permissions": "read-only directories, files and directories that cannot be read",
    "workers": "workers and drivers killed: --engine processes, and ray where it is installed",
    "memory": "control groups (the kernel kills) and limits on addresses (allocations fail)",
    "writers": "kill_stress: writers of stores through the library",
    "stores": "store_fuzz: damaged stores read through the library",
}
WEIGHTS = {"workers": 3.0, "kills": 1.5, "memory": 1.5, "writers": 0.5, "stores": 0.3}
"""Shares of the time of kinds that get more or less than others."""
COLUMNS = (
    "seconds",
    "rounds",
    "killed",
    "refused clearly",
    "finished all the same",
    "resumed to the same",
    "healed",
    "LOST",
)
VERSIONS = ("numpy", "zarr", "pyarrow", "faiss-gpu", "faiss-cpu", "torch", "obstore", "ray")


def main() -> int:
    """Print the table; exit 1 where something was lost."""
    parser = argparse.ArgumentParser(description="Whole commands under every kind of fault.")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all kinds together")
    parser.add_argument("--rounds", type=int, default=1 << 30, help="at most, of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", choices=KINDS, nargs="+", default=list(KINDS), metavar="KIND", help=", ".join(KINDS)
    )
    parser.add_argument("--first", type=int, default=0, help="the first round, to repeat one")
    parser.add_argument(
        "--no-text", action="store_true", help="leave out text towers, which take seconds to make"
    )
    arguments = parser.parse_args()
    memory = Path("/dev/shm")  # every file is fsynced: a disk would be all that is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="campaign-") as scratch:
        _begin_with_faults(Path(scratch))
        return _campaign(arguments, Path(scratch))


def _begin_with_faults(scratch: Path) -> None:
    """Start this process anew with faults.c preloaded, where it can be compiled."""
    from support.campaign.process import build_faults

    if "LTSTORE_CAMPAIGN" not in os.environ:
        library = build_faults(scratch)
        if library is not None:
            os.environ["LD_PRELOAD"] = str(library)
        os.environ["LTSTORE_CAMPAIGN"] = str(scratch)
        os.execv(sys.executable, [sys.executable, "-m", "support.campaign", *sys.argv[1:]])
    os.environ.pop("LD_PRELOAD", None)  # what is started from here does without
    shutil.rmtree(os.environ.pop("LTSTORE_CAMPAIGN"), ignore_errors=True)


def _campaign(arguments: argparse.Namespace, scratch: Path) -> int:
    from support.campaign.process import has_faults, import_all
    from support.campaign.trial import Round
    from support.campaign.workshop import Workshop

    began = time.monotonic()
    import_all()
    gc.freeze()
    shop = Workshop(scratch, text=not arguments.no_text)
    shop.make()
    kinds = [kind for kind in arguments.only if kind != "disk" or has_faults()]
    found: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    while open_ := [kind for kind in kinds if found[kind]["rounds"] < arguments.rounds]:
        kind = min(
            open_, key=lambda kind: spent[kind] / WEIGHTS.get(kind, 1.0)
        )  # who has had least of its share
        if found[kind]["rounds"] and time.monotonic() - began > 60 * arguments.minutes:
            break
        start = time.monotonic()
        counts = found[kind]
        number = arguments.first + counts["rounds"]
        rng = random.Random(f"{arguments.seed}/{kind}/{number}")
        try:
            module = importlib.import_module(f"support.campaign.{kind}")
            module.run(Round(arguments.seed, kind, number, rng, shop, counts))
        except AssertionError as err:
            counts["LOST"] += 1
            print(f"FAILED: seed {arguments.seed}, {kind} round {number}: {err}", file=sys.stderr, flush=True)
        counts["rounds"] += 1
        spent[kind] += time.monotonic() - start
    for kind in kinds:
        found[kind]["seconds"] = round(spent[kind])
    _print(found, arguments, time.monotonic() - began)
    for kind in set(arguments.only) - set(kinds):
        print(f"{kind} was left out: there is no C compiler to make the failing file system with")
    return 1 if any(counts["LOST"] for counts in found.values()) else 0


def _print(found: dict[str, Counter[str]], arguments: argparse.Namespace, seconds: float) -> None:
    versions = []
    for package in VERSIONS:
        try:
            versions.append(f"{package} {version(package)}")
        except ImportError:
            continue
    print("Whole commands under faults: tests/support/campaign")
    print(f"date      {datetime.now(UTC):%Y-%m-%d}")
    print(
        f"machine   {os.cpu_count()} cores, {platform.machine()}, {platform.system()}; load {os.getloadavg()[1]:.0f}"
    )
    print(f"Python    {platform.python_version()}, {', '.join(versions)}")
    words = f"--minutes {arguments.minutes:g} --seed {arguments.seed} --first {arguments.first}"
    print(f"command   PYTHONPATH=tests python -m support.campaign {words} --only {' '.join(found)}")
    print(f"seconds   {seconds:.0f}\n")
    others = sorted({name for counts in found.values() for name in counts} - set(COLUMNS))
    print(f"{'':<12}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS))
    for kind, counts in found.items():
        print(f"{kind:<12}" + "".join(f"{counts[name]:>{len(name) + 2}}" for name in COLUMNS))
    total = sum(found.values(), Counter())
    print(f"{'all':<12}" + "".join(f"{total[name]:>{len(name) + 2}}" for name in COLUMNS) + "\n")
    for name in others:
        print(f"{total[name]:>8}  {name}")
    for kind in found:
        print(f"{kind:<12}{KINDS[kind]}")


if __name__ == "__main__":
    raise SystemExit(main())
