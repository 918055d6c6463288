"""A repair that is killed at any moment leaves a store that the same command finishes, as if it had not been killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.storage import Location, lease
from ltstore.store import Store, open_store, repair
from ltstore.store.format import SplitRecord
from ltstore.types import IntArray, RowStatus
from support.foreign import scratch
from support.memory import in_memory, objects
from support.power import Killed, Power, killed_at
from support.stores import begin, made_store, tree, write_pending

N_ROWS = 24  # in three shards


class Maker:
    """Makes the rows of `made_store` again, or cannot."""

    def __init__(self, *, able: bool) -> None:
        self._able = able

    def prepare(
        self, store: Store, label: str, location: Location, record: SplitRecord
    ) -> Callable[[], object]:
        if not self._able:
            raise DataError("the source is gone")

        def make() -> None:
            with begin(store, record.n_rows, "auto") as writer:
                write_pending(writer)
                writer.finish()

        return make

    def insists(self, label: str) -> bool:
        return False

    def subset_ids(self, store: Store, label: str, name: str, settings: Any) -> list[IntArray]:
        return [np.array([0, 2, 11])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s"
    split = made_store(path, N_ROWS).split("train")
    split.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})
    split.add_subset("given", [1, 3], settings={"rule": "file"})
    return path


@pytest.fixture(scope="module")
def damaged(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something for every step: to restore, to re-make, to keep aside, to remove."""
    path = tmp_path_factory.mktemp("damaged") / "s"
    shutil.copytree(whole, path)
    for name, at in (
        ("train/embeddings/c/0/0", 9),
        ("train/embeddings/c/2/0", 9),
        ("train/rows/part-00002.parquet", 9),
        ("train/commits/00002.json", 9),
        ("train/labels/c/1", 9),
        ("train/status/zarr.json", 9),
        ("train/subsets/cut/c/0", 3),
        ("train/subsets/given/c/0", 3),
    ):
        data = bytearray((path / name).read_bytes())
        data[at] ^= 0xFF
        (path / name).write_bytes(data)
    shutil.copy(path / "train" / "commits" / "00001.json", path / "train" / "commits" / "00009.json")
    return path


def settled(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without what differs between equal runs: timings in commit records."""
    found = {}
    for name, data in files.items():
        if name.endswith(".lock"):
            continue
        if "/commits/" in name:
            record = json.loads(data)
            record.pop("timings")
            record.pop("sha256")
            data = json.dumps(record).encode()
        found[name] = data
    return found


def assert_nothing_is_lost(store: Store, whole: Path, able: bool) -> None:
    """What can be read is what was written, or is said to be lost."""
    split, then = store.split("train"), open_store(whole).split("train")
    X, Y = (np.empty((N_ROWS, 5), np.float16) for _ in range(2))
    split.embeddings.read(0, N_ROWS, X)
    then.embeddings.read(0, N_ROWS, Y)
    lost = split.status == RowStatus.LOST
    np.testing.assert_array_equal(X[~lost], Y[~lost])
    np.testing.assert_array_equal(split.labels, then.labels)
    assert lost.any() != able
    assert not lost[8:16].any()


@pytest.mark.parametrize("able", [True, False], ids=["re-made", "salvaged"])
def test_a_kill_at_every_write_then_the_same_again(
    whole: Path, damaged: Path, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "fsync", lambda _: None
    )  # what it promises cannot be seen from here, and it is slow
    with scratch() as directory:
        path = Path(directory, "s")
        shutil.copytree(damaged, path)
        with pytest.MonkeyPatch.context() as patch:
            power = Power(patch, 1 << 30)
            report = repair(path, maker=Maker(able=able))
        assert report.ok, report.problems
        assert_nothing_is_lost(open_store(path), whole, able)
        expected = tree(path)
        if able:
            kept = {name: data for name, data in expected.items() if "/quarantine/" not in name}
            assert kept == {name: data for name, data in tree(whole).items() if "/given/" not in name}
        assert power.calls > 150
        for budget in range(power.calls - 1):
            shutil.rmtree(path)
            shutil.copytree(damaged, path)
            with pytest.MonkeyPatch.context() as patch:
                Power(patch, budget)
                with pytest.raises(Killed):
                    repair(path, maker=Maker(able=able))
            report = repair(path, maker=Maker(able=able))
            assert report.ok, (budget, report.problems)
            assert tree(path) == expected, budget
        assert repair(path, maker=Maker(able=able)).repaired == []


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("able", [True, False], ids=["re-made", "salvaged"])
def test_a_kill_at_every_write_of_an_object_store(whole: Path, damaged: Path, able: bool, torn: bool) -> None:
    place = in_memory(damaged)
    with pytest.MonkeyPatch.context() as patch:
        calls = killed_at(place, 1 << 30, patch, torn)
        next(calls)
        report = repair(place, maker=Maker(able=able))
        n_calls = next(calls)
    assert report.ok, report.problems
    assert_nothing_is_lost(open_store(place), whole, able)
    expected = settled(objects(place))
    assert n_calls > 40
    for budget in range(n_calls - 1):
        place = in_memory(damaged)
        with pytest.MonkeyPatch.context() as patch:
            next(killed_at(place, budget, patch, torn))
            with pytest.raises(Killed):
                repair(place, maker=Maker(able=able))
        lease._held.clear()  # the process is gone
        report = repair(place, maker=Maker(able=able))
        assert report.ok, (budget, report.problems)
        assert settled(objects(place)) == expected, budget
