"""`ltstore predict` as a part of other people's pipes: paths come in one by one, answers go out at once."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import ingest, open_encoder
from ltstore.linear import load_model, predict_top
from ltstore.sources import open_source
from ltstore.store import open_store
from ltstore.workflow import make_subset, train
from support.images import class_tree, encoded, picture
from support.shell import Shell

WAIT = 60
ODD = [
    b"a,b.png",
    b'say "owl".png',
    "žluťoučký 漢.png".encode(),
    b"\xff\xfe.png",
    b"back\\slash.png",
    b" x .png",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store, a model of it, and the photographs that it was made of."""
    home = tmp_path_factory.mktemp("predict")
    class_tree(home / "photos", {"newt, smooth": 6, "owl": 5})
    (home / "photos" / "owl" / "003.jpg").write_bytes(b"not an image")
    source = open_source(home / "photos")
    ingest(source, open_encoder("pixels:8x8"), home / "s.zarr", "test")
    make_subset(home / "s.zarr", "some", split="test", rule="holdout", fraction=0.5)
    train(home / "s.zarr", split="test", head="ridge", out=home / "model")
    return home


class Pipe:
    """`ltstore predict MODEL -` with pipes for its input and output."""

    def __init__(self, made: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ltstore_cli.app", "predict", str(made / "model"), "-", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def line(self) -> bytes:
        """The next line of output, or a failure where none comes."""
        assert self.process.stdout is not None
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], WAIT)
            assert ready, f"no answer in {WAIT} s, only {data!r}"
            piece = self.process.stdout.read(1)
            assert piece, f"the output ends after {data!r}"
            data += piece
        return data

    def end(self) -> tuple[int, bytes, bytes]:
        """Close the input and return (exit code, what else came out, stderr)."""
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out, err


def test_paths_are_answered_as_they_come(made: Path) -> None:
    with Pipe(made, "--json", "--top", "1") as pipe:
        photos = made / "photos"
        for name in ("owl/000.jpg", "owl/003.jpg", "owl/absent.jpg", "newt, smooth/000.jpg"):
            pipe.send(f"{photos / name}\n".encode())
            answer = json.loads(pipe.line())  # before the next path is written
            assert answer["key"] == str(photos / name)
            assert (answer["error"] is None, len(answer["predictions"])) == (
                (True, 1) if "000" in name else (False, 0)
            )
        code, out, err = pipe.end()
        assert (code, out) == (1, b"")
        assert err == b"error: 2 of 4 images could not be read\n"


@pytest.mark.parametrize("end", [b"\n", b"\0"])
@pytest.mark.parametrize("style", ["--json", "--csv"])
def test_odd_names_come_back(style: str, end: bytes, made: Path, tmp_path: Path) -> None:
    names = [
        os.fsencode(tmp_path) + b"/" + name for name in [*ODD, *([b"new\nline.png"] if end == b"\0" else [])]
    ]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(encoded(picture(1), "PNG"))
    with Pipe(made, style, "--top", "1", *(["-0"] if end == b"\0" else [])) as pipe:
        pipe.send(end.join(names))
        code, out, err = pipe.end()
    assert (code, err) == (0, b"")
    text = out.decode()
    if style == "--json":
        keys = [json.loads(line)["key"] for line in text.splitlines()]
    else:
        keys = [row["key"] for row in csv.DictReader(io.StringIO(text))]
    assert [path_of(key) for key in keys] == names


def path_of(key: str) -> bytes:
    """The path of a key, as docs/export.md has it."""
    return re.sub(
        rb"\\(\\|x(..))", lambda found: bytes.fromhex(found[2].decode()) if found[2] else b"\\", key.encode()
    )


def test_a_reader_that_goes_away_is_no_error(made: Path) -> None:
    with Pipe(made, "--csv") as pipe:
        pipe.send(f"{made / 'photos' / 'owl' / '000.jpg'}\n".encode())
        assert pipe.line() == b"key,rank,class,probability,error\n"
        assert pipe.line()
        assert pipe.process.stdout is not None
        pipe.process.stdout.close()
        pipe.send(f"{made / 'photos' / 'owl' / '001.jpg'}\n".encode())
        assert pipe.process.wait(WAIT) != 0  # its input is still open
        assert pipe.process.stderr is not None
        assert pipe.process.stderr.read() == b""


def test_ctrl_c_while_it_waits_for_a_path(made: Path) -> None:
    with Pipe(made, "--json") as pipe:
        pipe.send(f"{made / 'photos' / 'owl' / '000.jpg'}\n".encode())
        assert json.loads(pipe.line())["error"] is None
        pipe.process.send_signal(signal.SIGINT)
        assert pipe.process.wait(WAIT) == 130
        assert pipe.process.stderr is not None
        err = pipe.process.stderr.read().decode()
        assert err.count("\n") == 1
        assert "interrupted" in err


def rows_of(result: Any) -> list[Any]:
    return [json.loads(line) for line in result.out.splitlines()]


def test_stored_rows_need_no_encoder_and_say_what_the_images_said(
    shell: Shell, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_images = shell("predict", made / "model", made / "photos", "--json")
    monkeypatch.setattr("ltstore.encode.pixels.PixelEncoder.encode", None)
    of_rows = shell("predict", made / "model", "--store", made / "s.zarr", "--json")
    assert (of_images.code, of_rows.code) == (1, 1)
    assert "1 of 11 rows have no embedding" in of_rows.err
    assert len(rows_of(of_rows)) == 11
    for image, row in zip(rows_of(of_images), rows_of(of_rows), strict=True):
        assert (image["key"], image["error"] is None) == (row["key"], row["error"] is None)
        for one, other in zip(image["predictions"], row["predictions"], strict=True):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=2e-5)


def test_a_subset_and_appended_rows_of_a_store(shell: Shell, made: Path, tmp_path: Path) -> None:
    store = shutil.copytree(made / "s.zarr", tmp_path / "s.zarr")
    words = ("predict", made / "model", "--store", store, "--json", "--top", "1")
    split, model = open_store(store).split("test"), load_model(made / "model")
    ids = split.subset("some")
    found = rows_of(shell(*words, "--subset", "some"))
    assert [row["key"] for row in found] == split.keys(ids)
    good = split.rows("some")
    top = predict_top(model, good)
    names = [row["predictions"][0]["class"] for row in found if row["error"] is None]
    assert names == [model.class_names[c] for c in top.labels[:, 0]]
    more = open_source(class_tree(tmp_path / "more", {"newt, smooth": 2, "owl": 1}))
    ingest(more, open_encoder("pixels:8x8"), store, "test", append=True)
    assert len(rows_of(shell(*words))) == 14


def test_rows_of_another_encoder_are_refused(shell: Shell, made: Path, tmp_path: Path) -> None:
    source = open_source(made / "photos")
    ingest(source, open_encoder("pixels:4x4"), tmp_path / "other.zarr", "test")
    refused = shell("predict", made / "model", "--store", tmp_path / "other.zarr")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "come from another encoder than the model's" in refused.err


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ([], "SOURCE"),
        (["photos", "--store", "s.zarr"], "SOURCE"),
        (["photos", "--subset", "some"], "--subset"),
        (["photos", "-0"], "--null"),
        (["-", "--split", "test"], "--split"),
        (["-", "--root", "x"], "--root"),
        (["--store", "s.zarr", "--format", "images"], "--format"),
        (["--store", "s.zarr", "--encoder", "pixels:8x8"], "--encoder"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: list[str], flag: str, shell: Shell, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    refused = shell("predict", "model", *words)
    assert refused.code == 2
    assert flag in refused.err


def test_many_rows_of_a_store_are_read_block_by_block(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltstore.workflow import predict_stored, prediction

    model = load_model(made / "model")
    whole = list(predict_stored(model, made / "s.zarr"))
    monkeypatch.setattr(prediction, "BLOCK_ROWS", 3)
    parts = list(predict_stored(model, made / "s.zarr"))
    assert [each.to_json() for each in parts] == [each.to_json() for each in whole]
    assert np.isfinite([value for each in whole for value in each.probabilities]).all()
