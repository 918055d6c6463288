"""Ingest from tars, Parquet files, manifests and lists: killed and taken up, repaired, asked about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltstore.store import open_store
from support.images import encoded, picture
from support.shards import sample, write_images, write_shard
from support.shell import Shell

N_EACH = 40


def make_tars(path: Path) -> tuple[str, ...]:
    """Three tars; the first has a Parquet file that lists one more, and the last breaks off."""
    for tar in range(3):
        rows = [member for i in range(N_EACH) for member in sample(f"{tar}{i:03d}", i % 2, 100 * tar + i)]
        write_shard(path / f"{tar:05d}.tar", rows)
    last = path / "00002.tar"
    last.write_bytes(last.read_bytes()[:-10240])
    with last.open("rb+") as handle:
        handle.truncate(handle.seek(0, os.SEEK_END) - 2000)
    rows_of_first = {"key": ["0000", "0999"], "status": ["success", "failed_to_download"]}
    pq.write_table(pa.table({**rows_of_first, "error_message": [None, "gone"]}), path / "00000.parquet")
    return (f"{path}/{{00000..00002}}.tar",)


def make_parquet(path: Path) -> tuple[str, ...]:
    for part in range(3):
        images = [encoded(picture(100 * part + i)) for i in range(N_EACH)]
        labels = [i % 2 for i in range(N_EACH)]
        write_images(path / f"train-{part:05d}-of-00003.parquet", images, label=labels, row_group_size=7)
    return (str(path),)


def make_manifest(path: Path) -> tuple[str, ...]:
    lines = ["pic,kind"]
    for row in range(3 * N_EACH):
        name = f"{row % 2}/{row:03d}.jpg"
        lines.append(f"{name},{'ab'[row % 2]}")
        (path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "images" / name).write_bytes(encoded(picture(row)))
    (path / "images" / "0" / "000.jpg").unlink()
    (path / "rows.csv").write_text("\n".join(lines))
    where = ("--path-column", "pic", "--label-column", "kind")
    return (str(path / "rows.csv"), "--root", str(path / "images"), *where)


SOURCES = {"tar": make_tars, "parquet": make_parquet, "manifest": make_manifest}
FAILED = {"tar": {"MISSING": 1, "CORRUPT": 2}, "parquet": {}, "manifest": {"MISSING": 1}}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    return SOURCES[request.param](tmp_path / request.param)


def kind_of(source: tuple[str, ...]) -> str:
    return next(kind for kind in SOURCES if f"/{kind}" in source[0])


def test_ingest_verify_repair_and_ask(shell: Shell, tmp_path: Path, source: tuple[str, ...]) -> None:
    store = tmp_path / "s.zarr"
    report = shell.ok("ingest", *source, store, "--encoder", "pixels:4x4", "--json").json
    assert report["failures"] == FAILED[kind_of(source)]
    again = shell.ok("ingest", *source, store, "--json").json
    assert (again["n_encoded"], again["n_rows"]) == (0, report["n_rows"])
    assert shell.ok("verify", store, "--json").json["ok"]
    split = open_store(store).split("train")
    before = split.rows(normalize=False).read(0, split.rows().n_samples)
    shard = next(path for path in sorted((store / "train").rglob("c/*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = b"\x5a" * 400
    shard.write_bytes(data)
    assert shell("verify", store).code == 1
    repaired = shell.ok("verify", store, "--repair", "--json").json
    assert repaired["ok"]
    rows = open_store(store).split("train").rows(normalize=False)
    assert np.array_equal(rows.read(0, rows.n_samples), before)  # made again from the recorded source
    assert report["n_failed"] == report["n_rows"] - rows.n_samples


def test_predict_takes_them(shell: Shell, tmp_path: Path, source: tuple[str, ...]) -> None:
    store, model = tmp_path / "s.zarr", tmp_path / "m"
    shell.ok("ingest", *source, store, "--encoder", "pixels:4x4")
    shell.ok("train", store, "--out", model, "--head", "ncm")
    split = ("--split", "train") if kind_of(source) == "parquet" else ()
    answer = shell("predict", model, *source, *split, "--json", "--top", "1")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    failed = FAILED[kind_of(source)]
    assert answer.code == (1 if failed else 0)
    assert len(lines) == open_store(store).split("train").n_rows
    assert sum("error" in line and line["error"] is not None for line in lines) == sum(failed.values())


SLOW = """
import sys, time
from ltstore.encode import pixels
encode = pixels.PixelEncoder.encode
def slow(self, batch):
    time.sleep(0.05)
    print("batch", flush=True)
    return encode(self, batch)
pixels.PixelEncoder.encode = slow
from ltstore.store import Store
begin = Store.begin_split
Store.begin_split = lambda self, name, **how: begin(self, name, **{**how, "rows_per_shard": 1024})
from ltstore_cli.app import main
main()
"""


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_killed_ingest_is_taken_up(shell: Shell, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    images = [encoded(picture(i, 8, 8)) for i in range(50)]
    for part in range(5):
        if kind == "tar":
            names = [f"{part}{i:04d}" for i in range(600)]
            members = [
                member
                for i, name in enumerate(names)
                for member in ((f"{name}.jpg", images[(i + part) % 50]), (f"{name}.cls", b"%d" % (i % 3)))
            ]
            write_shard(path / f"{part}.tar", members)
        else:
            rows = [images[(i + part) % 50] for i in range(600)]
            write_images(path / f"{part}.parquet", rows, label=[i % 3 for i in range(600)], row_group_size=100)
    words = ("ingest", path, tmp_path / "cut.zarr", "--encoder", "pixels:4x4", "--batch-size", "64")
    parts = tmp_path / "cut.zarr" / "train" / "rows"
    with subprocess.Popen([sys.executable, "-c", SLOW, *map(str, words)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        for _ in range(24):  # the first shard has sixteen
            assert run.stdout.readline()
        deadline = time.monotonic() + 30
        while not list(parts.glob("*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.kill()
    report = shell.ok(*words, "--json").json
    assert report["n_rows"] == 3000
    assert report["n_failed"] == 0
    assert report["resumed_shards"] >= 1
    assert report["n_encoded"] < 3000
    whole = shell.ok("ingest", path, tmp_path / "whole.zarr", "--encoder", "pixels:4x4", "--json").json
    assert whole["n_encoded"] == 3000
    cut, uncut = (open_store(tmp_path / f"{name}.zarr").split("train").rows() for name in ("cut", "whole"))
    assert np.array_equal(cut.read(0, 3000), uncut.read(0, 3000))
    assert cut.labels.tolist() == uncut.labels.tolist()


def test_failed_downloads_that_fill_a_shard_are_kept(shell: Shell, tmp_path: Path) -> None:
    """A shard of rows that img2dataset could not download is no lost disk."""
    write_shard(tmp_path / "t" / "0.tar", [member for i in range(1000) for member in sample(f"{i:05d}", 0)])
    gone = [f"{i:05d}" for i in range(1000, 2500)]
    pq.write_table(
        pa.table({"key": gone, "status": ["failed_to_download"] * 1500}), tmp_path / "t" / "0.parquet"
    )
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source

    source = open_source(tmp_path / "t")
    for name, images in (("s", source), ("r", open_source(tmp_path / "t", class_names=["x"]))):
        report = ingest(images, open_encoder("pixels:2x2"), tmp_path / name, "train", rows_per_shard=1024)
        assert report.failures == {"MISSING": 1500}


def test_wrong_words_are_one_line(shell: Shell, tmp_path: Path) -> None:
    for words, message in (
        ((f"{tmp_path}/{{0..9}}.tar",), "no file 10 of the 10 of"),
        ((f"{tmp_path}/*.jpg",), "a pattern stands for tars or Parquet files"),
        (("digits", "--label-field", "x"), "label_column is for manifest, parquet, tar only"),
    ):
        result = shell("ingest", *words, tmp_path / "s.zarr", "--encoder", "pixels:4x4")
        assert result.code == 1
        assert message in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "s.zarr").exists()
