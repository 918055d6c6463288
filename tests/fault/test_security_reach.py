"""What is never touched without being asked for: the network, and files that a model or store of others names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import ingest, open_encoder
from ltstore.errors import ConfigError, EncoderUnavailableError, ImageError
from ltstore.sources import open_source
from ltstore.store.format import seal
from ltstore.types import EncoderIdentity, RowStatus
from ltstore.workflow import train
from ltstore.workflow.encoders import reopen_encoder
from support.onnx_nets import write_net
from support.shell import Shell
from support.stores import tree

# A hook of the interpreter sees every socket and file that Python opens, whichever library asks; it cannot be taken off
# again, so it lives in a process of its own. What C++ opens (an ONNX file) fails here by being no such file.
WATCHED = """
import json, sys
trap, commands = json.loads(sys.argv[1])
seen = []
def watch(event, args):
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__", "socket.bind"):
        seen.append(f"{event} {args[1:]}")
    elif event == "socket.__new__" and args[1] not in (socket.AF_UNIX,):
        seen.append(f"socket of family {args[1]}")
    elif event in ("open", "os.listdir", "os.scandir") and trap in str(args[0]):
        seen.append(f"{event} {args[0]}")
    else:
        return
    raise RuntimeError(f"not asked for: {seen[-1]}")
import socket
from ltstore_cli.app import main
sys.addaudithook(watch)
for words in commands:
    sys.argv = ["ltstore", *words]
    try:
        main()
    except SystemExit as stop:
        if stop.code or seen:
            raise SystemExit(f"not asked for: {seen}" if seen else 1)
assert not seen
"""


def run_watched(*commands: tuple[str | Path, ...], trap: str = "\0") -> None:
    """Run commands where no socket and no file below `trap` may be opened."""
    words = json.dumps([trap, [[str(word) for word in command] for command in commands]])
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, words], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes, of 30, 9 and 3 images."""
    rng = np.random.default_rng(0)
    for label, n in enumerate((30, 9, 3)):
        (tmp_path / "photos" / "abc"[label]).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 80, (8, 8, 3), dtype=np.uint8) + np.uint8(80 * label)
            Image.fromarray(pixels).save(tmp_path / "photos" / "abc"[label] / f"{i}.png")
    return tmp_path / "photos"


def test_the_watch_sees_sockets_and_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=r"not asked for: .*os\.scandir .*photos"):
        run_watched(("ingest", photos, tmp_path / "s", "--encoder", "pixels:8"), trap=str(photos))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(AssertionError, match=r"not asked for: .*socket\.getaddrinfo"):
        run_watched(("ingest", photos, tmp_path / "s", "--encoder", "open_clip:ViT-B-32/laion2b_s34b_b79k"))


def test_no_command_on_local_files_opens_a_socket(photos: Path, tmp_path: Path) -> None:
    store, imported, models = tmp_path / "s.zarr", tmp_path / "i.zarr", tmp_path / "m"
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))
    run_watched(
        ("quickstart", "--out", tmp_path / "quickstart"),
        ("ingest", photos, store, "--encoder", "pixels:8"),
        ("ingest", photos, store, "--split", "test"),
        ("import", tmp_path / "X.npy", imported),
        ("export", store, tmp_path / "out.npz", "--format", "npz"),
        ("index", store),
        ("query", store, "--row", 0, "--html", tmp_path / "q.html"),
        ("donors", store),
        ("sample", store, "--name", "ng"),
        ("train", store, "--out", models / "a"),
        ("train", store, "--out", models / "b", "--synthetic", "ng"),
        ("evaluate", models / "a", models / "b", "--store", store, "--report", tmp_path / "r.html"),
        ("predict", models / "a", photos),
        ("verify", store),
        ("info", store),
    )


def foreign(photos: Path, place: Path) -> Path:
    """A store that says of its encoder and its images that they lie at another place."""
    store = place / "s.zarr"
    for split in ("train", "test"):
        ingest(open_source(photos), open_encoder("pixels:8"), store, split)
        document = json.loads((store / split / "zarr.json").read_text())
        settings = document["attributes"]["ltstore"]["settings"]
        settings |= {"encoder_spec": f"onnx:{place}/trap/net.onnx", "source": {"spec": f"{place}/trap/photos"}}
        (store / split / "zarr.json").write_text(json.dumps(seal(document)))
    (place / "trap" / "photos").mkdir(parents=True)
    (place / "trap" / "net.onnx").touch()
    return store


def test_what_a_store_or_model_names_is_not_opened(photos: Path, tmp_path: Path) -> None:
    store, model = foreign(photos, tmp_path), tmp_path / "m"
    run_watched(
        ("info", store),
        ("verify", store),
        ("index", store),
        ("query", store, "--row", "0"),
        ("donors", store),
        ("train", store, "--out", model, "--sampler", "neighbor-gauss"),
        ("evaluate", model, "--store", store),
        ("export", store, tmp_path / "out.npz", "--format", "npz"),
        trap=str(tmp_path / "trap"),
    )
    assert "trap" in json.loads((model / "model.json").read_text())["encoder_spec"]
    with pytest.raises(AssertionError, match=r"cannot load .*trap"):  # labelling images asks for it
        run_watched(("predict", model, photos), trap=str(tmp_path / "trap"))


@pytest.mark.parametrize(
    "spec",
    [
        "open_clip:hf-hub:who/model",
        "open_clip:hf-hub:who/model/tag",
        "open_clip:local-dir:/tmp/x",
        "timm:hf-hub:who/model",
        "timm:hf_hub:who/model/tag",
        "timm:local-dir:/tmp/x",
        "timm:resnet18/hf-hub:who/model",
        "open_clip:ViT-B-32/https://example.org/weights.bin",
        "http://example.org/net.onnx",
        "onnx:http://example.org/net.onnx",
    ],
)
def test_a_recorded_encoder_cannot_name_a_place_of_the_network(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("not asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises((ConfigError, EncoderUnavailableError)):
        reopen_encoder(EncoderIdentity(encoder="onnx", model="m", n_features=3), spec)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret"])
def test_an_onnx_file_cannot_have_weights_elsewhere(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "net" / "a").mkdir(parents=True)
    net = onnx.load(write_net(tmp_path / "net" / "net.onnx"))
    weight = net.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (tmp_path / "net" / "net.onnx").write_bytes(net.SerializeToString())
    with pytest.raises(EncoderUnavailableError, match="cannot load"):
        open_encoder(f"onnx:{tmp_path / 'net' / 'net.onnx'}")


# lists and manifests


def test_a_list_may_name_any_image_and_shows_nothing_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password 1234")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "far.png")
    names = ("../secret", str(tmp_path / "secret"), "../pipe", "/dev/zero", "../far.png")
    (tmp_path / "in" / "m.csv").write_text("path\n" + "\n".join(names))
    source = open_source(tmp_path / "in" / "m.csv")
    failed = []
    for row in range(4):
        with pytest.raises(ImageError) as caught:
            source.read(row)
        assert "1234" not in str(caught.value)
        failed.append(caught.value.status)
    assert failed == [RowStatus.CORRUPT] * 2 + [RowStatus.MISSING] * 2
    assert source.read(4).size == (4, 4)


# names of classes

NAMES = [
    "../../../up",
    "/abs",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "CON",
    "a/b/../c",
]


class Tags(HTMLParser):
    """Names and attributes of tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_class_names_are_neither_paths_nor_markup(tmp_path: Path, shell: Shell) -> None:
    home = tmp_path / "x" / "y" / "z"
    home.mkdir(parents=True)
    lines = []
    for row, label in enumerate([0] * 30 + [1] * 24 + [2] * 6 + [3] * 4 + [4] * 2 + [5] * 2):
        Image.new("RGB", (4, 4), (40 * label, 3 * row, 9)).save(home / f"<marquee>{row}.png")
        lines.append(f"<marquee>{row}.png {label}")
    (home / "l.txt").write_text("\n".join(lines))
    store = home / "s.zarr"
    ingest(open_source(home / "l.txt", class_names=NAMES), open_encoder("pixels:4"), store, "train")
    train(store, out=home / "m")
    before = {path for path in tree(tmp_path) if not path.startswith("x/y/z/s.zarr/")}
    shell.ok("index", store)
    shell.ok("sample", store, "--name", "s")
    shell.ok("query", store, "--row", 0, "-k", 68, "--html", home / "q.html")
    shell.ok("donors", store, "--plot", home / "d.svg")
    shell.ok("evaluate", home / "m", "--store", store, "--split", "train", "--report", home / "r.html")
    shell.ok("export", store, home / "out", "--format", "datacomp")
    made = {path for path in tree(tmp_path) if not path.startswith("x/y/z/s.zarr/")} - before
    assert made
    assert {path.split("/")[3] for path in made} <= {"q.html", "d.svg", "r.html", "out", "out.json"}, made
    for name in ("q.html", "r.html", "d.svg"):
        text = (home / name).read_text("utf-8")
        found = Tags(text).found
        assert not {tag for tag, _ in found} & {"script", "marquee"}, name
        for tag, attrs in found:
            assert not any(key.startswith("on") for key, _ in attrs), (name, tag)
            if tag == "img":
                assert str(dict(attrs).get("src")).startswith("data:"), name
    assert "&lt;script&gt;" in (home / "q.html").read_text("utf-8")
