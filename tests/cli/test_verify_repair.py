"""`ltstore verify --repair` as a user meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from support.foreign import matrix
from support.shell import Shell
from support.stores import tree


def flip(file: Path, at: int = 9) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def same(path: Path, other: Path) -> bool:
    now = {name: data for name, data in tree(path).items() if "quarantine" not in name}
    return now == tree(other)


def test_a_damaged_ingest_is_made_good(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "d.zarr"
    shell.ok("ingest", "digits", store)
    shell.ok("sample", store, "--name", "more", "--per-class", "2")
    shutil.copytree(store, tmp_path / "whole")
    for name in ("train/embeddings/c/0/0", "train/labels/c/0", "synthetic/more/embeddings/c/0/0"):
        flip(store / name)
    seen = shell("verify", store)
    assert seen.code == 1
    assert f"`ltstore verify {store} --repair` re-makes or quarantines these" in seen.err
    monkeypatch.chdir("/")
    result = shell.ok("verify", store, "--repair")
    assert "re-made     train, shard 0, rows 0..1,023: it is bit for bit as it was" in result.out
    assert "restored    train, labels, shard 0" in result.out
    assert "repair: 1 restored, 2 quarantined, 2 re-made" in result.out
    assert f"{store}: whole" in result.out
    assert same(store, tmp_path / "whole")
    assert "keeps 1 damaged things aside in quarantine: 00000-1" in shell.ok("info", store).err
    again = shell.ok("verify", store, "--repair", "--json").json
    assert (again["ok"], again["repaired"]) == (True, [])


def test_what_is_lost_is_named_and_comes_back_with_its_source(shell: Shell, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=matrix(3000), y=np.arange(3000) % 4)
    store = tmp_path / "a.zarr"
    shell.ok("import", tmp_path / "x.npz", store)
    shutil.copytree(store, tmp_path / "whole")
    flip(store / "train" / "embeddings" / "c" / "2" / "0")
    (tmp_path / "b").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "b" / "x.npz")
    refused = shell("verify", store, "--repair", "--source", f"train={tmp_path / 'gone.npz'}")
    assert refused.code == 1
    assert "not repaired: the embeddings that train was imported from are not at" in refused.out
    assert "these remain" in refused.err
    np.savez(tmp_path / "other.npz", X=matrix(3000), y=np.zeros(3000, int))
    before = tree(store)
    refused = shell("verify", store, "--repair", "--source", tmp_path / "other.npz")
    assert (refused.code, "are not those that train was imported from" in refused.out) == (1, True)
    assert tree(store) == before
    report = shell.ok("verify", store, "--repair", "--json").json
    lost = [step for step in report["repaired"] if step["action"] == "lost"]
    assert [(step["split"], step["shard"], step["rows"]) for step in lost] == [("train", 2, [2048, 3000])]
    assert "952 lost" in shell.ok("info", store).out
    assert (
        shell.ok("verify", store, "--repair", "--source", tmp_path / "b" / "x.npz").out.count("re-made ") == 1
    )
    assert same(store, tmp_path / "whole")


def test_words_that_do_not_go_together(shell: Shell, tmp_path: Path) -> None:
    shell.ok("ingest", "digits", tmp_path / "d.zarr", "--limit", "20")
    for words in (
        ("--no-source",),
        ("--source", "/x"),
        ("--repair", "--source", "/x", "--source", "/y"),
        ("--repair", "--source", "train=/x", "--source", "train=/y"),
    ):
        assert shell("verify", tmp_path / "d.zarr", *words).code == 2
    assert shell("verify", tmp_path / "d.zarr", "--repair", "--source", "/x", "--no-source").code == 1
