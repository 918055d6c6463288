"""A small picture as part of a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_EXACT = 48  # pixels; up to here a PNG is no larger, and nothing is smeared


def thumbnail(image: Image, side: int = 160) -> str:
    """Return a data URL of the image, at most `side` pixels a side; smaller ones are enlarged by the browser."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    kind = "png" if max(small.size) <= _EXACT else "jpeg"
    buffer = io.BytesIO()
    small.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
