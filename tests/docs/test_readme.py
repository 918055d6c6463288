"""What the documents promise is true of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL_BLOCK = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def test_ci_runs_the_readme_test_command() -> None:
    commands = [
        line.strip()
        for block in SHELL_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        for line in block.splitlines()
        if "pytest" in line
    ]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_every_command_in_the_docs_parses(page: str) -> None:
    """Each `ltstore ...` line of a shell block names a command and options that exist."""
    from typer.main import get_command

    from ltstore_cli.app import app

    group = get_command(app)
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in SHELL_BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|&& |\$ |/)ltstore ([^|>&#]*)", line):
                words = call.split()
                if not words or words[0].startswith(("-", "[")):
                    continue
                command = group.commands.get(words[0])  # type: ignore[attr-defined]
                assert command is not None, f"{page}: no command {words[0]!r} in: {line}"
                known = {
                    flag
                    for parameter in command.params
                    for flag in (*parameter.opts, *parameter.secondary_opts)
                }
                for word in words[1:]:
                    flag = word.split("=")[0]
                    if flag.startswith("-"):
                        assert flag in known | {"--help"}, f"{page}: {words[0]} has no {flag}: {line}"


def test_cli_reference_is_current() -> None:
    """docs/cli.md is what `typer ltstore_cli.app utils docs` prints."""
    made = subprocess.run(
        [sys.executable, "-m", "typer", "ltstore_cli.app", "utils", "docs", "--name", "ltstore"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page.strip() == made.strip(), (
        "docs/cli.md is out of date: python -m typer ltstore_cli.app utils docs --name ltstore --output docs/cli.md"
    )
