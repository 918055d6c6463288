"""Ingest by workers: the bytes of a run without them, whoever is killed."""

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

from ltstore.encode import PixelEncoder, ingest, open_encoder
from ltstore.engine import LocalEngine
from ltstore.errors import (
    ConfigError,
    EncoderMismatchError,
    LtstoreError,
    PlanMismatchError,
    SourceError,
    StoreWriteError,
    WorkerLostError,
)
from ltstore.sources import open_source
from ltstore.store import SplitWriter, open_store, verify
from support.engines import engine_of
from support.images import array_source, class_tree, corrupt
from support.memory import objects
from support.object_server import ObjectServer
from support.onnx_nets import write_net
from support.stores import tree
from support.workers import KilledEncoder, RefusingEncoder

SHARDS: dict[str, Any] = {"rows_per_shard": 256, "batch_size": 60}
N_ROWS = 2000


def source():
    return array_source(N_ROWS, {1500: corrupt(), 3: corrupt()})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("alone") / "s"
    report = ingest(source(), PixelEncoder(4, 4), path, "train", **SHARDS)
    assert report.engine == {}
    return tree(path)


class TestEveryEngine:
    def test_the_bytes_are_those_without_workers(self, engine_kind: str, tmp_path: Path, expected) -> None:
        calls: list[tuple[int, dict[str, float]]] = []
        with engine_of(engine_kind, 2) as engine:
            report = ingest(
                source(),
                PixelEncoder(4, 4),
                tmp_path / "s",
                "train",
                **SHARDS,
                engine=engine,
                progress=lambda n, seconds: calls.append((n, dict(seconds))),
            )
            again = ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS, engine=engine)
        assert tree(tmp_path / "s") == expected
        assert (report.n_rows, report.n_encoded, report.n_shards) == (N_ROWS, N_ROWS, 8)
        assert report.failures == {"CORRUPT": 2}
        assert report.engine == {**engine.describe(), "restarts": 0}
        assert sorted(n for n, _ in calls) == [N_ROWS - 7 * 256, *[256] * 7]
        assert all(set(seconds) == {"read", "decode", "encode", "write"} for _, seconds in calls)
        assert sum(report.shares.values()) == pytest.approx(1)
        assert (again.n_encoded, again.resumed_shards) == (0, 8)

    def test_a_worker_that_is_killed_in_mid_run_changes_nothing(
        self, engine_kind: str, tmp_path: Path, expected, caplog: pytest.LogCaptureFixture
    ) -> None:
        if engine_kind == "threads":
            pytest.skip("a thread does not die alone")
        encoder = KilledEncoder(4, 4).arm(tmp_path, 7)
        with engine_of(engine_kind, 2) as engine:
            report = ingest(source(), encoder, tmp_path / "s", "train", **SHARDS, engine=engine)
        assert (tmp_path / "killed-0").exists()
        assert report.engine["restarts"] == 1
        assert report.failures == {"CORRUPT": 2}
        assert "was lost and is replaced" in caplog.text
        assert tree(tmp_path / "s") == expected
        assert verify(tmp_path / "s").ok
        assert not list((tmp_path / "s").rglob("*.tmp"))

    def test_one_that_is_killed_again_and_again_leaves_whole_shards(
        self, engine_kind: str, tmp_path: Path, expected
    ) -> None:
        if engine_kind == "threads":
            pytest.skip("a thread does not die alone")
        encoder = KilledEncoder(4, 4).arm(tmp_path, 3, times=99)
        with (
            engine_of(engine_kind, 1) as engine,
            pytest.raises(WorkerLostError, match="worker 1 of 1 was lost 4 times"),
        ):
            ingest(source(), encoder, tmp_path / "s", "train", **SHARDS, engine=engine)
        report = ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS)
        assert report.resumed_shards == 0  # each dies in the third batch of its first shard
        assert tree(tmp_path / "s") == expected

    def test_what_goes_wrong_in_a_worker_is_raised_here_and_the_rest_resumes(
        self, engine_kind: str, tmp_path: Path, expected
    ) -> None:
        rows = source()
        before = rows.pixels[1100].copy()
        rows.pixels[:, 0, 0, 0] = np.maximum(rows.pixels[:, 0, 0, 0], 1)
        whole = tmp_path / "whole"
        ingest(rows, PixelEncoder(4, 4), whole, "train", **SHARDS)
        rows.pixels[1100, 0, 0, 0] = 0
        with engine_of(engine_kind, 2) as engine:
            with pytest.raises(RuntimeError, match="out of luck"):
                ingest(rows, RefusingEncoder(4, 4), tmp_path / "s", "train", **SHARDS, engine=engine)
            rows.pixels[1100, 0, 0, 0] = max(before[0, 0, 0], 1)
            report = ingest(rows, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS, engine=engine)
        assert 0 < report.resumed_shards < 8
        assert tree(tmp_path / "s") == tree(whole)

    def test_an_onnx_encoder_is_opened_again_by_each_worker(self, engine_kind: str, tmp_path: Path) -> None:
        net = write_net(tmp_path / "net.onnx")
        images = open_source(class_tree(tmp_path / "tree", {"a": 40, "b": 30}))
        encoder = open_encoder(f"onnx:{net}", options={"mean": 100.0})
        how: dict[str, Any] = {"rows_per_shard": 16, "batch_size": 6}
        ingest(images, encoder, tmp_path / "alone", "train", **how)
        with engine_of(engine_kind, 2) as engine:
            ingest(images, encoder, tmp_path / "s", "train", **how, engine=engine)
            assert tree(tmp_path / "s") == tree(tmp_path / "alone")
            write_net(net, n_features=5, side=None)  # another file under the name
            with pytest.raises(LtstoreError) as caught:
                ingest(images, encoder, tmp_path / "other", "train", **how, engine=engine)
        assert isinstance(caught.value, EncoderMismatchError | ConfigError)

    def test_a_disk_that_is_lost_is_said_as_without_workers(self, engine_kind: str, tmp_path: Path) -> None:
        images = class_tree(tmp_path / "tree", {"a": 150})
        listed = open_source(images)
        for file in sorted(images.rglob("*.jpg"))[64:128]:
            file.unlink()
        with (
            engine_of(engine_kind, 2) as engine,
            pytest.raises(SourceError, match=r"of rows 64..127 is there: .*run the"),
        ):
            ingest(listed, PixelEncoder(4, 4), tmp_path / "s", "train", rows_per_shard=64, engine=engine)


@pytest.mark.parametrize("engine_kind", ["threads", "processes"])
def test_workers_write_to_an_object_store_themselves(engine_kind: str, server: ObjectServer) -> None:
    alone, shared = server.location("alone.zarr"), server.location("shared.zarr")
    ingest(source(), PixelEncoder(4, 4), alone, "train", rows_per_shard=1024)
    with engine_of(engine_kind, 2) as engine:
        ingest(source(), PixelEncoder(4, 4), shared, "train", rows_per_shard=1024, engine=engine)
        assert verify(shared, engine=engine).ok
    expected, found = objects(alone), objects(shared)
    assert found.keys() == expected.keys()
    assert all(found[name] == data for name, data in expected.items() if "/commits/" not in name)


def test_what_cannot_be_sent_is_one_line(tmp_path: Path) -> None:
    class Local(PixelEncoder):
        pass

    with pytest.raises(ConfigError, match="encoder pixels:4x4 cannot be sent to workers"):
        ingest(source(), Local(4, 4), tmp_path / "s", "train", engine=LocalEngine(2, "processes"))


def test_a_shard_is_recorded_under_the_lock_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = SplitWriter.commit

    def losing(self: SplitWriter, record: Any) -> None:
        if len(self.pending) == 5:
            self.close()
        commit(self, record)

    monkeypatch.setattr(SplitWriter, "commit", losing)
    with pytest.raises(StoreWriteError, match="has lost its lock"):
        ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS, engine=LocalEngine(2))
    found = open_store(tmp_path / "s").split("train", allow_incomplete=True)
    assert len(found.commits) == 3


DRIVEN = """
import sys
from ltstore.encode import ingest
from ltstore.engine import LocalEngine
from support.images import array_source, corrupt
from support.workers import SlowEncoder
if __name__ == "__main__":
    source = array_source(2000, {1500: corrupt(), 3: corrupt()})
    with LocalEngine(2, "processes") as engine:
        ingest(source, SlowEncoder(4, 4), sys.argv[1], "train", rows_per_shard=256, batch_size=60, engine=engine)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_whose_driver_is_stopped_goes_on(tmp_path: Path, expected, number: int) -> None:
    script = tmp_path / "run.py"
    script.write_text(DRIVEN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "s"], env=environment, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 60
        commits = tmp_path / "s" / "train" / "commits"
        while len(list(commits.glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(number)
        assert run.wait(60) in (-number, 130)
    with LocalEngine(2, "processes") as engine:
        report = ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS, engine=engine)
    assert 2 <= report.resumed_shards < 8
    assert tree(tmp_path / "s") == expected


SHUFFLED: dict[str, Any] = {**SHARDS, "order": "shuffled", "seed": 4}


class TestOrder:
    def test_rows_lie_in_the_order_of_the_seed_and_keys_lead_back(self, tmp_path: Path) -> None:
        rows = source()
        ingest(rows, PixelEncoder(4, 4), tmp_path / "s", "train", dtype="float32", **SHUFFLED)
        split = open_store(tmp_path / "s").split("train")
        assert split.settings["order"] == "shuffled"
        assert split.settings["seed"] == 4
        keys = split.keys(np.arange(N_ROWS))
        back = [int(key.split("/")[1]) for key in keys]
        assert sorted(back) == list(range(N_ROWS))
        assert back != list(range(N_ROWS))
        np.testing.assert_array_equal(split.labels, rows.labels[back])
        assert {back[row] for row in np.flatnonzero(split.status)} == {3, 1500}
        found = split.rows(normalize=False)
        np.testing.assert_array_equal(
            found.read(0, found.n_samples),
            rows.pixels.reshape(N_ROWS, -1)[np.array(back)[found.row_ids]].astype(np.float32) / 255,
        )

    def test_a_stopped_run_goes_on_in_its_order_with_or_without_workers(self, tmp_path: Path) -> None:
        ingest(source(), PixelEncoder(4, 4), tmp_path / "whole", "train", **SHUFFLED)
        rows = source()
        rows.broken[1700] = RuntimeError("stop")
        with pytest.raises(RuntimeError, match="stop"):
            ingest(rows, PixelEncoder(4, 4), tmp_path / "s", "train", **SHUFFLED)
        for other in ({"order": "source"}, {"seed": 5}):
            with pytest.raises(
                PlanMismatchError, match=r"settings\.(order|seed): (shuffled|4) there"
            ) as caught:
                ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **{**SHUFFLED, **other})
            assert "\n" not in str(caught.value)
        report = ingest(
            source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHUFFLED, engine=LocalEngine(2)
        )
        assert report.resumed_shards < 8
        assert tree(tmp_path / "s") == tree(tmp_path / "whole")

    def test_rows_that_are_there_are_not_appended_in_another_order(self, tmp_path: Path) -> None:
        more = array_source(300, seed=1)
        ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS)
        ingest(more, PixelEncoder(4, 4), tmp_path / "s", "train", append=True, **SHUFFLED)
        again = ingest(more, PixelEncoder(4, 4), tmp_path / "s", "train", append=True, **SHUFFLED)
        assert (again.n_encoded, again.first_row) == (0, N_ROWS)
        for rows, how in ((source(), SHUFFLED), (more, SHARDS), (more, {**SHUFFLED, "seed": 5})):
            with pytest.raises(PlanMismatchError, match=r"train has these rows already \(order"):
                ingest(rows, PixelEncoder(4, 4), tmp_path / "s", "train", append=True, **how)
        assert open_store(tmp_path / "s").split("train").n_rows == N_ROWS + 300

    def test_no_such_order_is_refused_before_anything_is_made(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="order must be"):
            ingest(source(), PixelEncoder(4, 4), tmp_path / "s", "train", order="sorted")
        assert not (tmp_path / "s").exists()
