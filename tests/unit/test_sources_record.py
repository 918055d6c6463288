"""What a split remembers of its source opens the same source again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError
from ltstore.sources import moved_record, open_recorded, open_source, source_record
from support.images import class_tree
from support.shards import sample, write_images, write_shard


def test_a_recorded_source_is_opened_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_tree(tmp_path / "images" / "a", {"x": 3, "y": 2})
    names = sorted(str(file.relative_to(tmp_path / "images")) for file in (tmp_path / "images").rglob("*.*g"))
    (tmp_path / "rows.txt").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    np.save(tmp_path / "ids.npy", [4, 0, 2])
    monkeypatch.chdir(tmp_path)
    how = {"split": "train", "format": "list", "root": Path("images"), "limit": 2}
    digest = open_source("rows.txt", indices=[4, 0, 2], **how).digest  # type: ignore[arg-type]
    record = json.loads(json.dumps(source_record("rows.txt", indices=Path("ids.npy"), **how)))
    monkeypatch.chdir("/")
    assert open_recorded(record).digest == digest
    shutil.move(tmp_path / "images", tmp_path / "elsewhere" / "images")
    shutil.move(tmp_path / "rows.txt", tmp_path / "elsewhere" / "rows.txt")
    moved = moved_record(record, tmp_path / "elsewhere" / "rows.txt")
    assert moved["root"] == str(tmp_path / "elsewhere" / "images")  # it moved along
    assert moved["indices"] == str(tmp_path / "ids.npy")  # it did not
    assert open_recorded(moved).digest == digest


def test_patterns_and_columns_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tar in range(2):
        about = (f"{tar}.json", b'{"y": %d}' % tar)
        write_shard(tmp_path / "t" / f"{tar}.tar", [*sample(f"{tar}"), about])
        write_images(tmp_path / "p" / f"train-{tar}.parquet", [b"x"], y=[tar])
    monkeypatch.chdir(tmp_path)
    for spec in ("t/{0..1}.tar", "t/*.tar", "p/train-{0..1}.parquet"):
        digest = open_source(spec, label_column="y").digest
        record = json.loads(json.dumps(source_record(spec, label_column="y", path_column=None, format="auto")))
        monkeypatch.chdir("/")
        assert open_recorded(record).digest == digest
        monkeypatch.chdir(tmp_path)
        shutil.copytree(tmp_path, tmp_path / "new", dirs_exist_ok=True, ignore=shutil.ignore_patterns("new"))
        moved = moved_record(record, f"new/{spec}")
        assert moved["spec"] == str(tmp_path / "new" / spec)
        assert open_recorded(moved).digest == digest
    with pytest.raises(ConfigError, match="no source was recorded"):
        open_recorded({"spec": "t/0.tar", "label_column": 3})


def test_words_stay_words() -> None:
    record = source_record("digits", split="test", root=None)
    assert record == {"spec": "digits", "split": "test"}
    assert open_recorded(record).digest == open_source("digits", split="test").digest


def test_what_cannot_be_recorded_is_left_out(tmp_path: Path) -> None:
    assert source_record(tmp_path / "caf\udce9", format="folder") == {}
    for hostile in ({}, {"spec": 3}, {"spec": "digits", "limit": "3"}, {"spec": "digits", "split": []}):
        with pytest.raises(ConfigError, match="no source was recorded"):
            open_recorded(hostile)
