"""`ltstore reproduce`: published layouts from tiny made trees, resuming, refusals, the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode.class_text import embed_classes
from ltstore.sources import PUBLISHED
from ltstore.store import open_store
from ltstore.types import EncoderIdentity, FloatArray
from ltstore.workflow import make_subset, select
from ltstore.workflow.reproduction import protocol as workflow
from ltstore.workflow.reproduction.baselines import QUICK
from support.images import cifar100_files, encoded, picture, write_files
from support.shell import Shell
from support.stores import tree

N_CLASSES = 4
PER_CLASS = {"train": (12, 8, 4, 3), "test": (4, 4, 4, 4)}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A tree as of Places-LT: lists `path label`, images below, class names beside."""
    root = tmp_path / "places"
    for split, counts in PER_CLASS.items():
        lines = []
        for label, count in enumerate(counts):
            directory = root / split / f"place{label}"
            directory.mkdir(parents=True)
            for i in range(count):
                # of one class: alike, so that something can be learnt
                image = np.asarray(picture(label)).astype(np.int64) + (17 * i + (split == "test")) % 23
                name = directory / f"{i:08d}.jpg"
                name.write_bytes(encoded(_image(image)))
                lines.append(f"{name.relative_to(root)} {label}")
        (root / f"Places_LT_{split}.txt").write_text("\n".join(lines) + "\n")
    (root / "Places_LT_classnames.txt").write_text("".join(f"place{c} place{c}\n" for c in range(N_CLASSES)))
    return root


def _image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _inat(root: Path, split: str, year: str) -> None:
    """JSON as of iNaturalist 2018, of the images of a Places tree."""
    lines = [line.split() for line in (root / f"Places_LT_{split}.txt").read_text().splitlines()]
    listed = {
        "images": [{"id": i, "file_name": path} for i, (path, _) in enumerate(lines)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": int(label)} for i, (_, label) in enumerate(lines)
        ],
        "categories": [{"id": c, "name": f"species {c}"} for c in range(N_CLASSES)],
    }
    (root / f"{year}2018.json").write_text(json.dumps(listed))


def test_a_set_with_its_own_tail(shell: Shell, places: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--out", out)
    told = shell.ok(*words, "--heads", "gda,neighbor-gauss", "--seeds", "2", "--json")
    assert "4 of 4 heads, about 0 min left" in told.err  # la and gda of one seed, the sampler of two
    table = {one["head"]: one for one in told.json["table"]}
    assert [(head, len(one["seeds"])) for head, one in table.items()] == [
        ("la", 1),
        ("gda", 1),
        ("neighbor-gauss", 2),
    ]
    assert table["la"]["over_reference"]["overall"] is None
    for one in table.values():
        estimate = one["accuracy"]["overall"]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert one["accuracy"]["many"] is None
    gain = table["gda"]["over_reference"]["overall"]["value"]
    assert gain == pytest.approx(
        table["gda"]["accuracy"]["overall"]["value"] - table["la"]["accuracy"]["overall"]["value"]
    )
    assert json.loads((out / "results.json").read_text()) == told.json
    page = (out / "results.md").read_text()
    assert "| neighbor-gauss | 2 | " in page
    assert "27 usable train rows, the official files have 62,500" in page
    assert "Liu et al. 2019" in page
    assert (out / "report.html").exists()
    assert open_store(out / "store.zarr").class_names[1] == "place1"
    # the figures are those of `ltstore evaluate`
    judged = shell.ok("evaluate", out / "models" / "seed0" / "gda", "--store", out / "store.zarr", "--json")
    overall = judged.json["models"][0]["overall"]["value"]
    assert overall == pytest.approx(table["gda"]["accuracy"]["overall"]["value"])


def test_a_stopped_run_goes_on_and_takes_more_heads(
    shell: Shell, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--out", out, "--seeds", "1")
    trained: list[str] = []
    real_train = workflow.train

    def train(*given: Any, **how: Any) -> Any:
        if how["out"].name == "gda" and "gda" not in trained:
            trained.append("gda")
            raise KeyboardInterrupt
        trained.append(how["out"].name)
        return real_train(*given, **how)

    monkeypatch.setattr(workflow, "train", train)
    assert shell(*words, "--heads", "ce,gda").code == 130
    first = (out / "records" / "seed0" / "ce.json").read_bytes()
    assert not (out / "results.md").exists()
    shell.ok(*words, "--heads", "ce,gda")
    assert trained == ["la", "ce", "gda", "gda"]
    assert (out / "records" / "seed0" / "ce.json").read_bytes() == first
    table = shell.ok(*words, "--heads", "ncm", "--json").json["table"]
    assert trained[4:] == ["ncm"]
    assert [one["head"] for one in table] == ["la", "ce", "gda", "ncm"]
    shown = shell.ok(*words, "--heads", "ncm")
    assert trained[5:] == []
    assert "results.md" in shown.out
    (out / "records" / "seed0" / "ce.json").write_text("{}")
    assert "ce.json is no record of a head" in shell(*words, "--heads", "ncm").err


def test_inat_from_its_json_and_from_lists(shell: Shell, places: Path, tmp_path: Path) -> None:
    _inat(places, "train", "train")
    _inat(places, "test", "val")
    words = ("reproduce", "inat2018", "--data", places, "--encoder", "pixels:8", "--heads", "gda")
    by_json = shell.ok(*words, "--out", tmp_path / "json", "--json").json
    assert open_store(tmp_path / "json" / "store.zarr").class_names[0] == "species 0"
    for split, year in (("train", "train"), ("test", "val")):
        (places / f"{year}2018.json").unlink()
        (places / f"Places_LT_{split}.txt").rename(places / f"iNaturalist18_{year}.txt")
    by_list = shell.ok(*words, "--out", tmp_path / "list", "--json").json
    accuracy = [[one["accuracy"] for one in told["table"]] for told in (by_json, by_list)]
    assert accuracy[0] == accuracy[1]


def test_images_are_encoded_by_workers(shell: Shell, places: Path, tmp_path: Path) -> None:
    words = ("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--heads", "gda")
    shell.ok(*words, "--out", tmp_path / "alone")
    shared = ("--engine", "processes", "--workers", "2", "--batch-size", "5")
    shell.ok(*words, "--out", tmp_path / "shared", *shared)
    alone, by_two = (tree(tmp_path / name / "store.zarr" / "train") for name in ("alone", "shared"))
    assert alone["embeddings/c/0/0"] == by_two["embeddings/c/0/0"]
    assert "engine must be one of" in shell(*words, "--out", tmp_path / "no", "--engine", "slurm").err


def test_cifar_is_cut_as_by_subset(shell: Shell, tmp_path: Path) -> None:
    data = write_files(tmp_path / "cifar-100-python", cifar100_files(60, 30))
    out = tmp_path / "out"
    words = ("reproduce", "cifar100-lt", "--data", data, "--encoder", "pixels:4", "--out", out)
    told = shell.ok(*words, "--imbalance", "4", "--heads", "ce,gda,all-rows", "--seeds", "2", "--json").json
    seeds = {one["head"]: one["seeds"] for one in told["table"]}
    assert seeds == {"la": [0, 1], "ce": [0, 1], "gda": [0, 1], "all-rows": [0]}
    store = open_store(out / "store.zarr")
    for seed in (0, 1):
        chosen = make_subset(store, f"again{seed}", rule="exp", imbalance=4, seed=seed)[f"again{seed}"]
        found = select(store, "train", f"exp4-seed{seed}").rows.row_ids
        np.testing.assert_array_equal(found, chosen)
    for words_, message in (
        (("--imbalance", "5"), "were made with imbalance 4.0, found 5.0"),
        (("--imbalance", "4", "--encoder", "pixels:5"), "preprocessing.height: 4 / 5"),
        (("--imbalance", "4", "--heads", "zero-shot"), "cannot have head 'zero-shot' here: there is no text"),
        (("--imbalance", "4", "--heads", "forest"), "no head 'forest'; known: la, ce"),
    ):
        refused = shell(*words, *words_)
        assert refused.code == 1
        assert message in refused.err
    # a store that is there takes the place of the images
    short = ("reproduce", "cifar100-lt", "--store", out / "store.zarr", "--imbalance", "4")
    quick = shell.ok(*short, "--quick", "--out", tmp_path / "quick", "--json").json
    assert [one["head"] for one in quick["table"]] == list(QUICK)
    assert not (tmp_path / "quick" / "store.zarr").exists()
    Path(out / "store.zarr").rename(tmp_path / "first.zarr")
    shell.ok("ingest", data, out / "store.zarr", "--split", "train", "--encoder", "pixels:5")
    shell.ok("ingest", data, out / "store.zarr", "--split", "test")
    other = shell(*short, "--quick", "--out", tmp_path / "quick")
    assert "were made with encoder's model 4x4, found 5x5" in other.err
    moved = shell("reproduce", "places-lt", "--store", out / "store.zarr", "--out", out)
    assert "were made with data set cifar100-lt, found places-lt" in moved.err


class _Tower:
    """A text tower whose vectors are those of the pixels' space, one axis a class."""

    spec, device, logit_scale = "a tower", "cpu", 100.0

    def __init__(self, identity: EncoderIdentity) -> None:
        self.identity = identity

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        return np.eye(len(texts), self.identity.n_features, dtype=np.float32)


def test_text_heads_where_the_store_has_text(shell: Shell, places: Path, tmp_path: Path) -> None:
    """Vectors that are kept beside a store are taken as they are, and give the text heads."""
    out = tmp_path / "out"
    words = ("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--out", out)
    without = shell.ok(*words, "--heads", "gda").err
    assert "2 of 2 heads" in without
    store = open_store(out / "store.zarr")
    made = embed_classes(_Tower(store.encoder), store.class_names)
    made.save(store.artefact_path("stats", "class-text"))
    told = shell.ok(*words, "--heads", "zero-shot,text", "--seeds", "2", "--json").json
    assert {one["head"]: one["seeds"] for one in told["table"]} == {
        "la": [0],
        "gda": [0],
        "text": [0, 1],
        "zero-shot": [0],
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_data_that_is_not_there(shell: Shell, name: str, tmp_path: Path) -> None:
    words = ("reproduce", name, "--encoder", "pixels:8", "--out", tmp_path / "out")
    refused = shell(*words, "--data", tmp_path)
    assert refused.code == 1
    assert f"{name} needs {PUBLISHED[name].layouts[0][0]}" in refused.err
    assert "download" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert "--data" in shell(*words).err


def test_words_that_do_not_go_together(shell: Shell, places: Path, tmp_path: Path) -> None:
    assert "no published data set 'cub'" in shell("reproduce", "cub", "--out", tmp_path / "out").err
    own = shell("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--imbalance", "10")
    assert "comes with its own long tail" in own.err
    idle = shell("reproduce", "places-lt", "--data", places, "--store", "x.zarr", "--workers", "2")
    assert idle.code == 2
    assert "leave --data, --workers out" in " ".join(idle.err.replace("│", " ").split())
    for image in places.glob("t*/*/*.jpg"):
        image.unlink()
    gone = shell("reproduce", "places-lt", "--data", places, "--encoder", "pixels:8", "--out", tmp_path / "out")
    assert gone.code == 1
    assert "places" in gone.err
