"""Projected and penultimate features of one pass, in two stores: whoever is killed, both end right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import ingest as ingest_source
from ltstore.encode.options import FEATURES
from ltstore.engine import LocalEngine
from ltstore.errors import ConfigError, EncoderMismatchError, PlanMismatchError
from ltstore.store import SplitWriter, open_store, verify
from ltstore.types import ImageSource
from support.images import ArraySource, array_source, corrupt
from support.shell import Shell
from support.stores import tree
from support.two_features import TwoFeatures

SHARDS: dict[str, Any] = {"rows_per_shard": 256, "batch_size": 60}
N_ROWS = 1100


def source() -> ImageSource:
    return array_source(N_ROWS, {700: corrupt(), 3: corrupt()})


def ingest(path: Path, encoder: Any = None, **how: Any) -> Any:
    settings = {**SHARDS, "beside": [path / "b"], **how}
    return ingest_source(source(), encoder or TwoFeatures(4, 4), path / "a", "train", **settings)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("whole")
    ingest(path)
    return tree(path)


def test_each_store_holds_what_an_encoder_of_its_features_alone_writes(tmp_path: Path, expected: Any) -> None:
    for name, kind in zip("ab", FEATURES, strict=True):
        ingest_source(source(), TwoFeatures(4, 4, kind), tmp_path / name, "train", **SHARDS)
    assert tree(tmp_path) == expected


def test_the_report_speaks_of_both(tmp_path: Path) -> None:
    report = ingest(tmp_path)
    (other,) = report.beside
    assert [report.store, other.store] == [str(tmp_path / "a"), str(tmp_path / "b")]
    for each in (report, other):
        assert (each.n_encoded, each.n_failed, each.resumed_shards) == (N_ROWS, 2, 0)
    assert report.to_json()["beside"][0]["failures"] == {"CORRUPT": 2}


@pytest.mark.parametrize("fails_in, resumed", [("a", (2, 2)), ("b", (3, 2))])
def test_a_shard_that_one_store_lacks_is_written_there_alone(
    tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, fails_in: str, resumed: tuple[int, int]
) -> None:
    write, written = SplitWriter.write_shard, []

    def failing(self: SplitWriter, shard: int, **columns: Any) -> None:
        name = self.location.path.parent.name
        if (name, shard) == (fails_in, 2):
            raise OSError("out of luck")
        written.append((name, shard))
        write(self, shard, **columns)

    monkeypatch.setattr(SplitWriter, "write_shard", failing)
    with pytest.raises(OSError, match="out of luck"):
        ingest(tmp_path)
    fails_in = ""
    report = ingest(tmp_path)
    assert (report.resumed_shards, report.beside[0].resumed_shards) == resumed
    assert sorted(written) == [(name, shard) for name in "ab" for shard in range(5)]
    assert report.n_encoded == N_ROWS - 2 * 256
    assert tree(tmp_path) == expected


def test_one_that_ended_before_the_other_was_marked_complete(
    tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = SplitWriter.finish

    def failing(self: SplitWriter) -> Any:
        if self.location.path.parent.name == "b":
            raise OSError("out of luck")
        return finish(self)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="out of luck"):
        patch.setattr(SplitWriter, "finish", failing)
        ingest(tmp_path)
    assert ingest(tmp_path).n_encoded == 0
    assert tree(tmp_path) == expected


KILLED = """
import sys, time
from pathlib import Path
from ltstore.encode import ingest
from support.images import array_source, corrupt
from support.two_features import TwoFeatures
class Slow(TwoFeatures):
    def encode(self, batch):
        time.sleep(0.02)
        return super().encode(batch)
path = Path(sys.argv[1])
source = array_source(1100, {700: corrupt(), 3: corrupt()})
ingest(source, Slow(4, 4), path / "a", "train", beside=[path / "b"], rows_per_shard=256, batch_size=60)
"""


def test_a_killed_run_is_taken_up(tmp_path: Path, expected: Any) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment) as run:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.glob("b/train/commits/*1.json")):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    report = ingest(tmp_path)
    assert 0 < report.n_encoded < N_ROWS
    assert tree(tmp_path) == expected
    assert all(verify(tmp_path / name).ok for name in "ab")


def test_workers_write_both(tmp_path: Path, expected: Any) -> None:
    ingest_source(
        source(), TwoFeatures(4, 4, "projected"), tmp_path / "a", "train", **SHARDS
    )  # projected ones were there before
    with LocalEngine(2) as engine:
        report = ingest(tmp_path, engine=engine)
    assert (report.resumed_shards, report.beside[0].resumed_shards, report.n_encoded) == (5, 0, N_ROWS)
    assert tree(tmp_path) == expected


def test_rows_are_appended_to_both(tmp_path: Path) -> None:
    ingest(tmp_path)
    more = array_source(300, seed=1)
    how: dict[str, Any] = {**SHARDS, "beside": [tmp_path / "b"], "append": True, "order": "shuffled"}
    ingest_source(more, TwoFeatures(4, 4), tmp_path / "a", "train", **how)
    again = ingest_source(more, TwoFeatures(4, 4), tmp_path / "a", "train", **how)
    a, b = (open_store(tmp_path / name).split("train") for name in "ab")
    assert (again.n_encoded, a.n_rows, b.n_rows) == (0, N_ROWS + 300, N_ROWS + 300)
    ids = np.arange(N_ROWS + 300)
    assert a.keys(ids) == b.keys(ids)


class TestRefused:
    def test_not_one_store_for_each(self, tmp_path: Path) -> None:
        for beside in ([], [tmp_path / "b", tmp_path / "c"]):
            with pytest.raises(
                ConfigError, match="gives features projected, penultimate: name a store for each"
            ):
                ingest(tmp_path, beside=beside)
        assert not list(tmp_path.iterdir())

    def test_a_store_of_other_features_and_nothing_is_made(self, tmp_path: Path) -> None:
        ingest_source(source(), TwoFeatures(4, 4, "projected"), tmp_path / "b", "train", **SHARDS)
        with pytest.raises(EncoderMismatchError, match="features: projected / penultimate"):
            ingest(tmp_path)
        assert not (tmp_path / "a").exists()
        with pytest.raises(EncoderMismatchError, match="features: projected / penultimate"):
            ingest(tmp_path, beside=[tmp_path / "a"])

    def test_stores_of_other_classes(self, tmp_path: Path) -> None:
        ingest(tmp_path)
        renamed = ArraySource(array_source(3).pixels, [0, 1, 2], ["x", "y", "z"])
        ingest_source(renamed, TwoFeatures(4, 4, "penultimate"), tmp_path / "d", "train")
        with pytest.raises(ConfigError, match="have different classes: use a new store"):
            ingest(tmp_path, beside=[tmp_path / "d"])

    def test_a_split_that_is_cut_into_other_shards(self, tmp_path: Path) -> None:
        ingest_source(source(), TwoFeatures(4, 4, "penultimate"), tmp_path / "b", "train", rows_per_shard=512)
        with pytest.raises(PlanMismatchError, match="rows_per_shard: 512 there, 256 now"):
            ingest(tmp_path)


def test_the_command_writes_a_store_for_each_of_which_heads_refuse_the_other(
    shell: Shell, tmp_path: Path
) -> None:
    pytest.importorskip("open_clip")
    name = tmp_path / "s.zarr"
    how = ["digits", name, "--limit", "20", "--device", "cpu"]
    both = "projected,penultimate"
    first = shell.ok("ingest", *how, "--encoder", "open_clip:ViT-S-32-alt/random", "--features", both)
    assert "s-penultimate.zarr" in first.out
    shell.ok("ingest", *how, "--split", "test", "--features", both)
    a, b = (open_store(path) for path in (name, tmp_path / "s-penultimate.zarr"))
    for store, features in ((a, "projected"), (b, "penultimate")):
        assert store.encoder.features == features
        assert store.splits == ("test", "train")
    assert a.split("train").rows().row_ids.tolist() == b.split("train").rows().row_ids.tolist()
    shell.ok("train", name, "--head", "ncm", "--out", tmp_path / "m")
    refused = shell("evaluate", tmp_path / "m", "--store", tmp_path / "s-penultimate.zarr", "--split", "test")
    assert refused.code == 1
    assert "features: penultimate / projected" in refused.err
    wrong = shell("ingest", *how, "--features", "penultimate,projected")
    assert wrong.code == 1
    assert "differ from those of the embeddings, projected" in wrong.err
