"""A model directory survives the round trip, and every kind of damage has its named error."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pytest

from ltstore.errors import DataError, LtstoreError, ModelFormatError, ModelNotFoundError, StoreWriteError
from ltstore.linear import LinearModel, load_model
from ltstore.types import EncoderIdentity

NAMES = ("Säugetier", "猫", "a/b \n\x00", "", "🦓")
C, D = len(NAMES), 7
IDENTITY = EncoderIdentity(encoder="onnx", model="m", preprocessing={"size": [224, 224]}, n_features=D)


def made_model(**changes):
    rng = np.random.default_rng(0)
    values = {
        "weight": rng.normal(size=(C, D)).astype(np.float32),
        "bias": np.array([0.5, -1e9, 2, 3, 4], np.float32),
        "class_names": NAMES,
        "encoder": IDENTITY,
        "encoder_spec": "onnx:m.onnx",
        "normalized": True,
        "class_counts": np.array([120, 0, 3, 50, 1]),
        "record": {"settings": {"l2": 0.01}},
    }
    return LinearModel(**(values | changes))


@pytest.fixture
def saved(tmp_path):
    made_model().save(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_is_loaded(saved):
    model, found = made_model(), load_model(saved)
    for name in ("weight", "bias", "class_counts"):
        assert np.array_equal(getattr(found, name), getattr(model, name))
        assert getattr(found, name).dtype == getattr(model, name).dtype
    for name in ("class_names", "encoder", "encoder_spec", "normalized", "record"):
        assert getattr(found, name) == getattr(model, name)
    assert sorted(p.name for p in saved.iterdir()) == ["model.json", "model.safetensors"]


def test_equal_models_give_equal_bytes(saved, tmp_path):
    made_model().save(tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_saving_replaces_the_model_of_that_name(saved):
    made_model(encoder_spec="other").save(saved)
    assert load_model(saved).encoder_spec == "other"
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_strided_weight_is_saved_in_order(tmp_path):
    weight = np.asfortranarray(made_model().weight)
    made_model(weight=weight).save(tmp_path / "m")
    assert np.array_equal(load_model(tmp_path / "m").weight, weight)


def test_no_model_at_the_path(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model at"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelNotFoundError):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelFormatError, match=name):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_file_cut_short_anywhere(saved, name):
    whole = (saved / name).read_bytes()
    for length in [*range(0, len(whole) - 2, 7), len(whole) - 2]:
        (saved / name).write_bytes(whole[:length])
        with pytest.raises(ModelFormatError):
            load_model(saved)


def test_any_flipped_byte_gives_the_same_model_or_a_named_error(saved):
    before = load_model(saved)
    for name in ("model.json", "model.safetensors"):
        whole = (saved / name).read_bytes()
        for position in range(len(whole)):
            (saved / name).write_bytes(
                whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :]
            )
            with suppress(LtstoreError):
                found = load_model(saved)
                for field in fields(LinearModel):
                    np.testing.assert_array_equal(getattr(found, field.name), getattr(before, field.name))
        (saved / name).write_bytes(whole)


def edit(saved, **changes):
    header = json.loads((saved / "model.json").read_text())
    header.update(changes)
    del header["seal"]  # so that what it says is looked at
    (saved / "model.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": None},
        {"class_names": ["one"]},
        {"class_names": "abcde"},
        {"class_names": [1, 2, 3, 4, 5]},
        {"class_names": {"a": 1}},
        {"encoder": {}},
        {"encoder": IDENTITY.to_json() | {"extra": 1}},
        {"encoder": IDENTITY.to_json() | {"n_features": 8}},
        {"encoder": IDENTITY.to_json() | {"n_features": "7"}},
        {"encoder": IDENTITY.to_json() | {"preprocessing": []}},
        {"encoder": IDENTITY.to_json() | {"model": 3}},
        {"encoder": []},
        {"normalized": "yes"},
        {"encoder_spec": None},
        {"record": []},
    ],
)
def test_a_header_that_does_not_fit(saved, changes):
    edit(saved, **changes)
    with pytest.raises(ModelFormatError):
        load_model(saved)


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", "[" * 100_000, '{"format_version": 1}', "{}".encode("utf-16"), b"\xff\xfe"]
)
def test_json_that_is_no_header(saved, text):
    (saved / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelFormatError):
        load_model(saved)


def test_a_pickle_is_never_read(saved, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    for name in ("model.json", "model.safetensors"):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ModelFormatError):
            load_model(saved)
        (saved / name).write_bytes(whole)
    assert not (tmp_path / "pwned").exists()


def test_arrays_of_another_dtype_or_name(saved):
    from safetensors.numpy import save_file

    model = made_model()
    for arrays in (
        {"weight": model.weight.astype(np.float64), "bias": model.bias, "class_counts": model.class_counts},
        {"weight": model.weight, "bias": model.bias},
        {"weight": model.weight[:2], "bias": model.bias, "class_counts": model.class_counts},
    ):
        save_file(arrays, saved / "model.safetensors")
        with pytest.raises(ModelFormatError):
            load_model(saved)


def test_nan_in_the_file(saved):
    from safetensors.numpy import save_file

    model = made_model()
    weight = model.weight.copy()
    weight[1, 2] = np.nan
    save_file(
        {"weight": weight, "bias": model.bias, "class_counts": model.class_counts}, saved / "model.safetensors"
    )
    with pytest.raises(ModelFormatError, match="NaN or Inf"):
        load_model(saved)


def test_a_model_must_fit_together():
    with pytest.raises(DataError, match="weight"):
        made_model(weight=np.zeros((C, D + 1), np.float32))
    with pytest.raises(DataError, match="bias"):
        made_model(bias=np.zeros(C))
    with pytest.raises(DataError, match="NaN or Inf"):
        made_model(bias=np.full(C, -np.inf, np.float32))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="cannot write"):
        made_model().save(tmp_path / "file" / "model")


def test_predictions():
    model = made_model()
    X = np.random.default_rng(1).normal(size=(20, D)).astype(np.float32)
    logits = X.astype(np.float64) @ model.weight.T.astype(np.float64) + model.bias
    assert np.allclose(model.decision_function(X), logits, rtol=1e-5, atol=1e-5)
    assert model.decision_function(X).dtype == np.float32
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(model.predict_proba(X), p / p.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(model.predict(X), logits.argmax(axis=1))
    assert 1 not in model.predict(X)
    assert model.predict(X[:0]).shape == (0,)


def test_rows_that_cannot_be_predicted():
    model = made_model()
    with pytest.raises(DataError, match=r"\(n, 7\)"):
        model.predict(np.zeros((3, D + 1), np.float32))
    X = np.zeros((3, D), np.float32)
    X[1, 2] = np.nan
    with pytest.raises(DataError, match="row 1"):
        model.predict(X)
