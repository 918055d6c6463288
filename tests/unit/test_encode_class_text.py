"""Class names to text vectors: what is averaged, what is kept, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltstore.encode.class_text import (
    RECORD_FILE,
    TEMPLATES,
    VECTORS_FILE,
    ClassText,
    are_codes,
    embed_classes,
    load_class_text,
    read_as,
)
from ltstore.errors import (
    ChecksumMismatchError,
    ConfigError,
    DataError,
    EncoderMismatchError,
    StoreFormatError,
    StoreNotFoundError,
)
from ltstore.types import FloatArray, TextEncoder
from support.images import SumEncoder

NAMES = ("aquarium_fish", "bear", "crane")


class Letters(SumEncoder):
    """A text tower that counts letters: (n, 3)."""

    logit_scale = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.identity = replace(self.identity, n_features=3)
        self.calls: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        self.calls.append(list(texts))
        return np.array([[text.count(c) for c in "ae "] for text in texts], np.float32)


def unit(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=-1, keepdims=True)


@pytest.fixture
def text() -> ClassText:
    return embed_classes(Letters(), NAMES, templates=TEMPLATES["clip"])


def test_a_vector_is_the_mean_of_unit_vectors_over_templates(text: ClassText) -> None:
    encoder: TextEncoder = Letters()
    for c, word in enumerate(["aquarium fish", "bear", "crane"]):
        each = unit(encoder.encode_text([t.replace("{}", word) for t in TEMPLATES["clip"]]))
        np.testing.assert_allclose(text.vectors[c], unit(each.mean(axis=0)), rtol=1e-6)
    assert text.vectors.dtype == np.float32
    assert text.logit_scale == 20.0
    assert text.record["settings"]["words"] == ["aquarium fish", "bear", "crane"]


def test_batches_hold_whole_classes_and_change_nothing() -> None:
    names = [f"a{'e' * (i % 7)}" for i in range(300)]
    encoder, done = Letters(), []
    found = embed_classes(
        encoder, names, templates=TEMPLATES["clip"], progress=lambda rows, _: done.append(rows)
    )
    assert sum(done) == 300
    assert max(map(len, encoder.calls)) <= 256
    np.testing.assert_array_equal(
        found.vectors[:5], embed_classes(Letters(), names[:5], templates=TEMPLATES["clip"]).vectors
    )


def test_words_stand_for_class_names() -> None:
    encoder = Letters()
    embed_classes(encoder, ("n02128385", "n02012849"), words=["leopard", "crane"])
    assert encoder.calls == [["a photo of a leopard.", "a photo of a crane."]]
    with pytest.raises(ConfigError, match="2 classes need as many texts, found 1"):
        embed_classes(encoder, ("a", "b"), words=["a"])
    assert read_as("aquarium_fish ") == "aquarium fish"
    assert are_codes(["n02128385", "17", "bear"])
    assert not are_codes(["n02128385", "bear"])


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {} and a {}"], [""]])
def test_templates_have_one_place_for_the_class(templates: list[str]) -> None:
    with pytest.raises(ConfigError, match="template"):
        embed_classes(Letters(), NAMES, templates=templates)


def test_a_vector_that_is_nothing_is_named() -> None:
    with pytest.raises(DataError, match="text vector of class 'zz'"):
        embed_classes(Letters(), ("a", "zz"), templates=["{}"])


def test_what_is_kept_is_read_back(text: ClassText, tmp_path: Path) -> None:
    identity = Letters().identity
    text.save(tmp_path / "kept")
    again = load_class_text(tmp_path / "kept", encoder=identity, class_names=NAMES)
    np.testing.assert_array_equal(again.vectors, text.vectors)
    assert again.logit_scale == 20.0
    with pytest.raises(DataError, match="of other class names: run `ltstore text` again"):
        load_class_text(tmp_path / "kept", encoder=identity, class_names=NAMES[::-1])
    with pytest.raises(EncoderMismatchError, match=r"another encoder .*weights_digest: .* / sha256:other"):
        load_class_text(
            tmp_path / "kept", encoder=replace(identity, weights_digest="sha256:other"), class_names=NAMES
        )
    with pytest.raises(StoreNotFoundError, match="run `ltstore text`"):
        load_class_text(tmp_path / "absent", encoder=identity, class_names=NAMES)


def test_damage_is_named(text: ClassText, tmp_path: Path) -> None:
    identity = Letters().identity
    text.save(tmp_path)
    data = (tmp_path / VECTORS_FILE).read_bytes()
    (tmp_path / VECTORS_FILE).write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    with pytest.raises(ChecksumMismatchError, match="is damaged"):
        load_class_text(tmp_path, encoder=identity, class_names=NAMES)
    text.save(tmp_path)
    record = json.loads((tmp_path / RECORD_FILE).read_bytes())
    for spoiled in ("nonsense", "[]", json.dumps({**record, "made_from": {}})):
        (tmp_path / RECORD_FILE).write_text(spoiled)
        with pytest.raises(StoreFormatError, match="is not a record of text vectors"):
            load_class_text(tmp_path, encoder=identity, class_names=NAMES)
    (tmp_path / RECORD_FILE).write_text(json.dumps({**record, "settings": {"logit_scale": 21.0}}))
    with pytest.raises(StoreFormatError, match="has changed since it was written"):
        load_class_text(tmp_path, encoder=identity, class_names=NAMES)
    text.save(tmp_path)
    (tmp_path / VECTORS_FILE).unlink()
    (tmp_path / VECTORS_FILE).mkdir()
    with pytest.raises(StoreFormatError, match=rf"{VECTORS_FILE} must be a regular file, found a directory"):
        load_class_text(tmp_path, encoder=identity, class_names=NAMES)
