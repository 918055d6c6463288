"""docs/reproduce.md names every file and size of the published sets, and its commands are such as the parser takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from ltstore.sources import PUBLISHED
from ltstore_cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_has_its_row(name: str) -> None:
    published = PUBLISHED[name]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    for file in {file for pair in published.layouts for file in pair} - {"cifar-100-python.tar.xz"}:
        assert file in row
    assert f"{published.n_train:,}" in row
    assert f"{published.n_test:,} / {published.n_classes:,} |" in row


def test_the_commands_are_understood() -> None:
    text = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("ltstore ")]
    assert len(commands) == 10
    group = get_command(app)
    for name, *words in commands:
        group.commands[name].make_context(name, words)  # type: ignore[attr-defined]  # parses, and runs nothing
