"""The pixels themselves as embedding: the baseline that needs no weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.encode.decoding import least_side, recorded, resized
from ltstore.errors import ConfigError, ImageError
from ltstore.types import EncoderIdentity, FloatArray, ImageSource

PROBED_IMAGES = 16
_SPEC = re.compile(r"pixels:(?P<height>[1-9]\d*)(x(?P<width>[1-9]\d*))?(?P<gray>:gray)?")


class PixelEncoder:
    """Pixels of an image, row by row, channels last, divided by 255.

    Parameters
    ----------
    height, width : int
        Images of another size are resized to it, bicubic, without keeping their shape.
    gray : bool
        One channel (ITU-R 601 luma) instead of three; D is height * width * channels.
    decoding : str
        "full" or "fast", see `ltstore.encode.decoding`.
    """

    device = "cpu"
    batch_size_hint = 1024

    def __init__(self, height: int, width: int, *, gray: bool = False, decoding: str = "full") -> None:
        self._size = (width, height)
        self._decoding = decoding
        self.least_side = least_side(max(width, height), decoding)
        self._mode = "L" if gray else "RGB"

    @cached_property
    def identity(self) -> EncoderIdentity:
        """Size, channels and D."""
        width, height = self._size
        channels = len(self._mode.replace("RGB", "123"))
        return EncoderIdentity(
            encoder="pixels",
            model=f"{height}x{width}",
            preprocessing={
                "height": height,
                "width": width,
                "channels": self._mode,
                "resize": "bicubic",
                **recorded(self._decoding),
            },
            n_features=height * width * channels,
        )

    @property
    def spec(self) -> str:
        """ "pixels:HEIGHTxWIDTH", with ":gray" for one channel."""
        width, height = self._size
        return f"pixels:{height}x{width}" + (":gray" if self._mode == "L" else "")

    @property
    def preprocess(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """RGB image -> (D,) uint8."""
        return self._flatten

    def _flatten(self, image: Image.Image) -> NDArray[np.uint8]:
        if image.mode != self._mode:
            image = image.convert(self._mode)
        if image.size == self._size:
            return np.asarray(image).reshape(-1)
        return resized(image, self._size, Image.Resampling.BICUBIC, self._decoding).reshape(-1)

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """(n, D) uint8 -> (n, D) float32 in [0, 1]."""
        return np.divide(batch, np.float32(255), dtype=np.float32)

    def to_onnx(self) -> Any:
        """Return the encoder as an ``onnx.ModelProto``: pixels (n, height, width, channels) uint8 -> embeddings."""
        from ltstore.encode.onnx_graph import EMBEDDINGS, PIXELS, Step, Value, chain

        width, height = self._size
        channels = len(Image.new(self._mode, (1, 1)).getbands())
        return chain(
            [
                Step("Cast", settings={"to": 1}),  # TensorProto.FLOAT
                Step("Div", {"most": np.array(255, np.float32)}),
                Step("Flatten", settings={"axis": 1}),
            ],
            takes=Value(PIXELS, "UINT8", ["n", height, width, channels]),
            gives=[Value(EMBEDDINGS, "FLOAT", ["n", self.identity.n_features])],
        )


class NativePixels:
    """Plain "pixels": a `PixelEncoder` once it has seen the images, which `resolve` shows it.

    `ltstore.encode.ingest` resolves it; `identity`, `preprocess` and `encode` raise ConfigError before that.
    """

    spec = "pixels"
    device = "cpu"

    def __init__(self, decoding: str = "full") -> None:
        self._decoding = decoding

    def resolve(self, source: ImageSource, stored: EncoderIdentity | None = None) -> PixelEncoder:
        """Return the encoder of a store's pixels, or else the one for `source`.

        The latter takes the size of 16 readable images spread evenly over the source, which must agree, and one
        channel where all of them are grey.

        Raises
        ------
        ConfigError
            The images have different sizes, or none can be read.
        """
        if stored is not None and stored.encoder == "pixels":
            settings = stored.preprocessing
            height, width, gray = settings["height"], settings["width"], settings["channels"] == "L"
            return PixelEncoder(height, width, gray=gray, decoding=self._decoding)
        images = list(islice(_readable(source, _spread(source.n_samples)), PROBED_IMAGES))
        if not images:
            raise ConfigError(
                "encoder pixels found no readable image to take its size from: name one, e.g. pixels:32"
            )
        sizes = sorted({image.size for image in images})
        if len(sizes) > 1:
            found = " and ".join(f"{width} x {height}" for width, height in sizes[:2])
            raise ConfigError(
                f"encoder pixels needs images of one size, found {found}: name a size, e.g. pixels:32"
            )
        width, height = sizes[0]
        return PixelEncoder(height, width, gray=all(map(_is_gray, images)), decoding=self._decoding)

    @property
    def identity(self) -> EncoderIdentity:
        """Not known yet: ConfigError."""
        raise _unresolved()

    @property
    def preprocess(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """Not known yet: ConfigError."""
        raise _unresolved()

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """Not known yet: ConfigError."""
        raise _unresolved()


def pixel_encoder(
    spec: str, source: ImageSource | None = None, *, decoding: str = "full"
) -> PixelEncoder | NativePixels:
    """Make the encoder of "pixels", "pixels:S", "pixels:HxW", or one of the latter with ":gray".

    Raises
    ------
    ConfigError
        Another spec.
    """
    if spec == "pixels":
        native = NativePixels(decoding)
        return native if source is None else native.resolve(source)
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ConfigError(
            f"cannot read encoder {spec!r}: expected pixels, pixels:32, pixels:8x8 or pixels:8x8:gray"
        )
    height = int(parts["height"])
    return PixelEncoder(
        height, int(parts["width"] or height), gray=parts["gray"] is not None, decoding=decoding
    )


def _spread(n: int) -> Iterator[int]:
    """Yield evenly spaced positions first (a source may be sorted by class), then all the others."""
    spaced = dict.fromkeys(np.linspace(0, n - 1, min(n, PROBED_IMAGES)).astype(int).tolist())
    yield from spaced
    yield from (position for position in range(n) if position not in spaced)


def _readable(source: ImageSource, positions: Iterable[int]) -> Iterator[Image.Image]:
    for position in positions:
        with suppress(ImageError):
            yield source.read(position)


def _is_gray(image: Image.Image) -> bool:
    channels = np.asarray(image.convert("RGB"))
    return bool((channels == channels[..., :1]).all())


def _unresolved() -> ConfigError:
    return ConfigError(
        "encoder pixels takes its size from the images: name one here, e.g. pixels:32 or pixels:8:gray"
    )
