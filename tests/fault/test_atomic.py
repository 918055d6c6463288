"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltstore.atomic import (
    _HOST,
    atomic_directory,
    atomic_file,
    remove_directory,
    remove_leftovers,
    write_json,
)
from ltstore.errors import StoreWriteError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    before = path.read_bytes()
    with pytest.raises(KeyError), atomic_file(path) as handle:
        handle.write(b"half")
        raise KeyError
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with atomic_directory(target) as new:
            (new / "f").write_text(text)
    assert (target / "f").read_text() == "two"
    with pytest.raises(RuntimeError), atomic_directory(target) as new:
        (new / "f").write_text("three")
        raise RuntimeError
    assert (target / "f").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_unwritable_place_is_one_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = f"{_HOST}-{2**22 + 1}-0123abcd.tmp"  # above the largest process id
    for name in (
        f"d/a.json.{dead}",
        f"d/model.{dead}/f",
        f"d/whole.old.{dead}/f",
        f"d/half.gone.{dead}/f",
        "d/0.tmp",
        f"d/b.json.{_HOST}-1-0123abcd.tmp",
        f"d/c.json.00000000-{2**22 + 1}-0123abcd.tmp",
        "d/e.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    removed = [path.name for path in remove_leftovers(tmp_path)]
    assert removed == ["0.tmp", f"a.json.{dead}", f"half.gone.{dead}", f"model.{dead}"]
    left = {path.name for path in (tmp_path / "d").iterdir()}
    assert left == {
        "whole",  # put back: its writer died before the new one had its name
        f"b.json.{_HOST}-1-0123abcd.tmp",
        f"c.json.00000000-{2**22 + 1}-0123abcd.tmp",
        "e.json",
    }


def test_what_a_killed_removal_has_left_goes_with_the_next(tmp_path: Path) -> None:
    dead = f"{_HOST}-999999999-00000000.tmp"
    for name in ("run", f"run.gone.{dead}", f"runs.gone.{dead}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    remove_directory(tmp_path / "run")
    assert [entry.name for entry in tmp_path.iterdir()] == [f"runs.gone.{dead}"]
    (tmp_path / f"run.gone.{dead}").mkdir()
    remove_directory(tmp_path / "run")  # of which there is none
    assert [entry.name for entry in tmp_path.iterdir()] == [f"runs.gone.{dead}"]
