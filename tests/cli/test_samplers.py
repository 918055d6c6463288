"""The command line with every sampler: named in the help, drawn from, trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.sampling import SAMPLERS
from ltstore.store import create_store
from ltstore.types import EncoderIdentity, RowStatus
from ltstore_cli._options import SAMPLER_NAMES
from support.samplers import text_vectors
from support.shell import Shell

COUNTS = (40, 30, 5, 1)
D = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samplers") / "s.zarr"
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), COUNTS)
    X = (rng.normal(size=(4, D))[labels] + rng.normal(size=(len(labels), D))).astype(np.float32)
    identity = EncoderIdentity(encoder="import", model="made", n_features=D)
    made = create_store(path, encoder=identity, class_names=list("abcd"))
    with made.begin_split("train", n_rows=len(X), source_digest="made") as writer:
        writer.write_shard(
            0,
            embeddings=X,
            labels=labels,
            status=np.full(len(X), RowStatus.OK, np.uint8),
            keys=[str(i) for i in range(len(X))],
            errors=[None] * len(X),
        )
        writer.finish()
    return path


def test_the_help_names_them_all() -> None:
    assert set(SAMPLERS) <= set(SAMPLER_NAMES.replace(",", " ").split())


@pytest.mark.parametrize("name", SAMPLERS)
def test_sample_and_train(shell: Shell, store: Path, tmp_path: Path, name: str) -> None:
    options = ["--sampler-option", f"vectors={text_vectors(4, D)}"] if name == "text" else []
    made = shell.ok("sample", store, "--name", name, "--sampler", name, *options, "--json").json
    assert made["sampler"] == name
    assert made["n_rows"] == 3 * 40 - 36
    trained = ("--synthetic", name) if name == "duplicate" else ("--sampler", name, *options)
    shell.ok("train", store, "--out", tmp_path / "model", *trained)


def test_text_without_vectors_and_implicit(shell: Shell, store: Path, tmp_path: Path) -> None:
    refused = shell("train", store, "--out", tmp_path / "model", "--sampler", "text")
    assert refused.code == 1
    assert "no text vectors of the class names" in refused.err
    assert "run `ltstore text`" in refused.err
    shell.ok("train", store, "--out", tmp_path / "model", "--implicit", "0.5")
