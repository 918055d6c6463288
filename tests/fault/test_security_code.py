"""No file can make ltstore run what it says: where the source could, it says why; and pickles in arrays stay closed.

More of the same: of imports `test_transfer_refused` and `test_transfer_hostile`, of stores `test_store_hostile`, of
models `test_linear_model`, of CIFAR `test_sources_cifar`, of checkpoints `test_encode_open_clip`, `test_encode_timm`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ltstore
import ltstore_cli
from ltstore.encode.class_text import _names_digest, load_class_text
from ltstore.errors import DataError, SourceError, StoreFormatError
from ltstore.sampling.text import _read_vectors
from ltstore.sources.views import read_indices
from ltstore.types import EncoderIdentity
from ltstore.workflow.neighborhood import load_vectors
from support.shell import Shell

ALLOWED = {
    "engine/local.py: pickle.loads": "a task, through a pipe from the process that started this one",
    "encode/workers.py: pickle.loads": "an encoder, inside such a task",
    "sources/cifar.py: pickle.Unpickler": "the official CIFAR files; find_class knows three names of NumPy and "
    "makes holders of bytes of them",
    "workflow/exporting.py: joblib.dump": "written when asked for by name, with a warning, and never read",
    "ltstore_cli/bench.py: subprocess.run": "this repository's benchmarks, by a person's command",
}
"""Where code is run, or could be, that is not in the source, and why that is safe."""

MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "subprocess",
    "pty",
    "code",
}
HARMLESS = {"pickle.dumps", "pickle.HIGHEST_PROTOCOL", "pickle.PicklingError", "pickle.UnpicklingError"}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
CALLS = {
    "os.system",
    "os.popen",
    "os.execv",
    "os.execve",
    "os.execvp",
    "os.spawnv",
    "os.posix_spawn",
    "torch.jit.load",
}
NEEDS = {
    "torch.load": ("weights_only", True),
    "load_state_dict": ("weights_only", True),
    "create_model": ("weights_only", True),
    "np.load": ("allow_pickle", False),
}
"""What a call must say; `create_model` only where it is given a file."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for root, prefix in (
        (Path(ltstore.__file__).parent, ""),
        (Path(ltstore_cli.__file__).parent, "ltstore_cli/"),
    ):
        for file in sorted(root.rglob("*.py")):
            yield prefix + file.relative_to(root).as_posix(), ast.parse(file.read_bytes())


def dangers(tree: ast.Module) -> Iterator[str]:
    """What a module names that runs code out of data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            for alias in node.names:
                if (module or "") in MODULES or (alias.name in MODULES and alias.asname):
                    yield f"{module or alias.name} imported by another name"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = ast.unparse(node)
            if name in CALLS or (name.split(".")[0] in MODULES and name not in HARMLESS):
                yield name
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            if name in BUILTINS or name == "torch.jit.load":
                yield name
            key = name if name in NEEDS else "np.load" if name == "numpy.load" else last
            given = {word.arg: word.value for word in node.keywords}
            if key in NEEDS and not _loads_no_file(key, node, given):
                argument, wanted = NEEDS[key]
                value = given.get(argument)
                if not isinstance(value, ast.Constant) or value.value is not wanted:
                    yield f"{name} without {argument}={wanted}"


def _loads_no_file(key: str, node: ast.Call, given: dict[str | None, ast.expr]) -> bool:
    """A model's own load_state_dict(tensors), and timm.create_model without a checkpoint, which is the publisher's."""
    if key == "load_state_dict":
        return ast.unparse(node.func) == "model.load_state_dict"
    return (
        key == "create_model"
        and ast.unparse(node.func) == "timm.create_model"
        and "checkpoint_path" not in given
    )


def test_nothing_in_the_source_runs_what_a_file_says() -> None:
    found = {f"{name}: {danger}" for name, tree in sources() for danger in dangers(tree)}
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads",
        "import pickle as p",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path)",
        "timm.models.load_state_dict(path)",
        "open_clip.create_model(name, pretrained=path)",
        "timm.create_model(name, checkpoint_path=path)",
        "eval(text)",
        "yaml.load(f)",
        "os.system(text)",
        "torch.jit.load(path)",
    ],
)
def test_the_search_finds_what_it_is_for(code: str) -> None:
    assert list(dangers(ast.parse(code)))


class Bomb:
    """Unpickled, it makes a directory."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


IDENTITY = EncoderIdentity(encoder="test", model="m", n_features=1)


def _class_text(path: Path) -> None:
    """Text vectors beside a store; their record is made to fit."""
    data = (path / "vectors.npz").read_bytes()
    record = {
        "settings": {"logit_scale": 1.0},
        "made_from": {"encoder": IDENTITY.to_json(), "class_names": _names_digest(["a"])},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (path / "record.json").write_text(json.dumps(record))
    load_class_text(path, encoder=IDENTITY, class_names=["a"])


@pytest.mark.parametrize(
    ("error", "read"),
    [
        (SourceError, lambda path: read_indices(path / "x.npy")),
        (DataError, lambda path: load_vectors(path / "x.npy", 1)),
        (DataError, lambda path: _read_vectors(str(path / "x.npy"), ("a",))),
        (DataError, lambda path: _read_vectors(str(path / "vectors.npz"), ("a",))),
        (StoreFormatError, _class_text),
    ],
)
def test_a_pickle_in_an_array_stays_closed(
    tmp_path: Path, error: type[Exception], read: Callable[[Path], Any]
) -> None:
    mark = tmp_path / "ran"
    array = np.empty((1, 1), object)
    array[0, 0] = Bomb(mark)
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    np.savez(tmp_path / "vectors.npz", vectors=array)
    with pytest.raises(error, match="allow_pickle=False"):
        read(tmp_path)
    assert not mark.exists()
    sink = io.BytesIO((tmp_path / "x.npy").read_bytes())
    np.load(sink, allow_pickle=True)
    assert mark.exists()  # it would have run


def test_row_weights_are_never_unpickled(tmp_path: Path, shell: Shell) -> None:
    np.save(tmp_path / "w.npy", np.array([Bomb(tmp_path / "ran")], object), allow_pickle=True)
    refused = shell("train", tmp_path, "--out", tmp_path / "m", "--row-weights", tmp_path / "w.npy")
    assert refused.code == 2
    assert not (tmp_path / "ran").exists()
