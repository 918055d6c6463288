"""docs/export.md runs as it stands, on small images, and its ways to the same model give the same answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import ingest, open_encoder
from ltstore.sources import open_source
from ltstore.store import open_store
from ltstore.workflow import make_subset, train
from support.images import class_tree, picture
from support.onnx_nets import write_net

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the page names, in the working directory, and `ltstore` on the path."""
    encoder = open_encoder(f"onnx:{write_net(tmp_path / 'net.onnx')}", device="cpu")
    source = open_source(class_tree(tmp_path / "photos", {"newt": 8, "owl": 8}))
    for split in ("train", "test"):
        ingest(source, encoder, tmp_path / "birds.zarr", split)
    make_subset(tmp_path / "birds.zarr", "hard", split="test", rule="holdout", fraction=0.5)
    train(tmp_path / "birds.zarr", head="ridge", out=tmp_path / "models" / "best")
    rows = open_store(tmp_path / "birds.zarr").split("train").rows(normalize=False)
    np.save(tmp_path / "rows.npy", rows.read(0, rows.n_samples))
    photos = tmp_path / "new_photos"
    photos.mkdir()
    for i in range(3):
        picture(i, 16, 16).save(photos / f"{i}.png")
    with tarfile.open(tmp_path / "new_photos.tar", "w") as tar:
        tar.add(photos / "1.png", "1.png")
    command = tmp_path / "bin" / "ltstore"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ltstore_cli.app "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout


def test_the_page_runs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    exporting, labelling, completion = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert completion == "ltstore --install-completion\n"  # in somebody's home: tests/cli/test_completion.py
    for line in exporting.splitlines():
        run(line)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    found = []
    for block in blocks:
        exec(compile(block, "docs/export.md", "exec"), names)
        found.append(list(names["labels"]))
    by_onnx = [json.loads(names["about"]["class_names"])[c] for c in names["logits"].argmax(axis=1)]
    assert found[0] == found[3] == by_onnx
    assert set(found[0]) == {"newt", "owl"}
    shown = capsys.readouterr().out.strip()

    lines = labelling.splitlines()
    for i, line in enumerate(lines):
        run(line)
        written = (files / ("labels.csv" if "--csv" in line else "labels.jsonl")).read_text(encoding="utf-8")
        if "--csv" in line:
            answers = dict(
                row.split(",")[0::2][:2] for row in written.splitlines()[1:] if row.split(",")[1] == "1"
            )
        else:
            answers = {
                each["key"]: each["predictions"][0]["class"] for each in map(json.loads, written.splitlines())
            }
        if i < 4:
            (one,) = [answer for key, answer in answers.items() if key.endswith("1.png") or len(answers) == 1]
            assert one == shown, line
        assert len(answers) == (3, 1, 3, 3, 8)[i]
    path_of = names["path_of"]
    assert path_of(r"back\\slash \xff.png") == b"back\\slash \xff.png"
