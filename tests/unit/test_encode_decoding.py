"""Fast decoding beside full: how near the two are, and that no store mixes them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import PixelEncoder, ingest, open_encoder
from ltstore.encode.decoding import resized
from ltstore.errors import ConfigError, EncoderMismatchError, ImageError
from ltstore.sources import FolderSource, decode_image
from ltstore.types import Encoder, RowStatus
from ltstore.workflow.encoders import reopen_encoder
from support.images import class_tree, encoded, picture

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(float) - wanted.astype(float)).mean())


@pytest.mark.parametrize(
    "size, least, expected",
    [
        ((1600, 1200), 601, (1600, 1200)),
        ((1600, 1200), 600, (800, 600)),
        ((1601, 1201), 300, (401, 301)),
        ((1600, 1200), 1, (200, 150)),
        ((1600, 3), 2, (1600, 3)),
        ((7, 7), 448, (7, 7)),
    ],
)
def test_no_side_of_a_jpeg_falls_below_the_least(
    size: tuple[int, int], least: int, expected: tuple[int, int]
) -> None:
    assert decode_image(encoded(picture(0, *size)), "k", least).size == expected


def test_a_reduced_jpeg_is_treated_as_any_other() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = picture(1, 80, 48)
    assert decode_image(encoded(plain, exif=exif), "k", 24).size == (24, 40)
    small = np.asarray(plain.resize((40, 24), Image.Resampling.BOX))
    for image, settings in (
        (plain, {"quality": 95}),
        (plain, {"quality": 95, "progressive": True}),
        (plain.convert("CMYK"), {"quality": 95}),
    ):
        assert distance(np.asarray(decode_image(encoded(image, **settings), "k", 24)), small) < 4
    gray = np.asarray(decode_image(encoded(plain.convert("L"), quality=95), "k", 24))
    assert distance(gray, np.asarray(Image.fromarray(small).convert("L").convert("RGB"))) < 4


def test_other_formats_are_not_reduced() -> None:
    for kind in ("PNG", "WEBP", "TIFF", "GIF"):
        assert decode_image(encoded(picture(0, 64, 64), kind), "k", 8).size == (64, 64)


def test_what_is_wrong_with_an_image_is_found_at_a_reduced_size_too(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(picture(0, 200, 200))
    with pytest.raises(ImageError) as caught:
        decode_image(whole[: len(whole) // 2], "k", 20)
    assert caught.value.status == RowStatus.CORRUPT
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 200 - 1)
    with pytest.raises(ImageError) as caught:
        decode_image(whole, "k", 20)
    assert caught.value.status == RowStatus.TOO_LARGE


@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("size", [(24, 24), (31, 17), (300, 280), (1, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fast_resize_is_pillows_to_rounding(
    resample: Image.Resampling, size: tuple[int, int], mode: str
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 121, 3), dtype=np.uint8)).convert(
        mode
    )
    full, fast = (resized(image, size, resample, decoding) for decoding in ("full", "fast"))
    assert fast.shape == (size[1], size[0], len(mode.replace("RGB", "123")))
    assert distance(fast, full) < 0.2
    assert np.abs(fast.astype(int) - full).max() <= 2


def test_a_box_of_whole_pixels_is_cut_out() -> None:
    image = picture(0, 40, 31)
    found = resized(image, (8, 8), BICUBIC, "fast", (4.0, 0, 35.0, 31))
    assert (found == resized(image.crop((4, 0, 35, 31)), (8, 8), BICUBIC, "fast")).all()


def test_what_torch_cannot_do_is_pillows() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 40, 3), dtype=np.uint8))
    for resample, box in ((Image.Resampling.LANCZOS, None), (BICUBIC, (4.5, 0, 35.5, 31))):
        full, fast = (resized(image, (8, 8), resample, decoding, box) for decoding in ("full", "fast"))
        assert (fast == full).all()


def photographs(data: Path, times: int) -> list[bytes]:
    """Real photographs, enlarged so that twice the input still leaves something to reduce."""
    found = []
    for path in sorted(data.glob("*.JPEG"))[:8]:
        image = Image.open(path).convert("RGB")
        large = image.resize((times * image.width, times * image.height), Image.Resampling.LANCZOS)
        found.append(encoded(large, quality=90))
    return found


def inputs(encoder: Encoder, files: list[bytes]) -> np.ndarray:
    least = getattr(encoder, "least_side", None)
    return np.stack([encoder.preprocess(decode_image(data, "k", least)) for data in files])


def test_photographs_as_they_are_decoded_fast(real_data: Path) -> None:
    """Down to a fifth of their size: 2 of 255 levels on average, 6 for the one with the finest texture."""
    files = [path.read_bytes() for path in sorted((real_data / "imagenet_samples").glob("*.JPEG"))]
    full, fast = (inputs(PixelEncoder(64, 64, decoding=each), files) for each in ("full", "fast"))
    least = PixelEncoder(64, 64, decoding="fast").least_side
    assert sum(decode_image(data, "k", least).size != Image.open(io.BytesIO(data)).size for data in files) >= 25
    off = np.abs(full.astype(int) - fast).mean(axis=1)
    assert off.mean() < 2
    assert off.max() < 6


def test_embeddings_of_photographs_decoded_fast(real_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    spec = f"onnx:{real_data / 'encoder' / 'mobilenet_v2_embed.onnx'}"
    common = {"size": 224, "mean": 127, "scale": 0.0078431}
    for times in (1, 3):
        files = photographs(real_data / "imagenet_samples", times)
        X = []
        for decoding in ("full", "fast"):
            encoder = open_encoder(spec, device="cpu", options={**common, "decoding": decoding})
            rows = encoder.encode(inputs(encoder, files))
            X.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        cosine = (X[0] * X[1]).sum(axis=1)
        assert cosine.mean() > 0.998
        assert cosine.min() > 0.995


def test_a_store_does_not_mix_the_two(tmp_path: Path) -> None:
    source = FolderSource(class_tree(tmp_path / "tree", {"a": 2, "b": 2}))
    ingest(source, PixelEncoder(4, 4), tmp_path / "s", "train")
    with pytest.raises(EncoderMismatchError, match=r"preprocessing\.decoding: not set / fast"):
        ingest(source, PixelEncoder(4, 4, decoding="fast"), tmp_path / "s", "test")


@pytest.mark.parametrize("decoding", ["full", "fast"])
def test_an_encoder_is_reopened_as_it_decoded(decoding: str) -> None:
    encoder = open_encoder("pixels:8", options={"decoding": decoding})
    assert encoder.identity.preprocessing.get("decoding", "full") == decoding
    assert reopen_encoder(encoder.identity, "pixels:8").identity == encoder.identity


def test_an_unknown_decoding_is_refused() -> None:
    with pytest.raises(ConfigError, match="decoding must be fast or full, found 'quick'"):
        open_encoder("pixels:8", options={"decoding": "quick"})
