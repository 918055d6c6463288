"""Every kind of head from the shell to the formats of other programs, judged by what those programs answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from ltstore.encode import ingest, open_encoder
from ltstore.linear import load_model, predict_rows
from ltstore.sources import open_source
from ltstore.store import open_store
from support.images import class_tree
from support.shell import Shell

HEADS = {
    "ce": ("--loss", "ce"),
    "adjusted": ("--loss", "la"),
    "whitened": ("--penalty", "whitened"),
    "margins": ("--margin", "0.3", "--loss", "ce"),
    "posthoc": ("--loss", "ce", "--posthoc-tau", "1"),
    "cosine": ("--head", "cosine"),
    "ncm": ("--head", "ncm"),
    "gda": ("--head", "gda"),
    "ridge": ("--head", "ridge"),
    "zero-shot": ("--head", "zero-shot"),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of digits, and one of an encoder that has a text tower."""
    pytest.importorskip("open_clip")
    from ltstore.workflow import embed_class_names

    home = tmp_path_factory.mktemp("export")
    source = open_source("digits", split="train", limit=300)
    ingest(source, open_encoder("pixels", source=source), home / "digits.zarr", "train")
    photos = open_source(class_tree(home / "photos", {"bear": 4, "crane": 3, "owl": 2}))
    ingest(photos, open_encoder("open_clip:ViT-S-32-alt/random", device="cpu"), home / "photos.zarr", "train")
    embed_class_names(home / "photos.zarr", device="cpu")
    return {"digits": home / "digits.zarr", "photos": home / "photos.zarr"}


def from_safetensors(path: Path, X: np.ndarray) -> Any:
    with safe_open(path, "numpy") as file:
        if json.loads(file.metadata()["normalize"]):
            X = X / np.linalg.norm(X, axis=1, keepdims=True)
        logits = X @ file.get_tensor("weight").T + file.get_tensor("bias")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def from_sklearn(path: Path, X: np.ndarray) -> Any:
    import joblib

    return joblib.load(path).predict_proba(X)


def from_onnx(path: Path, X: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(["probabilities"], {"embeddings": X})[0]


@pytest.mark.parametrize("name", HEADS)
def test_every_head_leaves_in_every_format(
    name: str, shell: Shell, stores: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    store = stores["photos" if name == "zero-shot" else "digits"]
    shell.ok("train", store, *HEADS[name], "--out", tmp_path / "model")
    model, split = load_model(tmp_path / "model"), open_store(store).split("train")
    logits = np.concatenate([block for _, block in predict_rows(model, split.rows())]).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    raw = split.rows(normalize=False)
    X = raw.read(0, raw.n_samples)  # as the encoder gave them
    assert np.ptp(np.linalg.norm(X, axis=1)) > 0.1
    for layout, answer in {"safetensors": from_safetensors, "sklearn": from_sklearn, "onnx": from_onnx}.items():
        out = tmp_path / layout
        report = shell.ok("export-model", tmp_path / "model", out, "--format", layout, "--json").json
        assert report["n_bytes"] == out.stat().st_size
        np.testing.assert_allclose(answer(out, X), expected, rtol=1e-3, atol=1e-6, err_msg=layout)


def test_a_person_is_told_what_a_pickle_is_and_what_was_checked(
    shell: Shell, stores: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = tmp_path / "model"
    shell.ok("train", stores["digits"], "--head", "gda", "--out", model)
    pickled = shell.ok("export-model", model, tmp_path / "m.joblib", "--format", "sklearn")
    assert "warning" in pickled.err
    assert "is a pickle" in pickled.err
    written = shell.ok("export-model", model, tmp_path / "m.onnx", "--format", "onnx", "--with-encoder")
    assert "pixels, uint8 (n, 8, 8, 1), normalised in the file" in written.out
    assert "off the model's own answers" in written.out
    assert written.err == ""
    again = shell("export-model", model, tmp_path / "m.onnx", "--format", "onnx")
    assert (again.code, again.err.count("\n"), "is there already" in again.err) == (1, 1, True)
    lone = shell("export-model", model, tmp_path / "o", "--format", "onnx", "--encoder", "pixels:8x8:gray")
    assert (lone.code, "--with-encoder" in lone.err) == (2, True)
    with_arrays = shell("export-model", model, tmp_path / "o", "--format", "safetensors", "--with-encoder")
    assert (with_arrays.code, "as onnx only" in with_arrays.err) == (1, True)


def test_a_real_encoder_and_head_in_one_file(shell: Shell, real_data: Path, tmp_path: Path) -> None:
    """MobileNetV2 and photographs: what the file says of resized pixels is what `predict` says of the images."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network, photos = real_data / "encoder" / "mobilenet_v2_embed.onnx", real_data / "imagenet_samples"
    if not (network.is_file() and photos.is_dir()):
        pytest.skip(f"no {network} or no {photos}")
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:12]
    (tmp_path / "list.txt").write_text("".join(f"{path} {i % 3}\n" for i, path in enumerate(paths)))
    settings = ("mean=127.0", "scale=0.0078431", "resize=bicubic")
    options = [word for each in settings for word in ("--encoder-option", each)]
    shell.ok("ingest", tmp_path / "list.txt", tmp_path / "s.zarr", "--encoder", f"onnx:{network}", *options)
    shell.ok("train", tmp_path / "s.zarr", "--head", "ridge", "--out", tmp_path / "model")
    words = ("--format", "onnx", "--with-encoder", "--json")
    report = shell.ok("export-model", tmp_path / "model", tmp_path / "all.onnx", *words).json
    assert report["difference"] < 1e-4
    session = runtime.InferenceSession(str(tmp_path / "all.onnx"))
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    encoder = open_encoder(
        f"onnx:{network}", device="cpu", options={"mean": 127.0, "scale": 0.0078431, "resize": "bicubic"}
    )
    source = open_source(tmp_path / "list.txt")
    pixels = np.stack([encoder.preprocess(source.read(i)) for i in range(source.n_samples)])
    (found,) = session.run(["probabilities"], {"pixels": pixels})
    answers = [
        json.loads(line)
        for line in shell.ok("predict", tmp_path / "model", tmp_path / "list.txt", "--json").out.splitlines()
    ]
    for row, answer in zip(found, answers, strict=True):
        best = answer["predictions"][0]
        assert names[row.argmax()] == best["class"]
        assert row.max() == pytest.approx(best["probability"], abs=0.02)  # large JPEGs were decoded small
