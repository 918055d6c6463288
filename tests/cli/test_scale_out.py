"""`--engine`, `--workers`, `--address` and `--order` of ingest, import and verify, as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ltstore.store import open_store
from support.engines import need, ray_cluster
from support.foreign import matrix
from support.images import class_tree
from support.shards import sample, write_shard
from support.shell import Shell
from support.stores import tree


@pytest.fixture(scope="module", params=["processes", "ray"])
def engine(request: pytest.FixtureRequest):
    need(request.param)
    if request.param == "ray":
        with ray_cluster():
            yield "ray"
    else:
        yield request.param


def test_ingest_import_and_verify_by_two_workers(
    shell: Shell, tmp_path: Path, engine: str, monkeypatch
) -> None:
    words = ("--engine", engine, "--workers", "2")
    name = {"ray": "ray"}.get(engine, "local processes")
    monkeypatch.chdir(class_tree(tmp_path / "photos", {"newt": 5, "crane": 4}).parent)
    shell.ok("ingest", "photos", tmp_path / "alone.zarr", "--encoder", "pixels:8")
    assert f"2 {name}" in shell.ok("ingest", "photos", "b.zarr", "--encoder", "pixels:8", *words).out
    assert (
        tree(tmp_path / "b.zarr" / "train")["status/c/0"]
        == tree(tmp_path / "alone.zarr" / "train")["status/c/0"]
    )
    assert tree(tmp_path / "b.zarr") == tree(tmp_path / "alone.zarr")
    found = shell.ok("ingest", "photos", "b.zarr", "--split", "again", *words, "--json").json
    assert (found["engine"]["engine"], found["engine"]["restarts"], found["n_failed"]) == (name, 0, 0)
    np.save(tmp_path / "x.npy", matrix(3000))
    assert f"2 {name}" in shell.ok("import", "x.npy", "i.zarr", *words).out
    shell.ok("import", "x.npy", "j.zarr")
    assert tree(tmp_path / "i.zarr") == tree(tmp_path / "j.zarr")
    one, two = (shell.ok("verify", "i.zarr", *more, "--json").json for more in ((), words))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert shell.ok("verify", "i.zarr", "--workers", "2", "--json").json["ok"]


def test_rows_are_shuffled_and_made_again(shell: Shell, tmp_path: Path) -> None:
    store, shuffled = tmp_path / "d.zarr", ("--order", "shuffled", "--seed", "3")
    for tar in range(12):
        write_shard(
            tmp_path / "tars" / f"{tar:02d}.tar", [m for i in range(3) for m in sample(f"{i}", tar % 2, i)]
        )
    words = ("ingest", tmp_path / "tars", store, "--encoder", "pixels:8")
    shell.ok(*words, *shuffled)
    assert "has its rows shuffled, seed 3" in "".join(shell.ok("info", store).err.split("\n"))
    keys = open_store(store).split("train").keys(range(36))
    assert sorted(keys) == [f"{tar:02d}.tar/{i}" for tar in range(12) for i in range(3)]
    assert len({key.split("/")[0] for key in keys[:24]}) == 8
    before = tree(store)
    for other in ((), ("--order", "shuffled", "--seed", "4"), ("--append",)):
        refused = shell(*words, *other)
        assert refused.code == 1
        assert refused.err.count("\n") == 1
        assert "begun with another plan" in refused.err or "has these rows already" in refused.err
    shell.ok(*words, *shuffled, "--append")
    assert tree(store) == before
    for name in ("embeddings/c/0/0", "rows/part-00000.parquet"):
        file = store / "train" / name
        file.write_bytes(file.read_bytes()[:-9] + b"a" * 9)
    assert "re-made " in shell.ok("verify", store, "--repair").out
    assert {k: v for k, v in tree(store).items() if "quarantine" not in k} == before


@pytest.mark.parametrize(
    "words, code, said",
    [
        (("ingest", "digits", "D", "--engine", "clouds"), 1, "engine must be one of local, processes, ray"),
        (("ingest", "digits", "D", "--address", "auto"), 1, "name engine ray"),
        (("ingest", "digits", "D", "--order", "sorted"), 1, "order must be source or shuffled, found 'sorted'"),
        (("import", "x.npy", "D", "--workers", "2"), 2, "needs --engine processes or ray"),
        (("verify", "D", "--repair", "--engine", "processes"), 2, "a repair is done by this process"),
    ],
)
def test_what_makes_no_sense_is_one_line(shell: Shell, tmp_path: Path, monkeypatch, words, code, said) -> None:
    monkeypatch.chdir(tmp_path)
    result = shell(*words)
    assert result.code == code
    assert said in " ".join(result.err.replace("│", "").split())
    assert "Traceback" not in result.err


def children(process: int) -> list[int]:
    """The processes that this one has started and that run Python's spawn."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (entry / "stat").read_text(), (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(status.rpartition(")")[2].split()[1]) == process and "spawn_main" in command:
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_one_of_two_workers_is_killed_from_outside(tmp_path: Path) -> None:
    images = class_tree(tmp_path / "photos", {"newt": 40, "crane": 30})
    listing = tmp_path / "all.txt"
    files = sorted(images.rglob("*.jpg"))
    listing.write_text("".join(f"{file} {i % 2}\n" for i, file in enumerate(files * 250)))

    def command(store: str, *more: str) -> list[str]:
        words = ("ingest", listing, tmp_path / store, "--encoder", "pixels:8", "--json", *more)
        return [sys.executable, "-m", "ltstore_cli.app", *map(str, words)]

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command("alone.zarr"), env=environment, check=True, stdout=subprocess.DEVNULL)
    more = ("--engine", "processes", "--workers", "2")
    with subprocess.Popen(
        command("s.zarr", *more), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "s.zarr").glob("train/commits/*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = children(run.pid)
        os.kill(workers[-1], signal.SIGKILL)
        out = run.communicate(timeout=120)[0]
    assert len(workers) == 2
    assert run.returncode == 0
    report = json.loads(out)
    assert (report["engine"]["restarts"], report["n_rows"], report["n_failed"]) == (1, len(files) * 250, 0)
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "alone.zarr")
