"""Class names, keys and errors are the words of others: nothing in them reaches the terminal as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from ltstore.encode import ingest, open_encoder
from ltstore.errors import LtstoreError
from ltstore.sources import open_source
from ltstore_cli import _render, app
from support.shell import Result, Shell

NAMES = (
    "\x1b[2J\x1b[31mcat",  # clears the screen
    "\x1b]0;title\x07\x9b31mdog",  # sets the title; a command in one C1 byte
    "eel\r\nerror: 0 problems\x08\x7f",  # writes a line of its own
    "\u202egnp.exe[bold]",  # turns the direction of text
)


def unprinted(text: str) -> set[str]:
    return {c for c in text if not c.isprintable()} - {"\n"}


def check(result: Result) -> None:
    assert not unprinted(result.out + result.err)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four classes of those names, four images each, and one that is none."""
    lines = []
    for row in range(16):
        name = f"{row}\x1b[5m.png"
        Image.new("RGB", (8, 8), (16 * row, 60 * (row % 4), 9)).save(tmp_path / name)
        lines.append(f"{name} {row % 4}")
    (tmp_path / "bad\x1b[1m.png").write_text("none")
    (tmp_path / "list.txt").write_text("\n".join([*lines, "bad\x1b[1m.png 0"]))
    source = open_source(tmp_path / "list.txt", class_names=NAMES)
    ingest(source, open_encoder("pixels:8"), tmp_path / "s.zarr", "train")
    return tmp_path / "s.zarr"


def test_no_command_of_the_terminal_is_printed(store: Path, shell: Shell) -> None:
    model = store.parent / "m"
    assert r"bad\x1b[1m.png" in shell.ok("info", store).err
    shell.ok("train", store, "--out", model, "--head", "ncm")
    for words in (
        ("info", store),
        ("verify", store),
        ("index", store),
        ("query", store, "--row", 0),
        ("donors", store),
        ("evaluate", model, "--store", store, "--split", "train"),
        ("train", store, "--out", model, "--split", "tr\x1b[2J"),
        ("query", store, "--row", 0, "--among", "\x1b[2J"),
        ("info", store.parent / "\x1b[2J"),
    ):
        check(shell(*words))
    found = shell.ok("query", store, "--row", 0, "-k", 3)
    assert r"\x1b[2J\x1b[31mcat" in found.out
    assert (
        r"\u202egnp.exe[bold]" in shell.ok("query", store, "--row", 3, "-k", 9).out
    )  # no markup of rich's either
    images = store.parent / "0\x1b[5m.png"
    for style in ((), ("--csv",), ("--json",)):
        labelled = shell.ok("predict", model, images, *style)
        check(labelled)
    assert {one["class"] for one in labelled.json["predictions"]} == set(NAMES)  # JSON is the same text
    info = shell.ok("info", store, "--json")
    check(info)


def test_errors_that_no_command_foresaw_are_plain_too(
    monkeypatch: pytest.MonkeyPatch, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for err in (ValueError("\x1b[2J"), MemoryError("\x1b[2J"), LtstoreError("a\nb\x1b[2J")):

        def fail(err: BaseException = err, **_: object) -> None:
            raise err

        monkeypatch.setattr(app, "app", fail)
        refused = shell("info")
        check(refused)
        assert refused.err.count("\n") == 1
        assert r"\x1b[2J" in refused.err


def test_json_stays_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"a": [*NAMES, "é漢", "\udc80"], "b": None}
    _render.json_out(data)
    text = capsys.readouterr().out
    assert not unprinted(text)
    assert "é漢" in text
    assert json.loads(text) == data
