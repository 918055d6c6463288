"""ltstore bench: the project's benchmarks, where its source checkout is."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli._options import Json

GROUPS = ("read", "import", "ingest", "search", "sample", "train", "scale", "cli")


def bench(
    group: Annotated[
        str | None, typer.Argument(metavar="[GROUP]", help=f"{', '.join(GROUPS)} or one case; default all.")
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
    words = [sys.executable, "-m", "bench", "run", *([group] if group else []), "--size", size]
    words += ["--against", against] if against else []
    words += ["--json"] if json else []
    raise typer.Exit(subprocess.run(words, cwd=root, check=False).returncode)
