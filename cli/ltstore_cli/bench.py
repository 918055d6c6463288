"""ltstore bench: the project's benchmarks, where its source checkout is."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli._options import Json

GROUPS = ("read", "import", "ingest", "search", "sample", "train", "scale", "cli")


def bench(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[list | compare A.jsonl B.jsonl | GROUP ...]",
            help=f"List the cases, compare two files of results, or run {', '.join(GROUPS)} or cases; default all.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="PEER,...", help="Only these peers, e.g. zarr,tensorstore,lance.")
    ] = None,
    size: Annotated[str, typer.Option(help="full, or toy to see whether it runs here.")] = "full",
    json: Json = False,
) -> None:
    """Measure this machine: ratios to bare libraries and to peers, correctness checked first.

    The benchmarks come with the source checkout. JSON output is one object per line and candidate.

    Example: `ltstore bench read --against zarr`
    """
    import subprocess
    import sys
    from pathlib import Path

    import ltstore
    from ltstore.errors import ConfigError

    if size not in ("toy", "full"):
        raise ConfigError(f"--size must be toy or full, found {size!r}")
    root = Path(ltstore.__file__).resolve().parents[1]
    if not (root / "bench" / "__main__.py").is_file():
        raise ConfigError(
            "benchmarks come with the source checkout, and this ltstore is installed without one: "
            "clone the repository and pip install -e '.[bench]' there"
        )
    action, *rest = words or ["run"]
    if action not in ("list", "compare", "run"):
        action, rest = "run", [action, *rest]
    command = [sys.executable, "-m", "bench", action, *rest]
    if action == "compare":
        command[4:] = [str(Path(word).resolve()) for word in rest]
    if action == "run":
        command += ["--size", size, *(["--against", against] if against else [])]
    if json and action != "list":
        command.append("--json")
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)
