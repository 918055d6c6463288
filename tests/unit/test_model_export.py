"""Exported models give the answers of the models they were made of, without ltstore."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from ltstore.encode import open_encoder
from ltstore.errors import (
    BackendUnavailableError,
    ConfigError,
    DataError,
    EncoderMismatchError,
    StoreExistsError,
)
from ltstore.linear import LinearModel
from ltstore.linear.export import to_sklearn
from ltstore.rows import normalize_rows
from ltstore.types import EncoderIdentity
from ltstore.workflow import export_model
from support.images import picture
from support.onnx_nets import write_net


def head(
    encoder: EncoderIdentity, n_classes: int = 4, *, normalized: bool = False, scale: float = 3
) -> LinearModel:
    rng = np.random.default_rng(n_classes)
    return LinearModel(
        weight=(scale * rng.standard_normal((n_classes, encoder.n_features))).astype(np.float32),
        bias=rng.standard_normal(n_classes).astype(np.float32),
        class_names=tuple(f"čáp, {c}" for c in range(n_classes)),
        encoder=encoder,
        encoder_spec="onnx:/home/somebody/net.onnx",
        normalized=normalized,
        class_counts=np.arange(n_classes),
        record={"made_from": {"store": "/home/somebody/birds.zarr"}},
    )


def identity(n_features: int = 6) -> EncoderIdentity:
    return EncoderIdentity(encoder="import", model="rows", n_features=n_features, preprocessing={"size": 224})


@pytest.fixture
def X() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    rows[3] = 0
    return rows


def answers(model: LinearModel, X: np.ndarray) -> np.ndarray:
    return model.predict_proba(normalize_rows(X.copy()) if model.normalized else X)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_an_onnx_head_answers_as_the_model(
    n_classes: int, normalized: bool, X: np.ndarray, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model, path = head(identity(), n_classes, normalized=normalized), tmp_path / "head.onnx"
    report = export_model(model, path, format="onnx")
    assert report.difference is not None
    assert report.difference < 1e-5
    assert (report.takes, report.shape, report.n_bytes) == ("embeddings", (6,), path.stat().st_size)
    session = runtime.InferenceSession(str(path))
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities"]
    logits, probabilities = session.run(None, {"embeddings": X})
    rows = normalize_rows(X.copy()) if normalized else X
    np.testing.assert_allclose(logits, model.decision_function(rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), rtol=1e-4, atol=1e-6)
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["class_names"])) == model.class_names
    assert EncoderIdentity.from_json(json.loads(about["encoder"])) == model.encoder
    assert json.loads(about["normalize"]) is normalized


@pytest.mark.parametrize("layout", ["safetensors", "onnx", "sklearn"])
def test_nothing_of_the_machine_is_in_the_file(layout: str, tmp_path: Path) -> None:
    if layout == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    export_model(head(identity()), tmp_path / "out", format=layout)
    assert b"somebody" not in (tmp_path / "out").read_bytes()


def test_safetensors_hold_all_that_a_prediction_needs(X: np.ndarray, tmp_path: Path) -> None:
    model, path = head(identity(), normalized=True), tmp_path / "head.safetensors"
    export_model(model, path, format="safetensors")
    with safe_open(path, "numpy") as file:
        about = file.metadata()
        logits = normalize_rows(X.copy()) @ file.get_tensor("weight").T + file.get_tensor("bias")
    np.testing.assert_array_equal(logits.argmax(1), answers(model, X).argmax(1))
    assert tuple(json.loads(about["class_names"])) == model.class_names
    assert json.loads(about["encoder"])["preprocessing"] == {"size": 224}
    assert json.loads(about["normalize"]) is True


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_scikit_learn_answers_as_the_model(
    n_classes: int, normalized: bool, X: np.ndarray, tmp_path: Path
) -> None:
    import joblib

    model, path = head(identity(), n_classes, normalized=normalized), tmp_path / "head.joblib"
    export_model(model, path, format="sklearn")
    found = joblib.load(path)
    np.testing.assert_allclose(found.predict_proba(X), answers(model, X), rtol=1e-4, atol=1e-6)
    assert found.predict(X).tolist() == [model.class_names[c] for c in answers(model, X).argmax(1)]
    assert found.n_features_in_ == 6
    with pytest.raises(DataError, match="two classes or more"):
        to_sklearn(head(identity(), 1))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_net(tmp_path / "net.onnx", extra_output=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channels": "BGR", "mean": [1.0, 2.0, 3.0], "std": [50.0, 60.0, 70.0]},
        {"output": "embedding"},
    ],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_onnx_encoder_and_its_head_in_one_file(
    settings: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = write_net(tmp_path / "net.onnx", layout=layout, extra_output=True)
    encoder = open_encoder(f"onnx:{path}", device="cpu", options=settings)
    model, out = head(encoder.identity, normalized=True), tmp_path / "both.onnx"
    report = export_model(model, out, format="onnx", encoder=encoder)
    assert (report.takes, report.shape) == ("pixels", (8, 8, 3))
    session = runtime.InferenceSession(str(out))
    batch = np.stack([encoder.preprocess(picture(i)) for i in range(5)])
    (found,) = session.run(["probabilities"], {"pixels": batch})
    np.testing.assert_allclose(found, answers(model, encoder.encode(batch)), rtol=1e-4, atol=1e-6)
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities"]
    assert tuple(json.loads(session.get_modelmeta().custom_metadata_map["class_names"])) == model.class_names


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["pixels:6", "pixels:8x4:gray", "timm:test_vit/random"])
def test_encoders_of_every_family_with_a_head_in_one_file(spec: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    if not spec.startswith("pixels"):
        pytest.importorskip("onnxscript")
        pytest.importorskip(spec.partition(":")[0])
    encoder = open_encoder(spec, device="cpu")
    model, out = head(encoder.identity, normalized=True, scale=1), tmp_path / "both.onnx"
    report = export_model(model, out, format="onnx", encoder=encoder)
    assert report.difference is not None
    assert report.difference < 1e-4
    batch = np.stack([encoder.preprocess(picture(i, 40, 30)) for i in range(3)])
    session = runtime.InferenceSession(str(out))
    (found,) = session.run(["probabilities"], {"pixels": batch.reshape(3, *report.shape)})
    np.testing.assert_allclose(found, answers(model, encoder.encode(batch)), rtol=1e-3, atol=1e-5)
    assert str(Path.home()).encode() not in out.read_bytes()
    assert b"site-packages" not in out.read_bytes()  # torch's stack traces


@pytest.mark.parametrize("change", ["a batch of three", "half precision"])
def test_onnx_encoders_of_fixed_batches_and_of_half_precision(change: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = write_net(tmp_path / "net.onnx")
    changed = onnx.load(str(net))
    for value in (*changed.graph.input, *changed.graph.output):
        if change == "half precision":
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        else:
            value.type.tensor_type.shape.dim[0].dim_value = 3
    if change == "half precision":
        weight = onnx.numpy_helper.to_array(changed.graph.initializer[0]).astype(np.float16)
        changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(changed, str(net))
    encoder = open_encoder(f"onnx:{net}", device="cpu", options={"mean": 100.0})
    model, out = head(encoder.identity, normalized=True), tmp_path / "both.onnx"
    export_model(model, out, format="onnx", encoder=encoder)
    session = runtime.InferenceSession(str(out))
    batch = np.stack([encoder.preprocess(picture(i)) for i in range(3)])
    (found,) = session.run(["probabilities"], {"pixels": batch})
    np.testing.assert_allclose(found, answers(model, encoder.encode(batch)), rtol=1e-3, atol=1e-5)
    assert session.get_inputs()[0].shape[0] == (3 if change == "a batch of three" else "n")


def test_weights_beside_an_onnx_file_come_into_the_one_that_is_written(net: Path, tmp_path: Path) -> None:
    import onnx

    onnx.save(onnx.load(str(net)), str(net), save_as_external_data=True, location="w.bin", size_threshold=0)
    encoder = open_encoder(f"onnx:{net}", device="cpu", options={"output": "embedding"})
    export_model(head(encoder.identity), tmp_path / "x.onnx", format="onnx", encoder=encoder)
    (tmp_path / "w.bin").unlink()
    assert len(onnx.load(str(tmp_path / "x.onnx")).graph.initializer) >= 3


@pytest.mark.parametrize("family", ["onnx", "timm"])
def test_weights_that_no_file_can_hold_are_refused(
    family: str, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltstore.encode import onnx_graph

    if family == "timm":
        pytest.importorskip("timm")
        pytest.importorskip("onnxscript")
    encoder = open_encoder({"onnx": f"onnx:{net}", "timm": "timm:test_vit/random"}[family], device="cpu")
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 100)
    with pytest.raises(ConfigError, match=r"one ONNX file holds less than 2\.1: export the head alone"):
        export_model(head(encoder.identity), tmp_path / "x", format="onnx", encoder=encoder)


def test_a_file_of_the_first_operators_is_refused(net: Path, tmp_path: Path) -> None:
    import onnx

    old = onnx.load(str(net))
    old.opset_import[0].version = 11
    onnx.save(old, str(net))
    encoder = open_encoder(f"onnx:{net}", device="cpu")
    with pytest.raises(ConfigError, match="operators of version 11"):
        export_model(head(encoder.identity), tmp_path / "x", format="onnx", encoder=encoder)


def test_a_graph_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from ltstore.linear import export
    from ltstore.workflow import exporting

    model = head(identity())
    for wrong in (
        replace(model, bias=model.bias + np.float32(0.1)),
        replace(model, weight=model.weight[:, ::-1].copy()),
        replace(model, normalized=True),
    ):
        monkeypatch.setattr(exporting, "to_onnx", lambda _, wrong=wrong: export.to_onnx(wrong))
        with pytest.raises(BackendUnavailableError, match="nothing was written"):
            export_model(model, tmp_path / "x", format="onnx")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "word"), [("onnx", "writing ONNX"), ("onnxruntime", "checked by onnxruntime")]
)
def test_a_missing_package_is_named(
    package: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailableError, match=rf"{word}.*pip install 'ltstore\[onnx\]'"):
        export_model(head(identity()), tmp_path / "x", format="onnx")


def test_a_missing_onnxscript_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("timm")
    for name in [each for each in sys.modules if each.partition(".")[0] == "onnxscript"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    encoder = open_encoder("timm:test_vit/random", device="cpu")
    with pytest.raises(BackendUnavailableError, match=r"onnxscript.*pip install 'ltstore\[onnx\]'"):
        export_model(head(encoder.identity), tmp_path / "x", format="onnx", encoder=encoder)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    model = head(identity())
    with pytest.raises(ConfigError, match="safetensors, sklearn, onnx, found 'pickle'"):
        export_model(model, tmp_path / "x", format="pickle")
    encoder = open_encoder("pixels:6")
    with pytest.raises(ConfigError, match="as onnx only, found sklearn"):
        export_model(head(encoder.identity), tmp_path / "x", format="sklearn", encoder=encoder)
    with pytest.raises(EncoderMismatchError, match="encoder: import / pixels"):
        export_model(model, tmp_path / "x", format="onnx", encoder=encoder)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(StoreExistsError, match="choose another name"):
        export_model(model, tmp_path / "x", format="safetensors")
    assert (tmp_path / "x").read_text() == "mine"
