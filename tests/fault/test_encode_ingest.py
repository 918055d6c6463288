"""Ingest into a real store: runs that stop, rows that fail, stores that do not fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import PixelEncoder, ingest, open_encoder
from ltstore.errors import (
    ConfigError,
    EncoderMismatchError,
    ImageError,
    LabelError,
    PlanMismatchError,
    SourceError,
    StoreWriteError,
)
from ltstore.sources import open_source
from ltstore.store import SplitWriter, open_store
from ltstore.types import ByteArray, FloatArray, RowStatus
from support.images import ArraySource, SumEncoder, array_source, class_tree, corrupt

SHARDS: dict[str, Any] = {"rows_per_shard": 1024, "batch_size": 100}


def files(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
        and "commits" not in path.parts
        and not path.name.startswith(".")
        and path.suffix != ".lock"
    }


def test_rows_come_back_with_labels_keys_and_status(tmp_path: Path) -> None:
    source = array_source(30, {4: corrupt("row/0004")})
    report = ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", dtype="float32", batch_size=7)
    split = open_store(tmp_path / "s").split("train")
    assert (report.n_rows, report.n_failed, report.failures) == (30, 1, {"CORRUPT": 1})
    assert (report.n_encoded, report.resumed_shards) == (30, 0)
    assert abs(sum(report.shares.values()) - 1) < 1e-9
    rows = split.rows(normalize=False)
    keep = np.delete(np.arange(30), 4)
    assert rows.row_ids.tolist() == keep.tolist()
    assert rows.labels.tolist() == source.labels[keep].tolist()
    np.testing.assert_array_equal(
        rows.read(0, 29), source.pixels.reshape(30, -1)[keep].astype(np.float32) / 255
    )
    assert open_store(tmp_path / "s").class_names == ("a", "b", "c")


class StopAfter(PixelEncoder):
    """Raises after so many batches."""

    def __init__(self, batches: int, error: BaseException) -> None:
        super().__init__(4, 4)
        self.left, self.error = batches, error

    def encode(self, batch: ByteArray) -> FloatArray:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().encode(batch)


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_stopped_run_is_taken_up_and_ends_equal_to_one_that_was_not(
    tmp_path: Path, error: BaseException
) -> None:
    source = array_source(3000, {2500: corrupt()})
    ingest(source, PixelEncoder(4, 4), tmp_path / "whole", "train", **SHARDS)
    with pytest.raises(type(error)) as caught:
        ingest(source, StopAfter(15, error), tmp_path / "cut", "train", **SHARDS)
    assert caught.tb
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ltstore-")]
    counted: list[int] = []
    report = ingest(
        source, PixelEncoder(4, 4), tmp_path / "cut", "train", **SHARDS, progress=lambda n, _: counted.append(n)
    )
    assert (report.resumed_shards, report.n_shards) == (1, 3)
    assert report.n_encoded == sum(counted) == 3000 - 1024
    assert report.failures == {"CORRUPT": 1}
    assert files(tmp_path / "whole") == files(tmp_path / "cut")
    again = ingest(source, PixelEncoder(4, 4), tmp_path / "cut", "train", **SHARDS)
    assert (again.resumed_shards, again.n_encoded) == (3, 0)


def test_a_disk_that_fills_up_leaves_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = array_source(3000)
    write = SplitWriter.write_shard

    def full(self: SplitWriter, shard: int, **columns: Any) -> None:
        if shard == 1:
            raise StoreWriteError("cannot write: No space left on device")
        write(self, shard, **columns)

    monkeypatch.setattr(SplitWriter, "write_shard", full)
    with pytest.raises(StoreWriteError, match="No space left") as caught:
        ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS)
    assert caught.tb  # which holds on to whatever the run had: threads have ended all the same
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ltstore-")]
    monkeypatch.setattr(SplitWriter, "write_shard", write)
    assert ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS).resumed_shards >= 1


def test_a_shard_is_written_while_the_next_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding_second = threading.Event()
    overlapped: list[bool] = []
    write = SplitWriter.write_shard

    def slow(self: SplitWriter, shard: int, **columns: Any) -> None:
        if shard == 0:
            overlapped.append(encoding_second.wait(5))
        write(self, shard, **columns)

    class Noting(PixelEncoder):
        n = 0

        def encode(self, batch: ByteArray) -> FloatArray:
            self.n += len(batch)
            if self.n > 1024:
                encoding_second.set()
            return super().encode(batch)

    monkeypatch.setattr(SplitWriter, "write_shard", slow)
    ingest(array_source(2048), Noting(4, 4), tmp_path / "s", "train", **SHARDS)
    assert overlapped == [True]


def test_all_rows_failed_is_a_complete_split_that_says_so(tmp_path: Path) -> None:
    source = array_source(5, {i: corrupt() for i in range(5)})
    report = ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train")
    assert report.n_failed == report.n_rows == 5
    assert open_store(tmp_path / "s").split("train").rows().n_samples == 0


def test_values_that_do_not_fit_float16_are_overflow(tmp_path: Path) -> None:
    class Large(SumEncoder):
        def encode(self, batch: ByteArray) -> FloatArray:
            X = super().encode(batch)
            X[1], X[2, 0] = 1e6, np.nan
            return X

    report = ingest(array_source(4), Large(), tmp_path / "s", "train")
    assert report.failures == {"NON_FINITE": 1, "OVERFLOW": 1}
    assert report.to_json()["failures"] == report.failures


def test_what_does_not_fit_the_store_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    source = array_source(6)
    ingest(source, SumEncoder(), tmp_path / "s", "train")
    before = files(tmp_path / "s")
    with pytest.raises(EncoderMismatchError, match=r"holds embeddings of another encoder .*model: sum / other"):
        ingest(source, SumEncoder("other"), tmp_path / "s", "test")
    foreign = ArraySource(source.pixels, [0] * 6, ["zebra"])
    with pytest.raises(LabelError, match="zebra"):
        ingest(foreign, SumEncoder(), tmp_path / "s", "test")
    with pytest.raises(PlanMismatchError, match="begun with another plan"):
        ingest(array_source(7), SumEncoder(), tmp_path / "s", "train")
    with pytest.raises(ConfigError, match="class_names differ"):
        ingest(source, SumEncoder(), tmp_path / "s", "test", class_names=["x"])
    assert files(tmp_path / "s") == before


def test_bad_sizes_create_nothing(tmp_path: Path) -> None:
    for wrong in ({"batch_size": 0}, {"n_workers": "few"}):
        with pytest.raises(ConfigError, match="positive integer"):
            ingest(array_source(3), SumEncoder(), tmp_path / "s", "train", **wrong)  # type: ignore[arg-type]
    for wrong in ({"dtype": "float64"}, {"split": "stats"}, {"split": "a/b"}):
        with pytest.raises(ConfigError):
            ingest(array_source(3), SumEncoder(), tmp_path / "s", **{"split": "train", **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_labels_follow_the_stores_class_names(tmp_path: Path) -> None:
    ingest(array_source(6), SumEncoder(), tmp_path / "s", "train")
    other = ArraySource(array_source(3).pixels, [0, 1, 1], ["c", "a"])
    ingest(other, SumEncoder(), tmp_path / "s", "test")
    assert open_store(tmp_path / "s").split("test").rows().labels.tolist() == [2, 0, 0]


def test_plain_pixels_is_resolved_by_the_store(tmp_path: Path) -> None:
    encoder = open_encoder("pixels")
    first = ingest(open_source("digits", limit=50), encoder, tmp_path / "s", "train")
    second = ingest(open_source("digits", split="test", limit=50), encoder, tmp_path / "s", "test")
    assert first.encoder == second.encoder == "pixels:8x8:gray"


def test_folder_with_broken_files(tmp_path: Path) -> None:
    tree = class_tree(tmp_path / "tree", {"a": 3, "b": 3})
    (tree / "a" / "001.jpg").write_bytes(b"")
    source = open_source(tree)
    (tree / "b" / "002.jpg").unlink()
    report = ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train")
    assert report.failures == {"CORRUPT": 1, "MISSING": 1}
    assert open_store(tmp_path / "s").split("train").rows().row_ids.tolist() == [0, 2, 3, 4]


def test_a_source_of_which_nothing_is_there_makes_no_store(tmp_path: Path) -> None:
    tree = class_tree(tmp_path / "tree", {"a": 3, "b": 3})
    listing = tmp_path / "list.txt"
    listing.write_text("a/000.jpg 0\na/001.jpg 0\nb/000.jpg 1\n")
    for source in (
        open_source(listing, root=tmp_path / "wrong"),
        open_source(listing, root=tmp_path / "wrong", limit=2, class_names=["x", "y"]),
    ):
        n = source.n_samples
        looked_for = tmp_path / "wrong" / "a" / "000.jpg"
        with pytest.raises(
            SourceError, match=f"none of the {n} images is there: .* {looked_for}; check the root"
        ):
            ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train")
        assert not (tmp_path / "s").exists()
    report = ingest(open_source(listing, root=tree), PixelEncoder(4, 4), tmp_path / "s", "train")
    assert report.n_failed == 0


def missing(key: str = "x") -> ImageError:
    return ImageError(f"{key}: gone", RowStatus.MISSING)


def test_a_disk_that_is_lost_midway_costs_no_row(tmp_path: Path) -> None:
    source = array_source(2100, {i: missing() for i in range(1000, 2100)})
    with pytest.raises(
        SourceError, match=r"none of the 1,024 images of rows 1024..2047 is there: .* at row/1024; check"
    ):
        ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS)
    source.broken.clear()
    report = ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS)
    assert (report.resumed_shards, report.failures) == (1, {"MISSING": 24})


def test_files_that_may_not_be_read_are_not_given_up_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(class_tree(tmp_path / "tree", {"a": 3, "b": 3}))
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        patch.setattr("ltstore.sources.decode._open_without_waiting", refuse)
        with pytest.raises(SourceError, match="none of the 6 images is there"):
            ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train")
    assert ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train").n_failed == 0


def test_a_few_last_rows_may_all_be_missing(tmp_path: Path) -> None:
    source = array_source(1030, {i: missing() for i in range(1024, 1030)})
    assert ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train", **SHARDS).failures == {"MISSING": 6}


SLOW_RUN = """
import sys, time
from support.images import array_source
from ltstore.encode import PixelEncoder, ingest
class Slow(PixelEncoder):
    def encode(self, batch):
        time.sleep(0.02)
        print("batch", flush=True)
        return super().encode(batch)
ingest(array_source(100_000), Slow(4, 4), sys.argv[1], "train", rows_per_shard=1024, batch_size=256)
"""


def test_ctrl_c_ends_the_process_promptly(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(tmp_path / "s")],
        env={**os.environ, "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    for _ in range(8):
        run.stdout.readline()
    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, stderr = run.communicate(timeout=20)
    assert time.monotonic() - began < 60  # a deadlock would never end; a busy machine may take its time
    assert run.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in stderr
    split = open_store(tmp_path / "s").split("train", allow_incomplete=True)
    assert not split.complete


def test_status_values_are_the_rows(tmp_path: Path) -> None:
    ingest(array_source(3, {1: corrupt()}), SumEncoder(), tmp_path / "s", "train")
    assert open_store(tmp_path / "s").split("train").status.tolist() == [
        RowStatus.OK,
        RowStatus.CORRUPT,
        RowStatus.OK,
    ]
