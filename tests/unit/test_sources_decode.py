"""Bytes to RGB: every mode a file may have, and everything that may be wrong with one."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltstore.errors import ImageError, SourceError
from ltstore.sources import decode_image, read_file
from ltstore.types import RowStatus
from support.images import encoded, picture


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def status_of(data: bytes) -> RowStatus:
    with pytest.raises(ImageError, match=r"^k: ") as caught:
        decode_image(data, "k")
    return RowStatus(caught.value.status)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000"])
def test_every_format_is_decoded_to_rgb(kind: str) -> None:
    found = pixels(decode_image(encoded(picture(), kind), "k"))
    assert found.shape == (16, 24, 3)
    assert np.abs(found - pixels(picture())).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = pixels(picture())
    # the image as a camera would have stored it: the inverse of what the tag asks for
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)).astype(np.uint8))
    assert (pixels(decode_image(encoded(stored, "PNG", exif=exif), "k")) == upright).all()


@pytest.mark.filterwarnings("always")
def test_a_damaged_exif_block_neither_warns_nor_costs_the_image(recwarn: pytest.WarningsRecorder) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff" * 3
    data = encoded(picture())
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert pixels(decode_image(data, "k")).shape == (16, 24, 3)
    assert not list(recwarn)


def test_transparency_is_composited_over_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    half.putpixel((1, 0), (0, 0, 200, 255))
    assert pixels(decode_image(encoded(half, "PNG"), "k")).tolist() == [[[255, 255, 255], [0, 0, 200]]]
    gray = Image.new("LA", (1, 1), (0, 0))
    assert pixels(decode_image(encoded(gray, "PNG"), "k")).tolist() == [[[255, 255, 255]]]


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_palette_with_transparency(transparency: int | bytes, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 50, 100, 150])
    image.putpixel((1, 0), 1)
    found = pixels(decode_image(encoded(image, "PNG", transparency=transparency), "k"))
    assert found.tolist() == [[[255, 255, 255], [50, 100, 150]]]
    assert not list(recwarn)


def test_colour_key_transparency_of_plain_rgb() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (50, 100, 150))
    found = pixels(decode_image(encoded(image, "PNG", transparency=(1, 2, 3)), "k"))
    assert found.tolist() == [[[255, 255, 255], [50, 100, 150]]]


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    wide = Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16))
    for kind in ("PNG", "TIFF"):
        assert pixels(decode_image(encoded(wide, kind), "k"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_gray_bilevel_palette_and_cmyk() -> None:
    gray = picture().convert("L")
    assert (pixels(decode_image(encoded(gray, "PNG"), "k")) == np.asarray(gray)[..., None]).all()
    assert set(np.unique(pixels(decode_image(encoded(picture().convert("1"), "PNG"), "k")))) == {0, 255}
    palette = picture().convert("P")
    assert (pixels(decode_image(encoded(palette, "PNG"), "k")) == np.asarray(palette.convert("RGB"))).all()
    cmyk = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pixels(decode_image(cmyk, "k")) - pixels(picture())).mean() < 12


def test_floating_point_pixels_are_refused() -> None:
    assert status_of(encoded(Image.new("F", (2, 2), 0.5), "TIFF")) == RowStatus.CORRUPT


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("#ff0000", "#00ff00")]
    kwargs = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **kwargs)
    assert pixels(decode_image(data, "k"))[0, 0].tolist() == [255, 0, 0]


def test_what_is_not_a_whole_image_is_corrupt() -> None:
    whole = encoded(picture(0, 200, 200))
    assert status_of(b"") == RowStatus.CORRUPT
    assert status_of(b"not an image at all") == RowStatus.CORRUPT
    assert status_of(b"\0" * 5000) == RowStatus.CORRUPT
    assert status_of(whole[: len(whole) // 2]) == RowStatus.CORRUPT
    assert status_of(whole[:40]) == RowStatus.CORRUPT
    assert status_of(encoded(picture(0, 99, 99), "PNG")[:-900]) == RowStatus.CORRUPT
    assert status_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == RowStatus.CORRUPT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_random_damage_raises_nothing_but_image_errors(kind: str) -> None:
    whole = np.frombuffer(encoded(picture(0, 40, 40), kind), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = whole.copy()
        bad[rng.integers(0, len(bad), 12)] = rng.integers(0, 256, 12)
        try:
            assert decode_image(bad.tobytes(), "k").mode == "RGB"
        except ImageError as err:
            assert err.status in (RowStatus.CORRUPT, RowStatus.TOO_LARGE)  # noqa: PT017


def test_a_decompression_bomb_is_too_large_and_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.resetwarnings()  # a program without filters of its own
        assert status_of(png_header(60_000, 60_000)) == RowStatus.TOO_LARGE
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 24 - 1)  # Pillow itself would only warn
        assert status_of(encoded(picture())) == RowStatus.TOO_LARGE
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 24)
        assert pixels(decode_image(encoded(picture()), "k")).shape == (16, 24, 3)
    assert not warned


def test_a_program_that_makes_bombs_errors_keeps_its_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 24 - 1)
        assert status_of(encoded(picture())) == RowStatus.TOO_LARGE
        with pytest.raises(Image.DecompressionBombWarning):
            Image._decompression_bomb_check((24, 16))


def test_reading_what_is_not_a_readable_file_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe", tmp_path / "loop", tmp_path / ("n" * 300)):
        with pytest.raises(ImageError) as caught:
            read_file(path, "k")
        assert caught.value.status == RowStatus.MISSING
    with pytest.raises(ImageError) as caught:
        read_file(Path("a\0b"), "k")
    assert caught.value.status == RowStatus.MISSING
    (tmp_path / "x").write_bytes(b"abc")
    assert read_file(tmp_path / "x", "k") == b"abc"


def _failing_open(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("ltstore.sources.decode.os.open", fail)


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG", "EILSEQ"])
def test_a_file_that_is_not_to_be_had_is_the_rows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code = getattr(errno, name)
    _failing_open(monkeypatch, code)
    with pytest.raises(ImageError, match=f"^k: {re.escape(os.strerror(code))}$") as caught:
        read_file(tmp_path / "x", "k")
    assert caught.value.status == RowStatus.MISSING


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EMFILE", "ENOMEM"])
def test_a_file_system_that_fails_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _failing_open(monkeypatch, getattr(errno, name))
    said = re.escape(os.strerror(getattr(errno, name)))
    with pytest.raises(SourceError, match=rf"cannot read .*x: {said}; .* run the same command again") as caught:
        read_file(tmp_path / "x", "k")
    assert not isinstance(caught.value, ImageError)


def test_a_socket_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(ImageError) as caught:
            read_file(Path("s"), "k")
    assert caught.value.status == RowStatus.MISSING
