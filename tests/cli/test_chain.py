"""The whole chain from the shell: images to store, cut, index, donors, synthetic rows, models, report, labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.shell import Shell


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of scikit-learn's digits with a long-tailed cut "lt" and an index of it."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source
    from ltstore.workflow import build_store_index, make_subset

    path = tmp_path_factory.mktemp("chain") / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), path, split)
    make_subset(path, "lt", rule="exp", imbalance=50)
    build_store_index(path, subset="lt")
    return path


def test_ingest_twice_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "d.zarr"
    first = shell.ok("ingest", "digits", store, "--json").json
    files = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    second = shell.ok("ingest", "digits", store, "--json").json
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == files
    assert first["n_rows"] == second["n_rows"]
    assert "whole" in shell.ok("verify", store).out


def test_an_ingest_that_was_stopped_before_its_first_row_goes_on(shell: Shell, tmp_path: Path) -> None:
    shell.ok("ingest", "digits", tmp_path / "d.zarr")
    shutil.rmtree(tmp_path / "d.zarr" / "train")  # as a kill leaves it between the store and its split
    shell.ok("ingest", "digits", tmp_path / "d.zarr")
    assert "whole" in shell.ok("verify", tmp_path / "d.zarr").out


def test_info_and_verify(shell: Shell, digits: Path) -> None:
    facts = shell.ok("info", digits, "--json").json
    assert set(facts["splits"]) == {"train", "test"}
    assert "lt" in facts["splits"]["train"]["subsets"]
    text = shell.ok("info", digits).out
    for word in ("pixels", "train", "test", "lt", "complete"):
        assert word in text
    assert shell.ok("verify", digits, "--json").json["ok"]


def test_subsets(shell: Shell, digits: Path, tmp_path: Path) -> None:
    made = shell.ok("subset", digits, "val", "--rule", "holdout", "--of", "lt", "--json").json
    assert [one["subset"] for one in made] == ["val", "val-rest"]
    np.save(tmp_path / "rows.npy", np.array([5, 3]))
    assert (
        shell.ok("subset", digits, "two", "--rule", "file", "--indices", tmp_path / "rows.npy", "--json").json[
            0
        ]["rows"]
        == 2
    )
    assert shell("subset", digits, "two", "--rule", "exp").code == 1
    bad = shell("subset", digits, "x", "--rule", "linear")
    assert bad.code == 1
    assert "exp, step, file, holdout" in bad.err


def test_query_by_row_and_vectors(shell: Shell, digits: Path, tmp_path: Path) -> None:
    from ltstore.workflow import select

    selection = select(digits, "train", "lt")
    row = int(selection.rows.row_ids[7])
    answer = shell.ok("query", digits, "--subset", "lt", "--row", row, "-k", "3", "--json").json[0]
    assert len(answer["neighbors"]) == 3
    assert row not in [n["row_id"] for n in answer["neighbors"]]
    assert answer["neighbors"][0]["similarity"] >= answer["neighbors"][1]["similarity"]
    np.save(tmp_path / "v.npy", selection.rows.take(np.array([7])))
    own = shell.ok(
        "query", digits, "--subset", "lt", "--vectors", tmp_path / "v.npy", "-k", "1", "--json"
    ).json[0]
    assert own["neighbors"][0]["row_id"] == row
    tail = shell.ok("query", digits, "--subset", "lt", "--row", row, "--among", "few", "--json").json[0]
    assert {n["group"] for n in tail["neighbors"]} == {"few"}
    assert "similarity" in shell.ok("query", digits, "--subset", "lt", "--row", row).out
    assert shell("query", digits, "--subset", "lt", "--row", "99999").code == 1
    assert shell("query", digits, "--row", "1", "--vectors", tmp_path / "v.npy").code == 2
    missing = shell("query", digits, "--row", "1")
    assert missing.code == 1
    assert "ltstore index" in missing.err


def test_query_by_image(shell: Shell, digits: Path, tmp_path: Path) -> None:
    from ltstore.sources import open_source

    source = open_source("digits", split="train")
    source.read(11).save(tmp_path / "digit.png")
    shell.ok("index", digits)
    answer = shell.ok("query", digits, "--image", tmp_path / "digit.png", "-k", "1", "--json").json[0]
    assert answer["neighbors"][0]["row_id"] == 11


def test_donors(shell: Shell, digits: Path) -> None:
    assert shell.ok("donors", digits, "--subset", "lt", "--json").json["found_by"] == "means"
    result = shell.ok("donors", digits, "--subset", "lt", "--by", "index", "--json").json
    assert result["found_by"] == "index"
    for entry in result["classes"]:
        assert entry["class"] not in [d["class"] for d in entry["donors"]]
        assert sum(d["weight"] for d in entry["donors"]) == pytest.approx(1)
    assert "%" in shell.ok("donors", digits, "--subset", "lt").out


def test_models_side_by_side_with_a_report(shell: Shell, digits: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    train = ("train", digits, "--subset", "lt")
    passes = shell.ok(*train, "--loss", "ce", "--out", models / "ce", "--json").json
    assert passes["stopped"] == "tolerance"
    assert len(passes["history"]) == passes["n_passes"]
    shell.ok(*train, "--out", models / "la")
    shell.ok(*train, "--head", "gda", "--out", models / "gda")
    shell.ok(*train, "--sampler", "neighbor-gauss", "--out", models / "ng")
    sample = ("sample", digits, "--subset", "lt", "--name", f"ng-{tmp_path.name}", "--dtype", "float32")
    made = shell.ok(*sample, "--json").json
    assert made["n_rows"] > 0
    shell.ok(*train, "--synthetic", f"ng-{tmp_path.name}", "--out", models / "ng-stored")
    names = ["ce", "la", "gda", "ng", "ng-stored"]
    report = tmp_path / "report.html"
    result = shell.ok(
        "evaluate", *[models / n for n in names], "--store", digits, "--report", report, "--json"
    ).json
    overall = {m["name"]: m["overall"]["value"] for m in result["models"]}
    assert list(overall) == names
    assert overall["la"] > overall["ce"] + 0.05
    assert overall["gda"] > overall["ce"]
    assert overall["ng"] > overall["ce"] + 0.05
    # the same rows, made while training or before it
    assert overall["ng-stored"] == pytest.approx(overall["ng"], abs=0.01)
    page = report.read_text(encoding="utf-8")
    for word in ("ng-stored", "neighbor-gauss", "<html"):
        assert word in page
    text = shell.ok("evaluate", models / "ce", models / "la", "--store", digits).out
    assert "gain over ce" in text
    again = shell(*train, "--out", models / "la")
    assert again.code == 1
    assert "--force" in again.err
    shell.ok(*train, "--out", models / "la", "--force")


def test_predict_folder_with_a_broken_image(shell: Shell, digits: Path, tmp_path: Path) -> None:
    from ltstore.sources import open_source

    shell.ok("train", digits, "--head", "gda", "--out", tmp_path / "m")
    source = open_source("digits", split="test")
    photos = tmp_path / "photos" / "älter"
    photos.mkdir(parents=True)
    for i in range(20):
        source.read(i).save(photos / f"{i:02}.png")
    (photos / "99.png").write_bytes(b"not an image")
    result = shell("predict", tmp_path / "m", tmp_path / "photos", "--json", "--top", "2")
    assert result.code == 1
    assert "1 of 21 images" in result.err
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert len(answers) == 21
    right = [
        a["predictions"][0]["class"] == source.class_names[source.labels[i]] for i, a in enumerate(answers[:20])
    ]
    assert np.mean(right) > 0.8
    assert answers[20]["predictions"] == []
    assert answers[20]["error"]
    csv = shell("predict", tmp_path / "m", photos / "00.png", "--csv", "--top", "3").out.splitlines()
    assert csv[0] == "key,rank,class,probability,error"
    assert len(csv) == 4


def test_quickstart(shell: Shell, tmp_path: Path) -> None:
    result = shell.ok("quickstart", "--out", tmp_path / "q", "--json")
    found = {m["name"]: m["overall"]["value"] for m in result.json["evaluation"]["models"]}
    assert found["logit-adjusted"] > found["ce"]
    assert found["neighbor-gauss"] > found["ce"]
    assert found["all-rows"] > 0.93
    assert (tmp_path / "q" / "report.html").stat().st_size > 10_000
    assert result.json["seconds"] < 60
    text = shell.ok("quickstart", "--out", tmp_path / "q").out
    assert "try next" in text


def test_ingest_needs_an_encoder_for_a_new_store(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    result = shell("ingest", tmp_path, tmp_path / "s.zarr")
    assert result.code == 2
    assert "open_clip" in result.err


def test_ingest_refuses_encoder_settings_that_do_not_apply(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "q.zarr"
    for words in (
        ["--features", "penultimate"],
        ["--encoder-option", "foo=1"],
        ["--encoder-config", "nope.toml"],
        ["--device", "cuda"],
    ):
        assert shell("ingest", "digits", str(store), "--limit", "20", *words).code != 0
        assert not store.exists()
    shell.ok("ingest", "digits", str(store), "--limit", "20")
    result = shell(
        "ingest", "digits", str(store), "--split", "test", "--limit", "20", "--features", "penultimate"
    )
    assert result.code != 0
    assert "penultimate" in result.err
    shell.ok("ingest", "digits", str(store), "--split", "test", "--limit", "20", "--encoder", "pixels")
