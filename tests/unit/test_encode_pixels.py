"""The pixel encoder, and how plain "pixels" finds its size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import NativePixels, PixelEncoder, open_encoder
from ltstore.encode.options import check_keys, nearest
from ltstore.errors import ConfigError
from ltstore.sources import open_source
from support.images import ArraySource, array_source, corrupt, picture


def test_pixels_of_the_right_size_are_the_pixels() -> None:
    source = array_source(3)
    encoder = PixelEncoder(4, 4)
    X = encoder.encode(np.stack([encoder.preprocess(source.read(i)) for i in range(3)]))
    np.testing.assert_array_equal(X, source.pixels.reshape(3, -1).astype(np.float32) / np.float32(255))
    assert encoder.identity.n_features == 48


def test_digits_are_64_grey_values() -> None:
    source = open_source("digits")
    encoder = open_encoder("pixels", source=source)
    assert (encoder.spec, encoder.identity.n_features) == ("pixels:8x8:gray", 64)
    row = encoder.encode(encoder.preprocess(source.read(0))[None])[0]
    np.testing.assert_array_equal(row, np.asarray(source.read(0))[..., 0].reshape(-1).astype(np.float32) / 255)


def test_other_sizes_are_squeezed() -> None:
    encoder = PixelEncoder(5, 7, gray=True)
    found = encoder.preprocess(picture(0, 30, 20))
    expected = picture(0, 30, 20).convert("L").resize((7, 5), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(expected).reshape(-1))


@pytest.mark.parametrize(
    "spec, found",
    [("pixels:32", "pixels:32x32"), ("pixels:8x4", "pixels:8x4"), ("pixels:8:gray", "pixels:8x8:gray")],
)
def test_specs(spec: str, found: str) -> None:
    assert open_encoder(spec).spec == found


@pytest.mark.parametrize(
    "spec", ["pixels:", "pixels:0", "pixels:8x", "pixels:8:grey", "pixels:-1", "pixels:8x8x3"]
)
def test_specs_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(ConfigError, match="cannot read encoder"):
        open_encoder(spec)


def test_plain_pixels_needs_images_of_one_size() -> None:
    unresolved = open_encoder("pixels")
    assert isinstance(unresolved, NativePixels)
    with pytest.raises(ConfigError, match="takes its size from the images"):
        _ = unresolved.identity
    source = array_source(5, {0: corrupt(), 1: corrupt()})
    assert unresolved.resolve(source).spec == "pixels:4x4"
    assert unresolved.resolve(source, PixelEncoder(9, 8, gray=True).identity).spec == "pixels:9x8:gray"
    with pytest.raises(ConfigError, match="no readable image"):
        unresolved.resolve(array_source(2, {0: corrupt(), 1: corrupt()}))

    class Mixed(ArraySource):
        def fetch(self, position: int) -> np.ndarray:
            return super().fetch(position)[: 3 + position % 2]

    with pytest.raises(ConfigError, match="one size, found 4 x 3 and 4 x 4"):
        unresolved.resolve(Mixed(array_source(4).pixels, [0] * 4, ["a"]))


@pytest.mark.parametrize(
    "spec, settings, message",
    [
        (
            "resnet50",
            {},
            "unknown encoder 'resnet50': expected pixels, onnx:FILE, open_clip:ARCH/TAG or timm:ARCH/TAG",
        ),
        ("timm:vit", {}, "timm has no architecture 'vit'"),
        (
            "pixels:8",
            {"options": {"size": 3}},
            "unknown setting 'size' of encoder pixels: expected one of decoding",
        ),
        ("pixels:8", {"features": "penultimate"}, "open_clip encoders only"),
        ("pixels:8", {"features": "raw"}, "features must be projected, penultimate or both .*, found 'raw'"),
        ("pixels:8", {"config": "x.toml"}, "onnx encoders only"),
        ("onnx:", {}, "names no file"),
    ],
)
def test_what_cannot_be_opened(spec: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_encoder(spec, **settings)  # type: ignore[arg-type]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert nearest("ViT-B32", ["ViT-B-32", "ViT-L-14", "RN50"]) == "did you mean ViT-B-32?"
    assert nearest("zzz", ["b", "a"]) == "expected one of a, b"
    with pytest.raises(ConfigError, match=r"unknown setting 'sise' of x: did you mean size\?"):
        check_keys(["sise"], ["size", "mean"], "x")


def test_a_grey_first_class_does_not_make_a_source_grey() -> None:
    pixels = array_source(40).pixels.copy()
    pixels[:30] = pixels[:30, :, :, :1]
    source = ArraySource(pixels, [int(i >= 30) for i in range(40)], ["grey", "colour"])
    assert NativePixels().resolve(source).spec == "pixels:4x4"
