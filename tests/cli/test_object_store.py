"""The whole chain on a store behind s3://, from the shell."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import pytest

from ltstore.store import open_store
from support.object_server import ObjectServer
from support.shell import Shell


@pytest.fixture
def url(server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A store that is not there yet, in the environment of someone who uses that server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LTSTORE_CACHE", str(tmp_path / "cache"))
    return f"s3://bucket/{secrets.token_hex(4)}/digits.zarr"


def test_the_chain(url: str, shell: Shell, tmp_path: Path) -> None:
    report = shell.ok("ingest", "digits", url, "--split", "train", "--json").json
    assert (report["store"], report["n_rows"]) == (url, 1258)
    shell.ok("ingest", "digits", url, "--split", "test")
    again = shell.ok("ingest", "digits", url, "--split", "test", "--json").json
    assert again["n_encoded"] == 0
    shell.ok("subset", url, "lt", "--rule", "exp", "--imbalance", "20")
    facts = shell.ok("info", url)
    assert url in facts.out
    assert "lt" in facts.out
    assert shell.ok("verify", url, "--json").json["ok"]
    shell.ok("index", url, "--subset", "lt")
    assert any((tmp_path / "cache").rglob("*.faiss"))  # an index is a file of this machine
    row = int(open_store(url).split("train").subset("lt")[0])
    assert shell.ok("query", url, "--subset", "lt", "--row", str(row)).out
    shell.ok("donors", url, "--subset", "lt")
    shell.ok("sample", url, "--subset", "lt", "--sampler", "neighbor-gauss", "--name", "ng")
    assert "ng" in shell.ok("info", url, "--json").json["synthetic"]
    model = tmp_path / "model"
    shell.ok("train", url, "--subset", "lt", "--synthetic", "ng", "--out", model)
    result = shell.ok("evaluate", model, "--store", url, "--report", tmp_path / "r.html", "--json").json
    assert result["models"][0]["overall"]["value"] > 0.7
    shell.ok("export", url, tmp_path / "x.npy", "--split", "test", "--format", "npy")
    local = tmp_path / "local.zarr"
    shell.ok("ingest", "digits", local, "--split", "test")
    assert open_store(url).split("test").digest == open_store(local).split("test").digest
    shell.ok("import", tmp_path / "x.npy", url + "2", "--split", "test")
    there = open_store(url + "2").split("test").rows(normalize=False)
    np.testing.assert_array_equal(
        there.read(0, there.n_samples), np.load(tmp_path / "x.npy").astype(np.float32)
    )


def test_what_goes_wrong_is_one_line(url: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (("info", url), ("verify", url), ("train", url, "--out", "m")):
        result = shell(*command)
        assert result.code == 1
        assert "there is no store at s3://" in result.err
        assert result.err.count("\n") == 1
    bad = shell("ingest", "digits", "s3://no-such-bucket/x.zarr")
    assert bad.code == 1
    assert "s3://no-such-bucket/x.zarr" in bad.err
    assert bad.err.count("\n") == 1
    unknown = shell("info", "nosuch://x")
    assert "nosuch://x cannot be opened" in unknown.err
