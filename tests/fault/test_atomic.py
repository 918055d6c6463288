"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltstore.atomic import atomic_directory, atomic_file, write_json
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
