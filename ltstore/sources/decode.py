"""Bytes to an RGB image, whatever they are; what cannot be decoded says why, and never stops a run.

Rules, the same for every source:

- EXIF orientation is applied (an unreadable EXIF block is ignored, the image stays as stored);
- transparency (RGBA, LA, palette or colour-key) is composited over white;
- 16-bit greyscale is scaled to 8 bits, round(value * 255 / 65535), never clipped at 255;
- CMYK, palette, greyscale, bilevel, YCbCr become RGB by Pillow's own conversion; colour profiles are ignored;
- a CMYK JPEG is taken as Adobe writes them (inverted), marked so or not; 16-bit colours lose their low byte;
- an animation gives its first frame;
- more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` is TOO_LARGE (Pillow itself only warns up to twice that), and so are
  more than 2**24 in a row or column, of which Pillow says that memory ran out, and files of more than 1 GiB.

A JPEG may be decoded at a half, a quarter or an eighth of its size (libjpeg leaves out the high frequencies of each
block), where the caller says how large it must stay.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ltstore.errors import ImageError, SourceError
from ltstore.types import RowStatus

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
"""Pillow formats that are tried. No EPS or PDF: those run programs. (MPO is opened as JPEG.)"""

LARGEST_FILE_BYTES = 1 << 30
"""Of one image: a sparse file claims more than any disk holds."""
_LONGEST_SIDE = 1 << 24
_NO_SUCH_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.EILSEQ),  # no file system has such a name
    errno.ENXIO,  # a socket
}
"""What says that a row has no image. All else (EIO, ESTALE, ETIMEDOUT, EMFILE, ...) may pass: it costs no row."""


def read_file(path: Path, key: str) -> bytes:
    """Return a regular file's bytes.

    Raises
    ------
    ImageError
        With MISSING: not there, not readable, or not a regular file (a pipe would wait for ever); with TOO_LARGE:
        more than 1 GiB.
    SourceError
        Anything else that the file system says (an I/O error, a lost mount, too many open files): it may be
        another one next time, so it ends the run and no row is given up.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as handle:
            found = os.fstat(handle.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ImageError(f"{key}: not a regular file", RowStatus.MISSING)
            if found.st_size > LARGEST_FILE_BYTES:
                raise ImageError(f"{key}: {found.st_size} bytes exceed 1 GiB", RowStatus.TOO_LARGE)
            return handle.read()
    except ImageError:
        raise
    except (OSError, ValueError) as err:
        raise _read_error(path, key, err) from err


def read_range(path: Path, start: int, n_bytes: int) -> bytes:
    """Return bytes [start, start + n_bytes) of a file that many rows lie in.

    Raises
    ------
    SourceError
        It cannot be read, or ends before: that is no fault of one row, so none is given up.
    """
    try:
        with path.open("rb", buffering=0) as handle:
            handle.seek(start)
            data = handle.read(n_bytes)
            while 0 < len(data) < n_bytes and (more := handle.read(n_bytes - len(data))):
                data += more
    except OSError as err:
        raise SourceError(
            f"cannot read {path}: {err.strerror or err}; run the same command again to go on from here"
        ) from err
    if len(data) < n_bytes:
        raise SourceError(f"{path} ends before byte {start + n_bytes}: it has changed since it was opened")
    return data


def file_size(path: Path) -> int:
    """Return the bytes of the file at `path`, -1 where `read_file` would find it MISSING.

    Raises
    ------
    SourceError
        As in `read_file`.
    """
    try:
        found = path.stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else -1
    except (OSError, ValueError) as err:
        failure = _read_error(path, str(path), err)
        if isinstance(failure, ImageError):
            return -1
        raise failure from err


def decode_image(data: bytes, key: str, least_side: int | None = None) -> Image.Image:
    """Return the RGB image in `data`; `key` names it in the error.

    With `least_side`, a JPEG may come smaller than it is: by the largest of 2, 4 and 8 that leaves both its sides
    at that many pixels or more.

    Raises
    ------
    ImageError
        With CORRUPT (not an image, truncated, empty, of an unknown format) or TOO_LARGE.

    Notes
    -----
    Thread-safe, and Pillow decodes without the interpreter lock. Memory: the decoded image, and a second one
    where the mode is converted.
    """
    if not data:
        raise ImageError(f"{key}: the file is empty", RowStatus.CORRUPT)
    _quiet_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(
                f"{image.width} x {image.height} pixels exceed the limit of {limit}"
            )
        if max(image.size) > _LONGEST_SIDE:
            raise ImageError(
                f"{key}: {image.width} x {image.height} pixels, a side may have {_LONGEST_SIDE}",
                RowStatus.TOO_LARGE,
            )
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        image.load()
        return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageError(
            f"{key}: {err} (raise PIL.Image.MAX_IMAGE_PIXELS where the image is trusted)", RowStatus.TOO_LARGE
        ) from err
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as err:
        raise ImageError(f"{key}: not an image of a known format", RowStatus.CORRUPT) from err
    except Exception as err:
        # Pillow's parsers raise nearly anything on damaged bytes: struct.error, SyntaxError, IndexError...
        raise ImageError(f"{key}: {type(err).__name__}: {err}", RowStatus.CORRUPT) from err


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
        if orientation == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - a damaged EXIF block says nothing about the pixels
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range: convert the image to 8 bits")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        paper = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(paper, colours).convert("RGB")
    return image.convert("RGB")


def _read_error(path: Path, key: str, err: OSError | ValueError) -> ImageError | SourceError:
    if not isinstance(err, OSError):  # a NUL in the name
        return ImageError(f"{key}: {err}", RowStatus.MISSING)
    if err.errno in _NO_SUCH_FILE:
        return ImageError(f"{key}: {err.strerror or err}", RowStatus.MISSING)
    return SourceError(
        f"cannot read {path}: {err.strerror or err}; this is no fault of the image, so its row is not given up: "
        "run the same command again to go on from here"
    )


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def _quiet_pillow() -> None:
    # Pillow warns of odd metadata and of bombs; the row's status says what matters. The standard context
    # manager is not safe between threads, so two filters are added: metadata warnings of Pillow's own modules never
    # reach anyone (as errors they would make a row's fate depend on the program's filters), bombs only where
    # the program has no filter of its own.
    for category, last in ((UserWarning, False), (Image.DecompressionBombWarning, True)):
        if not any(
            entry[2] is category and getattr(entry[3], "pattern", "") == _PILLOW for entry in warnings.filters
        ):
            warnings.filterwarnings("ignore", category=category, module=_PILLOW, append=last)


_PILLOW = r"PIL\."
