"""Every fenced block of every page runs, here or in the page's own test, or it is said here why it does not."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import ltstore
from support.foreign import clip_retrieval, matrix
from support.images import class_tree
from support.object_server import ObjectServer
from support.shell import Shell

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
OF_THEIR_OWN = {
    "docs/cli.md": "tests/docs/test_readme.py",  # generated
    "docs/estimators.md": "tests/docs/test_estimators_page.py",
    "docs/evaluation.md": "tests/docs/test_evaluation_page.py",
    "docs/export.md": "tests/docs/test_export_page.py",
    "docs/neighbors.md": "tests/docs/test_neighbors_page.py",
    "docs/sources.md": "tests/docs/test_sources_page.py",
    "docs/training-loops.md": "tests/contract/test_stream_torch_docs.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
}
"""Pages all of whose blocks another file runs."""
HERE = [
    ("README.md", (1, 2)),
    ("docs/encoders.md", (0, 3)),
    ("docs/import-export.md", (0, 1, 2)),
    ("docs/object-storage.md", (0, 1)),
    ("docs/scaling.md", (1, 2)),
    ("docs/scaling.md", (6,)),
]
"""Blocks that run here, each line of numbers in a directory of its own."""
NOT_RUN = {
    "README.md": {0: "installs packages", 3: "installs packages, and runs the tests"},
    "CONTRIBUTING.md": {0: "installs packages, and runs the tests"},
    "docs/architecture.md": {0: "a picture"},
    "docs/encoders.md": {
        1: "weights of timm are downloaded",
        2: "settings of a file; tests/unit/test_encode_onnx.py reads such",
    },
    "docs/reproduce.md": {
        0: "hours; tests/cli/test_reproduce.py runs it on tiny files",
        1: "minutes; the same",
        2: "hours; tests/cli/test_cifar100_lt.py runs such a chain",
    },
    "docs/scaling.md": {
        0: "a Ray cluster; tests/cli/test_train_workers.py",
        3: "several GPUs",
        4: "Slurm",
        5: "Kubernetes",
        7: "a Ray cluster; tests/cli/test_train_workers.py",
    },
}
"""By page and number of the block."""


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_accounted_for(page: str) -> None:
    run = {number for name, numbers in HERE if name == page for number in numbers}
    told = run | set(NOT_RUN.get(page, {}))
    if page in OF_THEIR_OWN:
        assert (ROOT / OF_THEIR_OWN[page]).exists()
        assert not told
    else:
        assert told == set(range(len(blocks(page))))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages suppose to be there, in the working directory."""
    for split in ("train", "test"):
        class_tree(tmp_path / "photos" / split, {"crow": 12, "heron": 5, "owl": 3})
    class_tree(tmp_path / "new_photos", {"all": 2})
    clip_retrieval(tmp_path / "laion", [_unit(matrix(9)), _unit(matrix(6))])
    group = zarr.open_group(tmp_path / "embeddings.zarr", mode="w")
    group.create_array("clip/image", data=matrix(9))
    group.create_array("label", data=np.arange(9) % 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _unit(X: Any) -> Any:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize(("page", "numbers"), HERE)
def test_it_runs(
    page: str, numbers: tuple[int, ...], files: Path, shell: Shell, request: pytest.FixtureRequest
) -> None:
    """As it stands, but for weights that would be downloaded."""
    pytest.importorskip("open_clip")
    if page == "docs/object-storage.md":
        server: ObjectServer = request.getfixturevalue("server")
        for name, value in server.environment.items():
            request.getfixturevalue("monkeypatch").setenv(name, value)
    found = blocks(page)
    names: dict[str, Any] = {"ltstore": ltstore}
    for language, text in (found[number] for number in numbers):
        text = re.sub(r"open_clip:[\w/-]+", "open_clip:ViT-S-32-alt/random", text)
        if language == "python":
            shutil.rmtree("models", ignore_errors=True)  # the same once more
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.splitlines():
            if "--subset lt100" in line:
                np.savetxt("rows.txt", np.arange(5), fmt="%d")
                shell.ok("subset", "birds.zarr", "lt100", "--rule", "file", "--indices", "rows.txt")
            program, *words = shlex.split(line.partition(" > ")[0])
            if program == "ltstore":
                shell.ok(*words)
