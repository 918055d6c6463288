"""A damaged store becomes whole: what can be made again is, bit for bit; what is lost is named; nothing shifts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import ingest, open_encoder
from ltstore.errors import (
    DataError,
    IncompleteStoreError,
    LtstoreError,
    SourceNotFoundError,
    StoreBusyError,
    StoreFormatError,
    StoreNotFoundError,
    StoreWriteError,
)
from ltstore.sources import open_source, source_record
from ltstore.storage import Location
from ltstore.store import Store, VerifyReport, open_store, repair, store_info, verify
from ltstore.store.format import GROUP_FILE, SplitRecord
from ltstore.transfer import import_embeddings
from ltstore.types import IntArray, RowStatus
from ltstore.workflow import make_subset, sample
from ltstore.workflow import repair as repair_with_sources
from support.foreign import matrix
from support.memory import in_memory, objects
from support.object_server import ObjectServer
from support.stores import begin, columns, embeddings, made_store, tree, write_pending

N_ROWS = 5000
SHARD = 2048  # rows; two chunks of 1,024


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 rows in three shards, a subset, and synthetic rows with columns of their own."""
    path = tmp_path_factory.mktemp("store") / "s"
    store = made_store(path, N_ROWS, SHARD)
    store.split("train").add_subset("cut", [0, 2, 4999], settings={"rule": "exp"})
    with store.begin_split("more", n_rows=30, source_digest="", rows_per_shard=16, synthetic=True) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            parents = [[row, row + 1] for row in range(start, stop)]
            writer.write_shard(shard, **columns(30, start, stop), extra={"parent_ids": parents})
        writer.finish()
    assert verify(path).ok
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


def flip(file: Path, at: int = 40) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[:-9])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        n_bytes = len(file.read_bytes())
        for at in {n_bytes // 8, n_bytes // 2, n_bytes - 5}:
            flip(file, at)


HOWS = ("missing", "short", "empty", "flipped")


class Rewriter:
    """Makes the rows of `made_store` again; counts how often."""

    def __init__(self, error: LtstoreError | None = None, late: LtstoreError | None = None) -> None:
        self.calls = 0
        self.insisting = False
        self._error = error
        self._late = late

    def prepare(
        self, store: Store, label: str, location: Location, record: SplitRecord
    ) -> Callable[[], object]:
        if self._error is not None:
            raise self._error
        if label != "train":
            raise DataError("only train is made here")

        def make() -> None:
            self.calls += 1
            if self._late is not None:
                raise self._late
            with begin(store, record.n_rows, "auto") as writer:
                write_pending(writer)
                writer.finish()

        return make

    def insists(self, label: str) -> bool:
        return self.insisting

    def subset_ids(self, store: Store, label: str, name: str, settings: Any) -> Sequence[IntArray]:
        return [np.array([1, 2]), np.array([0, 2, 4999])]


def actions(report: VerifyReport) -> list[tuple[str, str, int | None]]:
    return [(step.action, step.array, step.shard) for step in report.repaired]


def without_quarantine(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if "quarantine" not in name}


def kept(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "train" / "quarantine").iterdir())


def assert_only(path: Path, whole: Path, *changed: str) -> None:
    """Only these files, given by the ends of their names, and the split's record differ from before."""
    now, then = without_quarantine(tree(path)), tree(whole)
    assert now.keys() == then.keys()
    for name in now:
        if now[name] != then[name]:
            assert name.endswith(changed), name


# -- restored from the store itself ----------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "name",
    [
        "train/embeddings/zarr.json",
        "train/labels/zarr.json",
        "train/status/zarr.json",
        "train/subsets/zarr.json",
        "synthetic/zarr.json",
        "train/labels/c/1",
        "train/status/c/2",
        "synthetic/more/labels/c/0",
        "train/commits/00001.json",
        "synthetic/more/commits/00001.json",
    ],
)
def test_what_the_store_knows_twice_is_restored(path: Path, whole: Path, name: str, how: str) -> None:
    damage(path / name, how)
    assert not verify(path).ok
    report = repair(path)
    assert report.ok, report.problems
    assert [step.action for step in report.repaired] == ["restored"]
    assert tree(path) == tree(whole)
    assert report.notes == []
    assert repair(path).repaired == []


@pytest.mark.parametrize("size", [1, 5, 20, 36, 40])
def test_an_index_follows_from_its_chunks(path: Path, whole: Path, size: int) -> None:
    """Cut short within index or checksum, or overwritten there, or with something behind it."""
    for shard in range(3):
        file = path / "train" / "embeddings" / "c" / str(shard) / "0"
        data = file.read_bytes()
        file.write_bytes([data[:-size], data[:-size] + bytes(size), data + bytes(size)][shard])
    assert not verify(path).ok
    report = repair(path)
    assert report.ok
    assert {step.action for step in report.repaired} <= {"restored"}
    assert tree(path) == tree(whole)


def test_all_commit_records_at_once(path: Path, whole: Path) -> None:
    for file in (path / "train" / "commits").iterdir():
        file.unlink()
    report = repair(path)
    assert report.ok
    assert actions(report) == [("restored", "commits", shard) for shard in range(3)]
    assert tree(path) == tree(whole)
    assert open_store(path).split("train").digest == open_store(whole).split("train").digest


def test_a_commit_record_of_another_run_is_not_believed(path: Path, whole: Path) -> None:
    """Its seal holds: only the digest of the split says that it is not the one."""
    file = path / "train" / "commits" / "00001.json"
    document = json.loads(file.read_text())
    from ltstore.store.format import seal

    document["files"]["labels"]["sha256"] = "0" * 64
    del document["sha256"]
    file.write_text(json.dumps(seal(document)))
    report = repair(path)
    assert report.ok
    assert tree(path) == tree(whole)


def test_a_shard_that_was_swapped_with_its_record_is_not_touched(path: Path, tmp_path: Path) -> None:
    other = made_store(tmp_path / "other", N_ROWS, SHARD).path
    name = "rows/part-00001.parquet"
    store = open_store(other)
    with store.begin_split("b", n_rows=N_ROWS, source_digest="", rows_per_shard=SHARD) as writer:
        values = columns(N_ROWS, *writer.plan.shard_range(1))
        writer.write_shard(1, **{**values, "keys": ["x"] * len(values["keys"])})
    for name in (
        "embeddings/c/1/0",
        "labels/c/1",
        "status/c/1",
        "rows/part-00001.parquet",
        "commits/00001.json",
    ):
        shutil.copy(other / "b" / name, path / "train" / name)
    before = tree(path)
    report = repair(path)
    assert not report.ok
    assert "which of them is wrong cannot be told" in report.problems[-1].message
    assert report.repaired == []
    assert tree(path) == before


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_split_record_cannot_be_guessed(path: Path, how: str) -> None:
    flip(path / "train" / "embeddings" / "c" / "0" / "0")
    damage(path / "train" / GROUP_FILE, how)
    before = tree(path)
    report = repair(path, maker=Rewriter())
    assert not report.ok
    assert "put that file back from a copy" in report.problems[-1].message
    assert report.repaired == []
    assert tree(path) == before


def test_an_array_that_was_compressed_on_purpose_is_left_alone(path: Path) -> None:
    import zarr

    directory = path / "train" / "embeddings"
    values = embeddings(N_ROWS).astype(np.float16)
    shutil.rmtree(directory)
    array = zarr.create_array(directory, shape=values.shape, chunks=(700, 5), shards=(1400, 5), dtype="float16")
    array[:] = values
    before = tree(path)
    report = repair(path, maker=Rewriter())
    assert not report.ok
    assert "laid out anew by another program" in report.problems[-1].message
    assert tree(path) == before


# -- made again, or lost ---------------------------------------------------------------------------------

FILES = ["embeddings/c/1/0", "rows/part-00001.parquet", "labels/c/1", "status/c/1", "commits/00001.json"]
PAIRS = (
    [(a,) for a in FILES[:2]] + [(a, b) for i, a in enumerate(FILES) for b in FILES[i + 1 :]] + [tuple(FILES)]
)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("names", PAIRS, ids=lambda names: "+".join(name.split("/")[0] for name in names))
def test_any_damage_of_a_shard_is_made_good_from_the_source(
    path: Path, whole: Path, names: tuple[str, ...], how: str
) -> None:
    for name in names:
        damage(path / "train" / name, how)
    found = {file.name: file.read_bytes() for name in names if (file := path / "train" / name).exists()}
    maker = Rewriter()
    report = repair(path, maker=maker)
    assert report.ok, report.problems
    assert without_quarantine(tree(path)) == tree(whole)
    if maker.calls:
        (message,) = [step.message for step in report.repaired if step.action == "re-made"]
        if "commits/00001.json" not in names:
            assert message == "it is bit for bit as it was"
        aside = [data for name, data in tree(path).items() if "quarantine" in name]
        if how == "flipped":  # cut short, a file may be restored
            assert all(data in aside for name, data in found.items() if name in ("0", "part-00001.parquet"))
    else:
        assert {step.action for step in report.repaired} == {"restored"}
    assert repair(path, maker=maker).repaired == []


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: "+".join(name.split("/")[0] for name in names))
def test_without_a_source_only_what_is_damaged_is_lost(path: Path, whole: Path, names: tuple[str, ...]) -> None:
    for name in names:
        flip(path / "train" / name, 9)  # in the first chunk
    report = repair(path, maker=Rewriter(SourceNotFoundError("the source is gone")))
    assert report.ok, report.problems
    store, before = open_store(path), open_store(whole)
    split, then = store.split("train"), before.split("train")
    ids = np.arange(N_ROWS)
    hurt = (ids >= SHARD) & (ids < SHARD + 1024)
    lost = split.status == RowStatus.LOST
    assert not lost[~hurt].any()
    if "embeddings/c/1/0" not in names:
        assert not lost[then.status == RowStatus.OK].any()
    else:
        assert lost[hurt & (then.status == RowStatus.OK)].all()
    same = ~hurt
    np.testing.assert_array_equal(split.status[same], then.status[same])
    np.testing.assert_array_equal(split.labels[same], then.labels[same])
    kept = np.isin(then.rows().row_ids, split.rows().row_ids)
    np.testing.assert_array_equal(
        split.rows(normalize=False).read(0, split.rows().n_samples),
        then.rows(normalize=False).read(0, len(kept))[kept],
    )
    assert split.labels[hurt].tolist() == then.labels[hurt].tolist() or {FILES[1], FILES[2]} <= set(names)
    keys, errors = split.keys(ids), split.errors(ids)
    expected = then.keys(ids)
    for row in ids[lost].tolist()[:3]:
        assert "quarantine/00001-1" in (errors[row] or "")
    if "rows/part-00001.parquet" not in names:
        unproven = {"commits/00001.json"} < set(names)  # nothing vouches for the part then
        assert keys == expected or unproven
    assert keys[:SHARD] == expected[:SHARD]
    assert keys[2 * SHARD :] == expected[2 * SHARD :]
    assert set(keys[SHARD : 2 * SHARD]) in ({""}, set(expected[SHARD : 2 * SHARD]))
    if keys != expected:
        assert any("key of this row was damaged" in (error or "") for error in errors)
    assert_only(path, whole, "/1/0", "/c/1", "00001.json", "00001.parquet", "train/zarr.json")
    if lost.any():
        assert any("lost" in note for note in report.notes)
        assert any(step.action == "lost" and "the source is gone" in step.message for step in report.repaired)
    assert repair(path).repaired == []


def test_a_damaged_byte_costs_no_more_than_its_chunk(path: Path, whole: Path) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0", 1024 * 10 + 4 + 100)  # the second chunk
    report = repair(path)
    (lost,) = [step for step in report.repaired if step.action == "lost"]
    assert (lost.split, lost.array, lost.shard, lost.rows) == ("train", "embeddings", 1, (3072, 4096))
    status = open_store(path).split("train").status
    then = open_store(whole).split("train").status
    changed = np.flatnonzero(status != then)
    assert (changed.min() >= 3072, changed.max() < 4096) == (True, True)
    assert (then[changed] == RowStatus.OK).all()
    assert len(changed) == (then[3072:4096] == RowStatus.OK).sum()
    assert open_store(path).split("train").failures()["LOST"] == len(changed)
    assert any(f"name the old one ({open_store(whole).split('train').digest})" in note for note in report.notes)


def test_whole_rows_do_not_come_from_the_source(path: Path, whole: Path) -> None:
    """Made elsewhere, numbers may differ in their last bit: only damaged rows take the new ones."""
    flip(path / "train" / "embeddings" / "c" / "1" / "0")

    class Elsewhere(Rewriter):
        def prepare(
            self, store: Store, label: str, location: Location, record: SplitRecord
        ) -> Callable[[], object]:
            def make() -> None:
                with begin(store, record.n_rows, "auto") as writer:
                    values = columns(N_ROWS, *writer.plan.shard_range(1))
                    values["embeddings"] = values["embeddings"] + 1
                    values["status"][:] = RowStatus.OK
                    values["status"][5] = values["status"][2000] = RowStatus.MISSING
                    writer.write_shard(1, **values)
                    writer.finish()

            return make

    report = repair(path, maker=Elsewhere())
    assert report.ok
    split, then = open_store(path).split("train"), open_store(whole).split("train")
    assert split.status[SHARD + 5] == RowStatus.MISSING
    assert split.status[SHARD + 2000] == then.status[SHARD + 2000]
    np.testing.assert_array_equal(split.status[3072:], then.status[3072:])
    X, Y = (np.empty((N_ROWS, 5), np.float16) for _ in range(2))
    split.embeddings.read(0, N_ROWS, X)
    then.embeddings.read(0, N_ROWS, Y)
    np.testing.assert_array_equal(X[3072:], Y[3072:])
    np.testing.assert_array_equal(X[:SHARD], Y[:SHARD])
    assert (X[SHARD : SHARD + 5] == (embeddings(N_ROWS)[SHARD : SHARD + 5] + 1).astype(np.float16)).all()
    (step,) = [step for step in report.repaired if step.action == "re-made"]
    assert "differ from what they were" in step.message


def test_a_file_of_another_shard_is_not_taken_for_this_one(path: Path, whole: Path) -> None:
    """Its checksums all hold: only the digest says that the rows are others."""
    for name in ("embeddings/c/1/0", "labels/c/1", "status/c/1", "rows/part-00001.parquet"):
        source = path / "train" / name.replace("c/1", "c/0").replace("00001", "00000")
        shutil.copy(source, path / "train" / name)
    report = repair(path)
    assert report.ok
    split = open_store(path).split("train")
    assert (split.status[SHARD : 2 * SHARD] == RowStatus.LOST).all()
    assert (split.labels[SHARD : 2 * SHARD] == -1).all()
    assert set(split.keys(range(SHARD, 2 * SHARD))) == {""}
    assert_only(path, whole, "/1/0", "/c/1", "00001.json", "00001.parquet", "train/zarr.json")


def test_lost_rows_come_back_when_their_source_does(path: Path, whole: Path) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0")
    assert repair(path).ok
    assert open_store(path).split("train").failures()["LOST"] > 800
    assert verify(path).notes[0].startswith("train has lost 878 embeddings")
    report = repair(path, maker=Rewriter(SourceNotFoundError("still gone")))
    assert (report.ok, report.repaired) == (True, [])
    report = repair(path, maker=Rewriter())
    assert report.ok
    assert without_quarantine(tree(path)) == tree(whole)
    assert kept(path) == ["00001-1", "00001-2"]
    assert repair(path, maker=Rewriter()).repaired == []


def test_damage_twice_is_kept_twice(path: Path) -> None:
    for number, at in ((1, 40), (2, 1024 * 10 + 4 + 100)):
        flip(path / "train" / "embeddings" / "c" / "1" / "0", at)
        assert repair(path).ok
        assert kept(path) == [f"00001-{i + 1}" for i in range(number)]
    split = open_store(path).split("train")
    assert (split.status[SHARD : 2 * SHARD] != RowStatus.OK).all()
    assert "00001-1" in split.errors([SHARD])[0]  # type: ignore[operator]
    assert "00001-2" in split.errors([3072])[0]  # type: ignore[operator]


def test_synthetic_rows_keep_their_columns(path: Path) -> None:
    flip(path / "synthetic" / "more" / "rows" / "part-00001.parquet", 9)
    flip(path / "synthetic" / "more" / "embeddings" / "c" / "0" / "0", 9)
    assert repair(path).ok
    made = open_store(path).synthetic("more")
    table = made.table(None, ["key", "parent_ids"]).to_pylist()
    assert table[3]["parent_ids"] == [3, 4]
    assert table[20] == {"key": "", "parent_ids": None}


def test_a_source_that_was_named_is_not_given_up(path: Path, whole: Path) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0")
    before = tree(path)
    maker = Rewriter(SourceNotFoundError("no source at /there"))
    maker.insisting = True
    report = repair(path, maker=maker)
    assert not report.ok
    assert report.problems[-1].message == "not repaired: no source at /there"
    assert tree(path) == before
    maker = Rewriter(late=DataError("the images changed"))
    maker.insisting = True
    report = repair(path, maker=maker)
    assert not report.ok
    with pytest.raises(IncompleteStoreError):
        open_store(path).split("train")
    assert repair(path, maker=Rewriter()).ok
    assert without_quarantine(tree(path)) == tree(whole)


@pytest.mark.parametrize("error", [StoreWriteError("the disk is full"), StoreBusyError("another writer")])
def test_an_outage_loses_nothing(path: Path, whole: Path, error: LtstoreError) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0")
    report = repair(path, maker=Rewriter(late=error))
    assert not report.ok
    assert str(error) in report.problems[-1].message
    assert repair(path, maker=Rewriter()).ok
    assert without_quarantine(tree(path)) == tree(whole)


def test_a_source_that_fails_late_loses_only_what_is_damaged(path: Path) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0")
    report = repair(path, maker=Rewriter(late=DataError("the images changed")))
    assert report.ok
    assert any("the images changed" in step.message for step in report.repaired if step.action == "lost")


def test_a_split_that_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", 40)
    with begin(store, 40), pytest.raises(StoreBusyError):
        begin(store, 40)
    flip(store.path / "train" / "embeddings" / "c" / "1" / "0")
    with begin(store, 40):
        report = repair(store.path)
        assert not report.ok
        assert "is being written by process" in report.problems[-1].message
    assert repair(store.path).ok


def test_an_unfinished_split_gets_its_shard_back_from_its_own_run(tmp_path: Path) -> None:
    whole = made_store(tmp_path / "whole", 40)
    store = made_store(tmp_path / "other", 8)
    shutil.rmtree(store.path / "train")
    with begin(store, 40) as writer:
        for shard in (0, 1, 3):
            writer.write_shard(shard, **columns(40, *writer.plan.shard_range(shard)))
    flip(store.path / "train" / "embeddings" / "c" / "1" / "0")
    flip(store.path / "train" / "commits" / "00003.json", 9)
    maker = Rewriter()
    report = repair(store.path, maker=maker)
    assert report.ok
    assert maker.calls == 0  # finishing it is not a repair
    assert actions(report) == [("quarantined", "", 1), ("quarantined", "", 3)]
    assert "its own command writes the shard again" in report.repaired[0].message
    with begin(store, 40) as writer:
        assert writer.pending == (1, 2, 3, 4)
        write_pending(writer)
        writer.finish()
    assert without_quarantine(tree(store.path)) == tree(whole.path)
    assert repair(store.path).repaired == []


def test_commit_records_that_the_plan_has_not(path: Path, whole: Path) -> None:
    shutil.copy(path / "train" / "commits" / "00001.json", path / "train" / "commits" / "00007.json")
    report = repair(path)
    assert report.ok
    assert actions(report) == [("quarantined", "commits", None)]
    assert without_quarantine(tree(path)) == tree(whole)


def test_leftovers_of_the_dead_are_removed(path: Path, whole: Path) -> None:
    (path / "train" / "embeddings" / "c" / "0" / "0.tmp").write_bytes(b"half")
    report = repair(path)
    assert (report.ok, report.notes) == (True, [])
    assert [(step.action, step.message.split()[0]) for step in report.repaired] == [
        ("removed", "train/embeddings/c/0/0.tmp")
    ]
    assert tree(path) == tree(whole)


def test_quarantine_is_known_and_not_read(path: Path) -> None:
    flip(path / "train" / "embeddings" / "c" / "1" / "0")
    repair(path)
    assert store_info(path)["splits"]["train"]["quarantine"] == ["00001-1"]
    report = verify(path)
    assert report.ok
    assert any("keeps 1 damaged things aside" in note and "00001-1" in note for note in report.notes)
    for file in (path / "train" / "quarantine").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert verify(path).ok
    assert repair(path).ok
    assert open_store(path).split("train").rows().n_samples > 3000
    json.dumps(report.to_json())


# -- subsets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["c/0", GROUP_FILE])
def test_a_subset_is_made_again_or_kept_aside(path: Path, whole: Path, name: str, how: str) -> None:
    damage(path / "train" / "subsets" / "cut" / name, how)
    report = repair(path, maker=Rewriter())
    assert report.ok, report.problems
    if name == "c/0":
        assert actions(report) == [("re-made", "subsets/cut", None)]
        assert tree(path) == tree(whole)
    else:
        assert actions(report) == [("quarantined", "subsets/cut", None)]
        with pytest.raises(StoreNotFoundError):
            open_store(path).split("train").subset("cut")
        assert (path / "train" / "quarantine" / "subset-cut-1" / "c" / "0").exists()
    assert repair(path).repaired == []


# -- what wrote the splits -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as `ltstore ingest` writes them, cuts, and synthetic rows."""
    path = tmp_path_factory.mktemp("digits") / "s"
    source = open_source("digits")
    record = source_record("digits", split="train")
    ingest(source, open_encoder("pixels", source=source), path, "train", source_record=record)
    make_subset(path, "tail", rule="exp", imbalance=10, seed=3)
    make_subset(path, "val", rule="holdout", of="tail")
    make_subset(path, "given", rule="file", indices=[3, 1, 2])
    sample(path, name="more", subset="tail", seed=5)
    return path


def test_everything_that_has_a_recipe_is_made_again(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "s")
    path = tmp_path / "s"
    for name in (
        "train/embeddings/c/0/0",
        "train/rows/part-00001.parquet",
        "train/subsets/tail/c/0",
        "train/subsets/val/c/0",
        "train/subsets/val-rest/c/0",
        "synthetic/more/embeddings/c/0/0",
        "synthetic/more/rows/part-00000.parquet",
    ):
        flip(path / name, 9)
    report = repair_with_sources(path)
    assert report.ok, report.problems
    assert without_quarantine(tree(path)) == without_quarantine(tree(digits))
    assert [step.action for step in report.repaired].count("re-made") == 6
    assert {
        step.message for step in report.repaired if step.action == "re-made" and step.shard is not None
    } == {"it is bit for bit as it was"}
    assert {step.action for step in report.repaired} == {"quarantined", "re-made"}
    assert repair_with_sources(path).repaired == []


def test_rows_of_a_file_have_no_recipe(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "s")
    flip(tmp_path / "s" / "train" / "subsets" / "given" / "c" / "0", 9)
    report = repair_with_sources(tmp_path / "s")
    assert report.ok
    assert actions(report) == [("quarantined", "subsets/given", None)]


def test_embeddings_are_imported_again_from_where_they_lie_now(tmp_path: Path) -> None:
    X = matrix(3000, dtype="float16")
    X[7] = np.nan
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "x.npy", X)
    np.save(tmp_path / "a" / "y.npy", np.arange(3000) % 3)
    arguments = {"labels": tmp_path / "a" / "y.npy", "normalized": False, "model": "M"}
    import_embeddings(tmp_path / "a" / "x.npy", tmp_path / "s", "train", **arguments)  # type: ignore[arg-type]
    shutil.copytree(tmp_path / "s", tmp_path / "whole")
    for name in ("embeddings/c/1/0", "labels/c/1", "rows/part-00001.parquet"):
        flip(tmp_path / "s" / "train" / name, 9)
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    assert repair_with_sources(tmp_path / "s").ok
    assert without_quarantine(tree(tmp_path / "s")) == tree(tmp_path / "whole")
    shutil.move(tmp_path / "a", tmp_path / "b")
    report = repair_with_sources(tmp_path / "t", sources={"train": tmp_path / "nowhere.npy"})
    assert "are not at" in report.problems[-1].message
    report = repair_with_sources(tmp_path / "t", sources={"": tmp_path / "b" / "x.npy"})
    assert report.ok
    assert without_quarantine(tree(tmp_path / "t")) == tree(tmp_path / "whole")


@pytest.mark.parametrize("why", ["changed", "gone", "unrecorded", "no source"])
def test_why_a_source_was_not_used_is_said(digits: Path, tmp_path: Path, why: str) -> None:
    from support.images import class_tree

    tree_path = class_tree(tmp_path / "images", {"a": 3, "b": 3})
    source = open_source(tree_path)
    record = None if why == "unrecorded" else source_record(tree_path, split="train")
    path = tmp_path / "s"
    ingest(source, open_encoder("pixels:4x4"), path, "train", source_record=record)
    flip(path / "train" / "embeddings" / "c" / "0" / "0", 9)
    if why == "changed":
        (tree_path / "c").mkdir()
        shutil.copy(next((tree_path / "a").iterdir()), tree_path / "c")
    elif why == "gone":
        shutil.rmtree(tree_path)
    report = repair_with_sources(path, use_source=why != "no source")
    assert report.ok
    (lost,) = [step for step in report.repaired if step.action == "lost"]
    text = {
        "changed": "a class|not those that train was made from|'c'",
        "gone": "no source",
        "unrecorded": "was not recorded",
        "no source": "not to be used",
    }[why]
    assert re.search(text, lost.message)
    assert open_store(path).split("train").failures() == {"LOST": 6}


# -- object stores ---------------------------------------------------------------------------------------


def below(place: Location, name: str) -> Location:
    for part in name.split("/"):
        place = place / part
    return place


def test_a_store_behind_a_url(digits: Path, server: ObjectServer) -> None:
    place = server.location("repair.zarr")
    for name, data in objects(in_memory(digits)).items():
        below(place, name).write([data])
    expected = objects(place)
    for name in ("train/embeddings/c/0/0", "train/subsets/given/c/0"):
        changed = bytearray(below(place, name).read())
        changed[9] ^= 0xFF
        below(place, name).write([bytes(changed)])
    report = repair_with_sources(place)
    assert report.ok, report.problems
    assert actions(report) == [
        ("quarantined", "", 0),
        ("re-made", "", 0),
        ("quarantined", "subsets/given", None),
    ]
    found = {name: data for name, data in objects(place).items() if "/commits/" not in name}
    for name, data in without_quarantine(found).items():
        assert data == expected[name], name


def test_an_outage_of_the_service_is_no_damage(whole: Path) -> None:
    place = in_memory(whole)
    client = type(place.client)
    expected = objects(place)
    with pytest.MonkeyPatch.context() as patch:
        real = client.read

        def failing(self: Any, key: str, limit: int | None) -> Any:
            if "embeddings/c/1" in key:
                raise OSError("503 Slow Down")
            return real(self, key, limit)

        patch.setattr(client, "read", failing)
        patch.setattr("ltstore.storage.objects._PAUSE_SECONDS", 0)
        report = repair(place)
        assert not report.ok
        assert any("503" in problem.message for problem in report.problems)
        assert report.repaired == []
    assert objects(place) == expected
    assert verify(place).ok


def test_a_store_that_cannot_be_opened_says_so(path: Path) -> None:
    (path / GROUP_FILE).write_text("{")
    with pytest.raises(StoreFormatError):
        repair(path)


def test_any_flipped_bit_is_flipped_back(digits: Path, tmp_path: Path) -> None:
    """Of every file of a store, with no source at all."""
    rng = np.random.default_rng(1)
    path = tmp_path / "s"
    shutil.copytree(digits, path)
    expected = tree(digits)
    for name in sorted(
        name for name in expected if not name.startswith("stats/")
    ):  # made from the rows at need
        file = path / name
        data = file.read_bytes()
        for _ in range(3):
            flipped = bytearray(data)
            flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            report = repair(path)
            assert report.ok, (name, report.problems)
            assert {step.action for step in report.repaired} <= {"restored"}
            if not (
                data.startswith(b"{") and file.read_bytes() == flipped
            ):  # white space, or a number spelled otherwise
                assert tree(path) == expected, name
            file.write_bytes(data)


def test_several_flipped_bits_in_several_chunks(path: Path, whole: Path) -> None:
    file = path / "train" / "embeddings" / "c" / "1" / "0"
    data = bytearray(file.read_bytes())
    for at in (17, 1024 * 10 + 4 + 100, len(data) - 9):  # both chunks, and the index
        data[at] ^= 4
    file.write_bytes(data)
    report = repair(path)
    assert actions(report) == [("restored", "embeddings", 1)]
    assert tree(path) == tree(whole)


def test_a_class_that_was_renamed_by_hand_stays_renamed(path: Path) -> None:
    file = path / GROUP_FILE
    file.write_text(file.read_text().replace('"newt"', '"newu"'))  # one bit
    report = repair(path)
    assert not report.ok
    assert open_store(path).class_names[0] == "newu"
