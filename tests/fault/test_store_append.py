"""Rows appended to a finished split: a new generation, which appears whole and which older readers do not see."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ltstore.errors import (
    ConfigError,
    PlanMismatchError,
    StoreBusyError,
    StoreFormatError,
    StoreNotFoundError,
    StoreWriteError,
)
from ltstore.rows import iter_blocks
from ltstore.store import Store, create_store, open_store, repair, store_info, verify
from ltstore.store.format import GROUP_FILE, seal
from ltstore.types import Rows, RowStatus
from support.object_server import ObjectServer
from support.power import Killed, Power
from support.shell import Shell
from support.stores import CLASS_NAMES, columns, embeddings, identity, made_store, tree, write_pending

N_ALL, CUTS = 60, (20, 37, 37, 60)  # the third append is of no rows


def append(store: Store, number: int, n_rows: int | None = None, **changes: Any) -> None:
    """Write rows [CUTS[number - 1], CUTS[number]) of `columns(N_ALL)`."""
    start = CUTS[number - 1] if number else 0
    stop = CUTS[number]
    with store.begin_split(
        "train",
        n_rows=stop - start if n_rows is None else n_rows,
        source_digest=f"sha256:made-{number}",
        rows_per_shard=8,
        append=True,
        **changes,
    ) as writer:
        for shard in writer.pending:
            first, last = writer.plan.shard_range(shard)
            writer.write_shard(shard, **columns(N_ALL, start + first, start + last))
        writer.finish()


def made(path: Path, n_appended: int = len(CUTS) - 1) -> Store:
    store = create_store(path, encoder=identity(), class_names=CLASS_NAMES)
    for number in range(n_appended + 1):
        append(store, number)
    return open_store(path)


def test_all_generations_read_as_one(tmp_path: Path) -> None:
    split = made(tmp_path / "s").split("train")
    whole = made_store(tmp_path / "whole", N_ALL).split("train")
    assert [each.n_rows for each in split.generations] == [20, 17, 0, 23]
    assert split.n_rows == N_ALL
    np.testing.assert_array_equal(split.labels, whole.labels)
    np.testing.assert_array_equal(split.status, whole.status)
    assert split.failures() == whole.failures()
    rng = np.random.default_rng(0)
    order = rng.permutation(N_ALL)
    assert split.keys(order) == whole.keys(order)
    assert split.keys([]) == []
    assert split.errors(order) == whole.errors(order)
    assert split.table(None, ["key", "label"]).equals(whole.table(None, ["key", "label"]))
    for rows, expected in (
        (split.rows(), whole.rows()),
        (split.rows(normalize=False), whole.rows(normalize=False)),
    ):
        assert isinstance(rows, Rows)
        np.testing.assert_array_equal(rows.row_ids, expected.row_ids)
        for _ in range(30):
            start, stop = sorted(rng.integers(0, rows.n_samples + 1, 2))
            np.testing.assert_array_equal(rows.read(start, stop), expected.read(start, stop))
            positions = rng.integers(0, rows.n_samples, 9)
            np.testing.assert_array_equal(rows.take(positions), expected.take(positions))
        again = pickle.loads(pickle.dumps(rows))  # noqa: S301
        np.testing.assert_array_equal(again.read(0, again.n_samples), expected.read(0, expected.n_samples))


def test_each_generation_is_an_ordinary_zarr_group(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    group = zarr.open_group(store.path / "train", mode="r")
    values = [
        group["embeddings"][:],
        group["generations/00001/embeddings"][:],
        group["generations/00003/embeddings"][:],
    ]
    ok = store.split("train").status == RowStatus.OK
    expected = embeddings(N_ALL).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate(values)[ok], expected[ok])


def test_an_old_reader_does_not_trip(tmp_path: Path) -> None:
    store = made(tmp_path / "s", 0)
    old = store.split("train")
    old_rows = old.rows()  # labels are read; embeddings, keys and subsets are not
    lazy = store.split("train")
    digest = old.digest
    append(store, 1)
    append(store, 3, 23)
    for split in (old, lazy, pickle.loads(pickle.dumps(old))):  # noqa: S301
        assert (split.n_rows, split.digest) == (20, digest)
        assert len(split.labels) == 20
        assert split.keys([19]) == ["image/0019-é.jpg"]
    assert old_rows.read(0, old_rows.n_samples).shape == (17, 5)
    split = store.split("train")
    assert split.n_rows == 60
    assert split.digest != digest
    for number, n_rows in enumerate((20, 37, 60)):
        assert store.split("train", generation=number).n_rows == n_rows
    assert store.split("train", generation=0).digest == digest
    with pytest.raises(StoreNotFoundError, match="has the generations 0 to 2, asked for generation 3"):
        store.split("train", generation=3)


def test_what_was_made_of_old_rows_stays_valid(tmp_path: Path) -> None:
    store = made(tmp_path / "s", 0)
    split = store.split("train")
    split.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})
    cut, whole = split.rows("cut").digest, split.rows().digest
    append(store, 1)
    later = store.split("train")
    assert later.rows("cut").digest == cut
    assert later.rows().digest != whole
    later.add_subset("cut", [0, 2, 11], settings={"rule": "exp"})  # the same again
    later.add_subset("new", [1, 30], settings={})
    assert later.subset("new").tolist() == [1, 30]
    assert verify(store.path).ok
    with pytest.raises(StoreFormatError, match="had 20 rows when it was opened: rows were appended since"):
        split.subset("new")
    assert split.rows("cut").n_samples == later.rows("cut").n_samples


def test_the_same_source_is_not_appended_twice(tmp_path: Path) -> None:
    store = made(tmp_path / "s")
    before = tree(store.path)
    for number in (0, 1, 3):
        append(store, number)
    assert tree(store.path) == before
    with pytest.raises(PlanMismatchError):
        store.begin_split("train", n_rows=3, source_digest="x")  # without append: another split of that name


def test_what_cannot_be_appended(tmp_path: Path) -> None:
    store = made(tmp_path / "s", 0)
    with pytest.raises(ConfigError, match="is stored as float16: append with that dtype"):
        append(store, 1, dtype="float32")
    writer = store.begin_split("train", n_rows=9, source_digest="a", append=True)
    with pytest.raises(StoreBusyError):
        append(store, 1)
    writer.close()
    with pytest.raises(PlanMismatchError, match="begun with another plan"):
        append(store, 1)  # another append is not finished
    assert store.split("train").n_rows == 20
    facts = store_info(store.path)["splits"]["train"]
    assert facts["appending"] == {"n_rows": 9, "rows_written": 0}
    assert verify(store.path).ok
    assert any("generations/00001 is not complete" in note for note in verify(store.path).notes)


def test_an_incomplete_split_is_finished_first(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", encoder=identity(), class_names=CLASS_NAMES)
    with store.begin_split("train", n_rows=N_ALL, source_digest="sha256:made", rows_per_shard=8) as writer:
        writer.write_shard(0, **columns(N_ALL, 0, 8))
    with pytest.raises(PlanMismatchError):
        append(store, 1)
    with store.begin_split("train", n_rows=N_ALL, source_digest="sha256:made", append=True) as writer:
        assert len(writer.pending) == 7
        write_pending(writer)
        writer.finish()
    assert store.split("train").n_rows == N_ALL


def test_format_version_rises_with_the_first_append(tmp_path: Path) -> None:
    assert made(tmp_path / "a", 0).format_version == 1
    store = made(tmp_path / "b", 1)
    assert store.format_version == 2
    root = store.path / GROUP_FILE
    document = json.loads(root.read_text())
    assert document == seal(document)


@pytest.mark.parametrize(
    "error", [Killed, lambda: OSError(28, "No space left on device")], ids=["kill", "full"]
)
def test_a_crash_at_every_write_point_then_resume(tmp_path: Path, error: Callable[[], BaseException]) -> None:
    made(tmp_path / "first", 0)
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        store = open_store(tmp_path / "whole")
        power = Power(patch, 1 << 30, Killed)
        append(store, 1)
        n_calls = power.calls
    expected = tree(tmp_path / "whole")
    assert n_calls > 60
    for budget in range(n_calls - 1):
        shutil.copytree(tmp_path / "first", tmp_path / f"s{budget}")
        store = open_store(tmp_path / f"s{budget}")
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, budget, error)
            with pytest.raises((Killed, StoreWriteError)):
                append(store, 1)
        report = verify(store.path)
        assert report.ok, (budget, report.problems)
        split = open_store(store.path).split("train")
        assert split.n_rows in (20, 37)
        assert len(split.keys(range(split.n_rows))) == split.n_rows
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, 1 << 30, Killed)  # fsync is slow
            append(open_store(store.path), 1)
        assert tree(store.path) == expected, budget


def damage(store: Store, change: Callable[[dict[str, Any]], None]) -> None:
    where = store.path / "train" / "generations" / "00001" / GROUP_FILE
    document = json.loads(where.read_text())
    change(document["attributes"]["ltstore"])
    where.write_text(json.dumps(seal(document)))


@pytest.mark.parametrize("key, value", [("first_row", 3), ("follows", "sha256:other"), ("dtype", "float32")])
def test_a_generation_that_does_not_follow_is_named(tmp_path: Path, key: str, value: Any) -> None:
    store = made(tmp_path / "s", 1)
    damage(store, lambda record: record.update({key: value}))
    with pytest.raises(StoreFormatError, match="does not follow the rows before it"):
        store.split("train")
    assert not verify(store.path).ok
    assert "damaged" in store_info(store.path)["splits"]["train"]


def test_damage_in_an_appended_generation_is_located(tmp_path: Path) -> None:
    store = made(tmp_path / "s", 1)
    shard = store.path / "train" / "generations" / "00001" / "embeddings" / "c" / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    (problem,) = verify(store.path).problems
    assert (problem.split, problem.array, problem.shard) == ("train/generations/00001", "embeddings", 1)
    (store.path / "train" / "generations" / "00001" / GROUP_FILE).unlink()
    assert not verify(store.path).ok


def test_appending_in_an_object_store(server: ObjectServer, tmp_path: Path) -> None:
    place = server.location("appended.zarr")
    store = create_store(place, encoder=identity(), class_names=CLASS_NAMES)
    for number in range(3):
        append(store, number)
    whole = made(tmp_path / "s", 2).split("train")
    split = open_store(place).split("train")
    assert split.digest == whole.digest
    np.testing.assert_array_equal(split.rows().read(0, 30), whole.rows().read(0, 30))
    assert verify(place).ok


def test_from_the_shell(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "d.zarr"
    shell.ok("ingest", "digits", store, "--split", "train")
    shell.ok("index", store)
    shell.ok("subset", store, "lt", "--rule", "exp", "--imbalance", "10")
    moments = open_store(store).split("train").rows("lt").digest
    more = ["ingest", "digits", store, "--split", "train", "--append"]
    again = shell.ok(*more, "--json")
    assert again.json["n_encoded"] == 0
    added = shell.ok(*more, "--limit", "100", "--json").json
    assert (added["first_row"], added["n_rows"]) == (1258, 100)
    assert "appended after 1,358 rows" in shell.ok(*more, "--limit", "50").out
    split = open_store(store).split("train")
    assert split.n_rows == 1408
    assert split.rows("lt").digest == moments
    facts = shell.ok("info", store)
    assert "appended to 2 times" in facts.out
    assert shell("query", store, "--row", "3").code == 1  # the index is of the rows before
    assert (
        "appended" in shell("query", store, "--row", "3").err
        or "index" in shell("query", store, "--row", "3").err
    )
    shell.ok("verify", store)
    rows = split.rows()
    assert sum(len(X) for _, X, _ in iter_blocks(rows)) == rows.n_samples == 1408
    np.save(tmp_path / "x.npy", np.ones((7, 64), np.float32))
    result = shell("import", tmp_path / "x.npy", store, "--append")
    assert "another encoder" in result.err
    imported = tmp_path / "i.zarr"
    shell.ok("import", tmp_path / "x.npy", imported)
    np.save(tmp_path / "y.npy", np.full((5, 64), 2, np.float16))
    done = shell.ok("import", tmp_path / "y.npy", imported, "--append", "--json").json
    assert (done["first_row"], done["n_rows"], done["dtype"]) == (7, 5, "float32")
    assert (
        open_store(imported).split("train").rows(normalize=False).read(0, 12)[:, 0].tolist()
        == [1] * 7 + [2] * 5
    )


def flip(path: Path, at: int, n_bytes: int = 3) -> None:
    data = bytearray(path.read_bytes())
    for where in range(at, at + n_bytes):
        data[where] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("number", [0, 1])
def test_a_salvaged_generation_keeps_those_after_it(tmp_path: Path, number: int) -> None:
    """What is lost changes a digest; the generations that follow it then follow the new one."""
    store = made(tmp_path / "s")
    before = store.split("train")
    place = store.path / "train" / ("" if not number else f"generations/{number:05d}")
    flip(place / "embeddings" / "c" / "1" / "0", 8)
    assert len(verify(store.path).problems) == 1
    report = repair(store.path)
    assert report.ok, report.problems
    assert any(each.action == "lost" for each in report.repaired)
    after = open_store(store.path).split("train")
    assert after.n_rows == before.n_rows
    lost = np.flatnonzero(after.status == RowStatus.LOST)
    start = after.generations[number].first_row + 8
    assert set(lost) <= set(range(start, start + 8))
    assert after.digest != before.digest
    np.testing.assert_array_equal(after.labels, before.labels)
    assert after.keys(range(N_ALL)) == before.keys(range(N_ALL))
    assert repair(store.path).repaired == []


def test_a_damaged_generation_is_made_again_from_its_source(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "d.zarr"
    shell.ok("ingest", "digits", store)
    shell.ok("ingest", "digits", store, "--limit", "100", "--append")
    shell.ok("ingest", "digits", store, "--limit", "50", "--append")
    before = tree(store)
    flip(store / "train" / "generations" / "00001" / "embeddings" / "c" / "0" / "0", 5000)
    assert shell("verify", store).code == 1
    done = shell.ok("verify", store, "--repair", "--json").json
    assert done["ok"]
    assert any(each["action"] == "re-made" for each in done["repaired"])
    now = {name: data for name, data in tree(store).items() if "quarantine" not in name}
    assert now == before
