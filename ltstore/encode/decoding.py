"""How an image comes to the size that an encoder takes: in full, or fast and nearly the same.

"full" decodes every pixel and resizes with Pillow. "fast" lets libjpeg decode large JPEGs at a half, a quarter or an
eighth, but to no less than twice the size wanted (Pillow's ``reducing_gap=2.0``, what its thumbnails are made with),
and resizes with torch's 8-bit kernels, which follow Pillow's filters. Embeddings differ a little, so an encoder has
the choice in its identity, and one store never mixes the two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.errors import ConfigError

DECODINGS = ("fast", "full")
_REDUCING_GAP = 2
_MOST_ASPECT = 32
_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def least_side(side: int, decoding: str) -> int | None:
    """Return the side below which no JPEG may be reduced for an input of `side` pixels, None where none may be.

    Raises
    ------
    ConfigError
        There is no such decoding.
    """
    if decoding not in DECODINGS:
        raise ConfigError(f"decoding must be {' or '.join(DECODINGS)}, found {decoding!r}")
    return _REDUCING_GAP * side if decoding == "fast" else None


def recorded(decoding: str) -> dict[str, str]:
    """Return what an encoder's identity says of it: nothing for "full", as before there was a choice."""
    return {} if decoding == "full" else {"decoding": decoding}


def resized(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    decoding: str,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Return an image, or the part of it in `box`, at another size.

    Parameters
    ----------
    image : Image
        RGB or grey.
    size : (width, height)
    resample : Resampling
        Bilinear or bicubic; others are Pillow's either way.
    decoding : str
    box : (left, top, right, bottom), optional
        Pillow's either way where it cuts pixels: a shift by half of one moves embeddings by up to 3 %.

    Returns
    -------
    (height, width, 3) or (height, width, 1) uint8
        New; "fast" differs from "full" by rounding.

    Notes
    -----
    "fast" takes a fifth of Pillow's time, on one thread and without the interpreter lock.
    """
    mode = _TORCH_MODES.get(resample)
    whole = box is None or all(edge == int(edge) for edge in box)
    if decoding == "full" or mode is None or not whole:
        return np.atleast_3d(np.asarray(image.resize(size, resample, box=box)))
    from torch import from_numpy
    from torch.nn.functional import interpolate

    if box is not None:
        left, top, right, bottom = map(int, box)
        image = image.crop((left, top, right, bottom))
    planes = from_numpy(np.atleast_3d(np.array(image)))[None].permute(0, 3, 1, 2)
    found = interpolate(planes, size=size[::-1], mode=mode, antialias=True)
    pixels: NDArray[np.uint8] = found[0].permute(1, 2, 0).numpy()
    return pixels


def fast_step(step: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    """Return torchvision's resize in its fast form, any other step as it is."""
    from torchvision.transforms import Resize

    if not isinstance(step, Resize):
        return step
    size, resample = step.size, Image.Resampling[step.interpolation.name]

    def resize(image: Image.Image) -> Image.Image:
        if isinstance(size, int):
            width, height = (size * side // min(image.size) for side in image.size)
        else:
            height, width = size
        return Image.fromarray(resized(image, (width, height), resample, "fast"))

    return resize


def without_ends(image: Image.Image) -> Image.Image:
    """Cut an image of more than 32 to 1 to its middle, before a resize by the shorter side makes gigabytes of it."""
    width, height = image.size
    left, top = (max(0, side - _MOST_ASPECT * min(image.size)) // 2 for side in image.size)
    return image.crop((left, top, width - left, height - top)) if left or top else image
