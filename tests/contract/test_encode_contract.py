"""What every encoder keeps to, run over all families."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import open_encoder
from ltstore.types import Encoder, EncoderIdentity
from support.images import picture
from support.onnx_nets import write_net

ENCODERS = [
    "pixels:6",
    "pixels:8x4:gray",
    "onnx",
    "open_clip",
    "open_clip penultimate",
    "timm test_vit",
    "timm test_convnext",
]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    if request.param == "onnx":
        return open_encoder(f"onnx:{write_net(tmp_path_factory.mktemp('onnx') / 'net.onnx')}", device="cpu")
    if request.param.startswith("open_clip"):
        pytest.importorskip("open_clip")
        features = request.param.partition(" ")[2] or "projected"
        return open_encoder("open_clip:ViT-S-32-alt/random", device="cpu", features=features)
    if request.param.startswith("timm"):
        pytest.importorskip("timm")
        return open_encoder(f"timm:{request.param.partition(' ')[2]}/random", device="cpu")
    return open_encoder(request.param)


@pytest.fixture
def images() -> list[Image.Image]:
    sizes = [(24, 16), (16, 24), (1, 1), (300, 7), (64, 64)]
    return [picture(i, width, height) for i, (width, height) in enumerate(sizes)]


class TestEncoder:
    def test_preprocess_gives_arrays_of_one_shape(self, encoder: Encoder, images: list[Image.Image]) -> None:
        inputs = [encoder.preprocess(image) for image in images]
        assert len({(each.shape, each.dtype) for each in inputs}) == 1

    def test_embeddings_are_float32_of_the_identitys_width(
        self, encoder: Encoder, images: list[Image.Image]
    ) -> None:
        batch = np.stack([encoder.preprocess(image) for image in images])
        before = batch.copy()
        X = encoder.encode(batch)
        assert X.shape == (len(images), encoder.identity.n_features)
        assert X.dtype == np.float32
        assert np.isfinite(X).all()
        assert (batch == before).all()
        assert X.std(axis=0).max() > 0

    def test_a_row_does_not_depend_on_its_batch(self, encoder: Encoder, images: list[Image.Image]) -> None:
        batch = np.stack([encoder.preprocess(image) for image in images])
        alone = np.concatenate([encoder.encode(batch[i : i + 1]) for i in range(len(batch))])
        np.testing.assert_allclose(encoder.encode(batch), alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(encoder.encode(batch[::-1]), alone[::-1], rtol=1e-4, atol=1e-5)

    def test_preprocess_from_threads(self, encoder: Encoder, images: list[Image.Image]) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(encoder.preprocess, images * 4))
        for image, each in zip(images * 4, found, strict=True):
            assert (each == encoder.preprocess(image)).all()

    def test_identity_survives_json(self, encoder: Encoder) -> None:
        again = EncoderIdentity.from_json(json.loads(json.dumps(encoder.identity.to_json())))
        assert again == encoder.identity
        assert again.digest == encoder.identity.digest

    def test_its_spec_makes_it_again(self, encoder: Encoder) -> None:
        again = open_encoder(encoder.spec, device="cpu", features=encoder.identity.features)
        assert again.identity == encoder.identity
        assert again.device == "cpu"

    @pytest.mark.slow
    def test_as_onnx_it_gives_the_same_embeddings(self, encoder: Encoder, images: list[Image.Image]) -> None:
        pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        if encoder.identity.encoder in ("open_clip", "timm"):
            pytest.importorskip("onnxscript")
        if encoder.identity.features == "penultimate":
            pytest.skip("the projected one without its last product")
        session = runtime.InferenceSession(encoder.to_onnx().SerializeToString())  # type: ignore[attr-defined]
        (pixels,), (embeddings,) = session.get_inputs(), session.get_outputs()
        assert (pixels.name, pixels.type, embeddings.name) == ("pixels", "tensor(uint8)", "embeddings")
        for n in (1, len(images)):
            batch = np.stack([encoder.preprocess(image) for image in images[:n]])
            (found,) = session.run(None, {"pixels": batch.reshape(n, *pixels.shape[1:])})
            expected = encoder.encode(batch)
            assert found.shape == expected.shape
            assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_where_the_same_weights_lie_makes_no_difference() -> None:
    settings: dict[str, Any] = {"encoder": "onnx", "n_features": 3, "weights_digest": "sha256:1"}
    one, moved = EncoderIdentity(model="a.onnx", **settings), EncoderIdentity(model="b.onnx", **settings)
    assert one == moved
    assert (one.digest, hash(one), one.differences(moved)) == (moved.digest, hash(moved), [])
    assert one.to_json()["model"] == "a.onnx"
    other = EncoderIdentity(model="a.onnx", **{**settings, "weights_digest": "sha256:2"})
    assert one != other
    assert one.differences(other) == ["weights_digest: sha256:1 / sha256:2"]
    clip = {**settings, "encoder": "open_clip", "model": "ViT-B-32"}
    assert EncoderIdentity(weights="tag", **clip) == EncoderIdentity(weights="file.pt", **clip)
    # the same tensors in an architecture with another activation are another encoder
    assert EncoderIdentity(**clip) != EncoderIdentity(**{**clip, "model": "ViT-B-32-quickgelu"})
    unknown = {**clip, "weights_digest": ""}
    assert EncoderIdentity(weights="tag", **unknown) != EncoderIdentity(weights="other", **unknown)
    assert one != "a.onnx"


def test_an_onnx_file_that_was_moved_is_the_same_encoder(tmp_path: Path) -> None:
    first = open_encoder(f"onnx:{write_net(tmp_path / 'net.onnx')}", device="cpu").identity
    assert open_encoder(f"onnx:{write_net(tmp_path / 'renamed.onnx')}", device="cpu").identity == first
