"""A folder of more than two hundred awkward images, each with what must become of it."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ltstore.types import ByteArray, RowStatus
from support.images import encoded, picture

SIZES = ((24, 16), (17, 33), (3, 2))
CORRUPT, MISSING, TOO_LARGE = RowStatus.CORRUPT, RowStatus.MISSING, RowStatus.TOO_LARGE


@dataclass(frozen=True, kw_only=True)
class Awkward:
    """A name below the folder, its bytes (None: no file, or none that can be read), and what must become of it.

    `pixels` (H, W, 3) are expected where the status is OK, to within `off` of 255 on average.
    """

    name: str
    data: bytes | None
    status: RowStatus = RowStatus.OK
    pixels: ByteArray | None = None
    off: float = 0.0


def write_awkward(root: Path) -> list[Awkward]:
    """Write the folder; return what is in it, sorted by name."""
    found = sorted(
        [
            *_lossless(),
            *_lossy(),
            *_wide(),
            *_transparent(),
            *_frames(),
            *_named(),
            *_broken(),
            *_bombs(),
            *_absent(),
        ],
        key=lambda each: os.fsencode(each.name),
    )
    assert len({each.name for each in found}) == len(found)
    root.mkdir()
    for each in found:
        path = root / each.name
        if each.data is not None:
            path.write_bytes(each.data)
        elif each.name.startswith("loop"):
            path.symlink_to(path.name)
        elif each.name.startswith("dangling"):
            path.symlink_to("nowhere.jpg")
        elif each.name.startswith("directory"):
            path.mkdir()
        elif each.name.startswith("pipe"):
            os.mkfifo(path)
    return found


def _readable(name: str, data: bytes, pixels: Image.Image | np.ndarray, off: float = 0.0) -> Awkward:
    array = np.asarray(pixels.convert("RGB") if isinstance(pixels, Image.Image) else pixels).astype(np.uint8)
    return Awkward(name=name, data=data, pixels=array, off=off)


def _lossless() -> Iterator[Awkward]:
    for seed, size in enumerate(SIZES):
        rgb, tag = picture(seed, *size), "x".join(map(str, size))
        for kind in ("PNG", "BMP", "DIB", "TIFF", "PPM", "WEBP", "JPEG2000"):
            how = {"lossless": True} if kind == "WEBP" else {}
            yield _readable(f"rgb-{kind}-{tag}.png", encoded(rgb, kind, **how), rgb)
        for mode, kinds in (
            ("L", ("PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG2000")),
            ("1", ("PNG", "BMP", "TIFF", "PPM")),
            ("P", ("PNG", "BMP", "TIFF", "GIF")),
            ("CMYK", ("TIFF",)),
        ):
            image = rgb.convert(mode)
            for kind in kinds:
                yield _readable(f"{mode}-{kind}-{tag}.tif", encoded(image, kind), image)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_jpeg"):
            off = 12.0 if compression == "tiff_jpeg" else 0.0
            yield _readable(
                f"{compression}-{tag}.tiff", encoded(rgb, "TIFF", compression=compression), rgb, off
            )
        fax = rgb.convert("1")
        yield _readable(f"group4-{tag}.tiff", encoded(fax, "TIFF", compression="group4"), fax)


def _lossy() -> Iterator[Awkward]:
    rgb = picture(7, 48, 32)
    plain = encoded(rgb, quality=95)
    for name, how in (
        ("progressive", {"progressive": True}),
        ("optimized", {"optimize": True}),
        ("444", {"subsampling": 0}),
        ("422", {"subsampling": 1}),
        ("420", {"subsampling": 2}),
        ("restarts", {"restart_marker_blocks": 1}),
        ("icc", {"icc_profile": b"not a profile"}),
        ("long-icc", {"icc_profile": bytes(150_000)}),
        ("comment", {"comment": b"\xff\xfe" * 500}),
        ("dpi", {"dpi": (65_000, 1)}),
        ("exif", {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}),
        ("exif-empty", {"exif": b"Exif\0\0"}),
        ("exif-loop", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0"}),
    ):
        yield _readable(f"jpeg-{name}.jpg", encoded(rgb, quality=95, **how), rgb, 3)
    gray = rgb.convert("L")
    yield _readable("jpeg-gray.jpg", encoded(gray, quality=95), gray, 3)
    yield _readable("jpeg-trailing-bytes.jpg", plain + b"\0" * 1000, rgb, 3)
    yield _readable("jpeg-two-images.jpg", plain + encoded(gray), rgb, 3)
    yield _readable("webp-lossy.webp", encoded(rgb, "WEBP", quality=95), rgb, 6)
    inks = rgb.convert("CMYK")
    yield _readable("cmyk-adobe.jpg", encoded(inks, quality=95), rgb, 6)
    yield _readable("cmyk-unmarked.jpg", _without_segment(encoded(inks, quality=95), 0xEE), rgb, 6)
    for orientation, turn in enumerate((None, *(Image.Transpose[each] for each in _TURNS)), 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = rgb if turn is None else rgb.transpose(turn)
        yield _readable(f"turned-{orientation}.jpg", encoded(rgb, quality=95, exif=exif), upright, 3)
        yield _readable(f"turned-{orientation}.png", encoded(rgb, "PNG", exif=exif), upright)
    exif = Image.Exif()
    exif[0x0112] = 99
    yield _readable("turned-99.jpg", encoded(rgb, quality=95, exif=exif), rgb, 3)


_TURNS = (
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
)


def _without_segment(jpeg: bytes, marker: int) -> bytes:
    at = jpeg.index(bytes([0xFF, marker]))
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def _wide() -> Iterator[Awkward]:
    """More than eight bits, fewer than eight, and shapes at the edge."""
    rng = np.random.default_rng(5)
    for seed, (width, height) in enumerate(SIZES):
        deep = rng.integers(0, 65536, (height, width), dtype=np.uint16)
        gray = np.repeat(np.rint(deep * (255 / 65535))[..., None], 3, axis=2)
        image = Image.fromarray(deep)
        yield _readable(f"deep-gray-{seed}.png", encoded(image, "PNG"), gray)
        yield _readable(f"deep-gray-{seed}.tif", encoded(image, "TIFF"), gray)
        big_endian = _png(width, height, 16, 0, deep.astype(">u2").tobytes())
        yield _readable(f"deep-gray-{seed}-own.png", big_endian, gray)
        pgm = b"P5 %d %d 65535\n" % (width, height) + deep.astype(">u2").tobytes()
        yield _readable(f"deep-gray-{seed}.pgm", pgm, gray)
        colours = rng.integers(0, 65536, (height, width, 3), dtype=np.uint16)
        yield _readable(
            f"deep-rgb-{seed}.png", _png(width, height, 16, 2, colours.astype(">u2").tobytes()), colours >> 8
        )
    for depth in (1, 2, 4):
        levels = rng.integers(0, 1 << depth, (5, 8), dtype=np.uint8)
        bits = (levels[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        data = _png(8, 5, depth, 0, np.packbits(bits.reshape(5, -1), axis=1).tobytes())
        shades = np.repeat((levels * (255 // ((1 << depth) - 1)))[..., None], 3, axis=2)
        yield _readable(f"gray-of-{depth}-bits.png", data, shades)
    for size in ((1, 1), (1, 10_000), (10_000, 1), (2, 5000)):
        line = picture(9, *size)
        name = "line-{}x{}".format(*size)
        yield _readable(f"{name}.png", encoded(line, "PNG"), line)
        yield _readable(f"{name}.jpg", encoded(line, quality=95, subsampling=0), line, 12)


def _transparent() -> Iterator[Awkward]:
    rng = np.random.default_rng(6)
    for seed, (width, height) in enumerate(SIZES):
        rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        rgba[0, 0, 3], rgba[-1, -1, 3] = 0, 255
        for kind in ("PNG", "TIFF", "WEBP"):
            how = {"lossless": True, "exact": True} if kind == "WEBP" else {}
            yield _readable(
                f"rgba-{kind}-{seed}", encoded(Image.fromarray(rgba), kind, **how), _on_white(rgba), 1
            )
        gray = rgba[..., [0, 0, 0, 3]]
        yield _readable(
            f"la-{seed}.png", encoded(Image.fromarray(rgba[..., [0, 3]], "LA"), "PNG"), _on_white(gray), 1
        )
        places = rng.integers(0, 4, (height, width), dtype=np.uint8)
        palette = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        image = Image.fromarray(places)
        image.putpalette(palette[:, :3].tobytes())
        data = encoded(image, "PNG", transparency=palette[:, 3].tobytes())
        yield _readable(f"palette-alpha-{seed}.png", data, _on_white(palette[places]), 1)
        keyed = np.where((places == 2)[..., None], 255, palette[places][..., :3])
        for kind in ("PNG", "GIF"):
            yield _readable(f"palette-key-{kind}-{seed}.gif", encoded(image, kind, transparency=2), keyed)
        opaque = Image.fromarray(palette[places][..., :3])
        data = encoded(opaque, "PNG", transparency=tuple(palette[2, :3].tolist()))
        yield _readable(f"rgb-key-{seed}.png", data, keyed)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))


def _frames() -> Iterator[Awkward]:
    pages = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        how = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(pages[0], kind, save_all=True, append_images=pages[1:], **how)
        yield _readable(f"moving.{kind.lower()}", data, pages[0])
        yield _readable(f"moving-{kind.lower()}-named.jpg", data, pages[0])


def _named() -> Iterator[Awkward]:
    image = picture(11)
    data = encoded(image, "PNG")
    for name in (
        *("çédille.png", "漢字.png", "🐦.png", "ё.jpeg", "e\u0301.png"),
        *(
            "two  blanks.png",
            "-rf.png",
            "%00.png",
            "#hash?query.png",
            "quote'\".png",
            "a\tb.png",
            "line\nbreak.png",
        ),
        *("UPPER.PNG", "dots...png", "back\\slash.png", "n" * 251 + ".png", os.fsdecode(b"latin-\xe9.png")),
    ):
        yield _readable(name, data, image)


def _broken() -> Iterator[Awkward]:
    big = picture(12, 120, 90)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"):
        whole = encoded(big, kind)
        for part in (0.1, 0.5):
            cut = whole[: max(int(len(whole) * part), 30)]
            yield Awkward(name=f"cut-{part}.{kind.lower()}.jpg", data=cut, status=CORRUPT)
    jpeg = encoded(big)
    frame = jpeg.index(b"\xff\xc0")
    contents = {
        "empty": b"",
        "one-byte": b"\xff",
        "zeros": bytes(5000),
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json": b'{"error": "rate limit"}',
        "text": b"image removed by its owner\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "pdf": b"%PDF-1.4\n%%EOF",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "zip": b"PK\x03\x04" + bytes(100),
        "gzip": gzip.compress(jpeg),
        "mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
        "heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "noise": np.random.default_rng(0).bytes(3000),
        "jpeg-start-alone": b"\xff\xd8",
        "jpeg-start-and-end": b"\xff\xd8\xff\xd9",
        "jpeg-of-12-bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "jpeg-lossless": jpeg[:frame] + b"\xff\xc3" + jpeg[frame + 2 :],
        "jpeg-of-no-height": jpeg[: frame + 5] + b"\0\0" + jpeg[frame + 7 :],
        "png-of-no-width": _png(0, 4, 8, 2, b""),
        "png-signature-alone": b"\x89PNG\r\n\x1a\n",
        "float-tiff": encoded(Image.new("F", (2, 2), 0.5), "TIFF"),
    }
    for name, data in contents.items():
        yield Awkward(name=f"{name}.jpg", data=data, status=CORRUPT)


def _bombs() -> Iterator[Awkward]:
    jpeg = encoded(picture(13, 40, 40))
    frame = jpeg.index(b"\xff\xc0")
    sink = io.BytesIO(encoded(picture(13, 40, 40), "BMP"))
    sink.seek(18)
    sink.write(struct.pack("<ii", 30_000, 30_000))
    for name, data in (
        ("png", _png(60_000, 60_000, 8, 2, b"")),
        ("png-just", _png(9460, 9460, 1, 0, b"")),
        ("jpeg", jpeg[: frame + 5] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 9 :]),
        ("gif", encoded(Image.new("L", (3, 3)), "GIF").replace(b"\3\0\3\0", b"\xff\xff\xff\xff")),
        ("bmp", sink.getvalue()),
        ("ppm", b"P6 50000 50000 255\n" + bytes(100)),
    ):
        yield Awkward(name=f"bomb-{name}.jpg", data=data, status=TOO_LARGE)


def _absent() -> Iterator[Awkward]:
    for name in ("absent.jpg", "loop.jpg", "dangling.jpg", "directory.jpg", "pipe.jpg"):
        yield Awkward(name=name, data=None, status=MISSING)


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Return a PNG of rows that are whole bytes; `rows` may be fewer than its header says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(rows) // height if height else 0
    lines = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride or 1))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(lines)),
            chunk(b"IEND", b""),
        )
    )
