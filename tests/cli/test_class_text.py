"""From class names to a zero-shot model and a sampler, on the command line. Random weights of a small architecture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltstore.linear import load_model
from ltstore.store import open_store
from ltstore.workflow import sample
from support.images import class_tree
from support.shell import Shell

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

ARCH = "ViT-S-32-alt"
COUNTS = {"aquarium_fish": 6, "bear": 4, "crane": 1}


@pytest.fixture
def store(tmp_path: Path, shell: Shell) -> Path:
    photos = class_tree(tmp_path / "photos", COUNTS)
    shell.ok("ingest", photos, tmp_path / "s.zarr", "--encoder", f"open_clip:{ARCH}/random", "--device", "cpu")
    return tmp_path / "s.zarr"


def test_zero_shot_is_open_clips_own(shell: Shell, store: Path, tmp_path: Path) -> None:
    refused = shell("train", store, "--head", "zero-shot", "--out", tmp_path / "zero")
    assert refused.code == 1
    assert "run `ltstore text`" in refused.err
    made = shell.ok("text", store, "--device", "cpu", "--json").json
    assert made["templates"] == ["a photo of a {}."]
    assert made["n_classes"] == 3
    shell.ok("train", store, "--head", "zero-shot", "--out", tmp_path / "zero")
    torch.manual_seed(0)
    model = open_clip.create_model(ARCH).eval()
    prompts = open_clip.get_tokenizer(ARCH)(
        [f"a photo of a {name}." for name in ("aquarium fish", "bear", "crane")]
    )
    with torch.no_grad():
        texts = model.encode_text(prompts, normalize=True).numpy()
        scale = float(model.logit_scale.exp())
    rows = open_store(store).split("train").rows()
    logits = scale * rows.read(0, rows.n_samples) @ texts.T
    found = shell.ok("evaluate", tmp_path / "zero", "--store", store, "--split", "train", "--json").json
    assert found["warnings"] == []  # it has seen none of these rows
    accuracy = float((logits.argmax(axis=1) == rows.labels).mean())
    assert found["models"][0]["overall"]["value"] == pytest.approx(accuracy)
    zero = load_model(tmp_path / "zero")
    np.testing.assert_allclose(
        zero.decision_function(rows.read(0, rows.n_samples)), logits, rtol=1e-3, atol=1e-3
    )
    assert zero.class_counts.tolist() == [6, 4, 1]
    assert zero.record["settings"]["head"] == "zero-shot"
    with_loss = shell("train", store, "--head", "zero-shot", "--loss", "ce", "--out", tmp_path / "other")
    assert "closed form of text vectors" in with_loss.err


def test_the_sampler_takes_the_stores_own_vectors(shell: Shell, store: Path, tmp_path: Path) -> None:
    shell.ok("text", store, "--device", "cpu")
    made = shell.ok("sample", store, "--name", "t", "--sampler", "text", "--no-quality", "--json").json
    assert made["n_rows"] == 7
    assert made["settings"]["vectors"] == ""
    assert made["settings"]["vectors_digest"].startswith("sha256:")
    sample(store, name="again", sampler="text", settings=made["settings"], quality=False)  # as a repair does
    one, again = (open_store(store).synthetic(name).rows() for name in ("t", "again"))
    np.testing.assert_array_equal(one.read(0, 7), again.read(0, 7))
    moved = tmp_path / "moved.zarr"
    shutil.move(store, moved)
    shell.ok("train", moved, "--sampler", "text", "--out", tmp_path / "model")
    digest = made["settings"]["vectors_digest"]
    shell.ok("text", moved, "--device", "cpu", "--templates", "clip")
    pinned = ("--sampler", "text", "--sampler-option", f"vectors_digest={digest}")
    refused = shell("train", moved, *pinned, "--out", tmp_path / "again")
    assert refused.code == 1
    assert "the vectors are no longer those of sha256:" in refused.err


def test_templates_and_words_of_files(shell: Shell, store: Path, tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_text("a {}.\nart of {}\n")
    (tmp_path / "words.txt").write_text("goldfish\nbear\nbear\n")
    files = ("--templates", tmp_path / "templates.txt", "--words", tmp_path / "words.txt")
    made = shell.ok("text", store, "--device", "cpu", *files, "--json").json
    assert made["templates"] == ["a {}.", "art of {}"]
    vectors = np.load(Path(made["path"]) / "vectors.npz")["vectors"]
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert shell("text", store, "--templates", "photos").code == 2
    shown = shell.ok("text", store, "--device", "cpu", "--templates", "clip").out
    assert "itap of a aquarium fish." in shown


def test_text_of_another_encoder_is_refused(shell: Shell, store: Path, tmp_path: Path) -> None:
    refused = shell("text", store, "--device", "cpu", "--encoder", f"open_clip:{ARCH}/random:1")
    assert refused.code == 1
    assert "is not the one of the embeddings" in refused.err
    shell.ok("text", store, "--device", "cpu")
    record = Path(store) / "stats" / "class-text" / "record.json"
    spoiled = json.loads(record.read_text())
    del spoiled["seal"]  # so that what it says is looked at
    spoiled["made_from"]["encoder"]["weights_digest"] = "sha256:0"
    record.write_text(json.dumps(spoiled))
    refused = shell("train", store, "--sampler", "text", "--out", tmp_path / "model")
    assert refused.code == 1
    assert "are of another encoder than the rows" in refused.err


def test_encoders_without_a_text_tower_and_names_that_are_codes(shell: Shell, tmp_path: Path) -> None:
    photos = class_tree(tmp_path / "photos", {"n01440764": 2, "n02012849": 1})
    shell.ok("ingest", photos, tmp_path / "p.zarr", "--encoder", "pixels:4")
    refused = shell("text", tmp_path / "p.zarr")
    assert refused.code == 1
    assert "encoder pixels:4x4 has no text tower" in refused.err
    assert "numbers or ids (n01440764)" in refused.err
