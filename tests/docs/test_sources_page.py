"""The commands of docs/sources.md run as they stand, on small files of the names they use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ltstore.store import open_store
from support.images import class_tree, encoded, picture
from support.shards import sample, write_images, write_shard
from support.shell import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every source that the page names, in the working directory."""
    class_tree(tmp_path / "photos" / "train", {"newt": 2, "owl": 3})
    for tar in range(3):
        about = (f"{tar}.json", json.dumps({"species": ["newt", "owl"][tar % 2]}).encode())
        write_shard(tmp_path / "shards" / f"{tar:05d}.tar", [*sample(f"{tar}", tar % 2, tar), about])
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        write_images(
            tmp_path / "hub" / "data" / f"{name}.parquet", [encoded(picture(i)) for i in range(2)], label=[0, 1]
        )
    (tmp_path / "rows.csv").write_text("file,species\nnewt/000.jpg,newt\nowl/000.jpg,owl\n")
    (tmp_path / "Places_LT_train.txt").write_text("train/newt/000.jpg 0\ntrain/owl/001.jpg 1\n")
    (tmp_path / "names.txt").write_text("newt\nowl\n")
    images = [{"id": 1, "file_name": "train/owl/000.jpg"}]
    listed = {
        "images": images,
        "annotations": [{"image_id": 1, "category_id": 5}],
        "categories": [{"id": 5, "name": "owl"}],
    }
    (tmp_path / "train2018.json").write_text(json.dumps(listed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(shell: Shell, files: Path) -> None:
    commands = [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
    ]
    assert len(commands) == 9
    for line in commands:
        words = [word.strip('"') for word in line.split()[1:]]
        report = shell.ok(*words, "--json").json
        assert report["n_failed"] == 0, line
        assert report["n_rows"] == report["n_encoded"] > 0
    classes = {path.stem: open_store(path).class_names for path in files.glob("*.zarr")}
    assert (
        classes["tars-by-field"]
        == classes["folders"]
        == classes["manifest"]
        == classes["list"]
        == ("newt", "owl")
    )
    assert (files / "tars.zarr.tars").is_dir()


def test_the_python_block_runs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/sources.md", "exec"), {})
    assert capsys.readouterr().out == "3 ('newt', 'owl') 00000.tar/0 (24, 16)\n"
