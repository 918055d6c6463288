"""cli.help: how long a person waits for the help, against importing the libraries that print it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench.case import Case, Size
from bench.timing import Candidate, Workload, WrongResultError

COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.argv = ['ltstore', '--help']; from ltstore_cli.app import main; main()",
)
SMALLEST = (
    sys.executable,
    "-c",
    "import sys, typer; sys.argv = ['app', '--help']; app = typer.Typer(); "
    "app.command('first')(lambda: None); app.command('second')(lambda: None); app()",
)
BASELINE = (sys.executable, "-c", "import typer, rich; print('ready')")


def _run(words: tuple[str, ...]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def build(_: Size) -> Iterator[Workload]:
    """Yield the one workload: whole processes, wall clock."""

    def check(name: str, result: str) -> None:
        words = {
            "ltstore --help": ("quickstart", "ingest", "--version"),
            "a typer app of two commands": ("second",),
        }
        wanted = words.get(name, ("ready",))
        if any(word not in result for word in wanted):
            raise WrongResultError(f"{name}: its output lacks one of {', '.join(wanted)}")

    yield Workload(
        variant="process",
        candidates=(
            Candidate(name="ltstore --help", run=lambda: _run(COMMAND)),
            Candidate(name="import typer, rich", run=lambda: _run(BASELINE), aim=1.5, stretch=1.2),
            Candidate(name="a typer app of two commands", run=lambda: _run(SMALLEST)),
        ),
        check=check,
        kind="cost",
        unit="calls",
    )


CASE = Case(
    name="cli.help",
    definition="wall time of `ltstore --help` / `python -c 'import typer, rich'`",
    build=build,
    rounds=15,
    clock="wall",
    note="typer imports more to show help than to be imported: the help of two empty commands is the floor here.",
)
