"""Two processes at one moment, and what a damaged store says of itself."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.atomic import atomic_directory, write_json
from ltstore.encode import ingest, open_encoder
from ltstore.errors import PlanMismatchError, StoreExistsError, StoreFormatError
from ltstore.sources import DigitsSource, RelabelledSource
from ltstore.store import create_store, open_store, verify
from ltstore.types import EncoderIdentity
from support.shell import Shell

IDENTITY = EncoderIdentity(encoder="pixels", model="t", n_features=2)


def _create(path: Path, names: list[str], gate: Any, answers: Any) -> None:
    gate.wait()
    try:
        create_store(path, encoder=IDENTITY, class_names=names)
        answers.put(names)
    except StoreExistsError:
        answers.put(None)


def test_of_two_creators_one_succeeds_and_its_names_stay(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for round_ in range(3):
        gate, answers = context.Barrier(3), context.Queue()
        path = tmp_path / f"{round_}.zarr"
        workers = [
            context.Process(target=_create, args=(path, names, gate, answers))
            for names in (["a", "b"], ["x"], ["p", "q", "r"])
        ]
        for worker in workers:
            worker.start()
        found = [answers.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        winners = [names for names in found if names is not None]
        assert len(winners) == 1
        assert list(open_store(path).class_names) == winners[0]
        assert [entry.name for entry in path.iterdir()] == ["zarr.json"]


def _write(path: Path, text: str, gate: Any) -> None:
    gate.wait()
    for _ in range(30):
        with atomic_directory(path) as new:
            for name in ("one", "two", "three"):
                (new / name).write_text(text)


def test_writers_of_one_directory_never_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    workers = [context.Process(target=_write, args=(tmp_path / "m", text, gate)) for text in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    texts = {file.read_text() for file in (tmp_path / "m").iterdir()}
    assert len(texts) == 1
    assert len(list((tmp_path / "m").iterdir())) == 3


def test_a_directory_set_aside_by_a_killed_writer_is_put_back(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "m") as new:
        (new / "f").write_text("old")
    from ltstore import atomic

    (tmp_path / "m").rename(atomic._name(tmp_path / "m", ".old"))  # killed between the two renames
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "m"):
        assert (tmp_path / "m" / "f").read_text() == "old"
        raise RuntimeError
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Digits, encoded."""
    source = DigitsSource("train")
    ingest(source, open_encoder("pixels", source=source), tmp_path / "d.zarr", "train", rows_per_shard=512)
    return tmp_path / "d.zarr"


def test_shards_of_a_lost_plan_are_not_taken_for_another_run(store: Path) -> None:
    (store / "train" / "zarr.json").unlink()
    source = DigitsSource("test")
    with pytest.raises(StoreFormatError, match="3 shards were written under it"):
        ingest(source, open_encoder("pixels", source=source), store, "train")


def test_a_damaged_split_is_named(store: Path, shell: Shell) -> None:
    (store / "train" / "zarr.json").write_text("{")
    assert "damaged" in shell.ok("info", store).err
    assert "damaged" in shell("train", store, "--out", store.parent / "m").err
    assert not shell("verify", store, "--json").json["ok"]


def test_a_damaged_commit_does_not_stop_verify(store: Path, shell: Shell) -> None:
    (store / "train" / "commits" / "00001.json").write_text("{")
    result = shell("verify", store, "--json")
    assert result.code == 1
    assert any("00001.json" in problem["message"] for problem in result.json["problems"])
    assert not verify(store).ok


def test_a_lost_file_of_a_recompressed_array_is_no_zeros(store: Path) -> None:
    import shutil

    import zarr

    before = open_store(store).split("train").labels.copy()
    raw = store / "train" / "labels"
    shutil.rmtree(raw)
    array = zarr.create_array(raw, shape=before.shape, chunks=(512,), dtype="int64")
    array[:] = before
    np.testing.assert_array_equal(open_store(store).split("train").labels, before)
    (raw / "c" / "1").unlink()
    with pytest.raises(StoreFormatError, match="is missing though its shard was written"):
        _ = open_store(store).split("train").labels


def test_an_encoder_that_moved_is_the_same_encoder(tmp_path: Path) -> None:
    arguments = {"n_rows": 3, "source_digest": "s"}
    made = create_store(tmp_path / "s.zarr", encoder=IDENTITY, class_names=["a"])
    made.begin_split("train", **arguments, settings={"encoder_spec": "onnx:/old/e.onnx", "x": 1}).close()
    made.begin_split("train", **arguments, settings={"encoder_spec": "onnx:/new/e.onnx", "x": 1}).close()
    with pytest.raises(PlanMismatchError, match=r"settings\.x"):
        made.begin_split("train", **arguments, settings={"encoder_spec": "onnx:/new/e.onnx", "x": 2})


def test_a_kill_before_the_root_is_written_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "d.zarr"
    path.mkdir()
    (path / "zarr.json.0-1-2.tmp").write_text("")
    source = RelabelledSource(DigitsSource("test"), [str(i) for i in range(10)])
    assert ingest(source, open_encoder("pixels", source=source), path, "test").n_failed == 0


def test_a_file_is_never_replaced_by_a_directory(tmp_path: Path) -> None:
    write_json(tmp_path / "m", {})
    with pytest.raises(StoreExistsError), atomic_directory(tmp_path / "m") as new:
        (new / "f").write_text("")
    assert json.loads((tmp_path / "m").read_text()) == {}


def test_what_the_slower_of_two_left_beside_a_finished_subset_is_cleared(tmp_path: Path) -> None:
    """Found by the stress test: both store one subset, one is killed, and the subset is there already."""
    from support.stores import made_store, tree

    split = made_store(tmp_path / "s").split("train")
    split.add_subset("cut", [0, 2], settings={})
    before = tree(tmp_path / "s")
    from ltstore import atomic

    dead = atomic._name(split.path / "subsets" / "cut")
    dead = dead.with_name(dead.name.replace(f"-{os.getpid()}-", "-4194305-"))  # above any process number
    dead.mkdir()
    (dead / "zarr.json").write_text("half")
    split.add_subset("cut", [0, 2], settings={})
    assert tree(tmp_path / "s") == before
