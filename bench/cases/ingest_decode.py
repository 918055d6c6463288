"""ingest.decode: large JPEGs to 224 x 224, against Pillow decoding them in full."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from bench.case import Case, Size
from bench.data import made_jpegs, real_file
from bench.timing import Candidate, Workload, WrongResultError

SIDE = 224
N_MADE = {"toy": 2, "full": 12}
SIDES = {"toy": (320, 240), "full": (2400, 1600)}


def build(size: Size) -> Iterator[Workload]:
    """Yield the photographs of the real data where they are, and made ones of several megapixels."""
    with TemporaryDirectory() as directory:
        photos = real_file("imagenet_samples")
        if size == "full" and photos is not None:
            yield _workload("ImageNet photographs", sorted(photos.glob("*.JPEG")))
        folder = made_jpegs(Path(directory) / "made", N_MADE[size], SIDES[size])
        yield _workload("made, {} x {}".format(*SIDES[size]), sorted(folder.glob("*.jpg")))


def _workload(variant: str, paths: list[Path]) -> Workload:
    from ltstore.encode import open_encoder
    from ltstore.sources import to_image

    files = [path.read_bytes() for path in paths]
    full, fast = (open_encoder(f"pixels:{SIDE}", options={"decoding": each}) for each in ("full", "fast"))
    least_side = getattr(fast, "least_side", None)

    def ours() -> Any:
        return [fast.preprocess(to_image(data, "photograph", least_side)) for data in files]

    def pillow() -> Any:
        return [np.asarray(_open(data)) for data in files]

    def pillow_resized() -> Any:
        return [full.preprocess(_open(data)) for data in files]

    expected = pillow_resized()

    def check(name: str, result: Any) -> None:
        if name == "Pillow, full decode":
            if any(array.ndim != 3 or array.shape[2] != 3 for array in result):
                raise WrongResultError(f"{name}: not RGB")
            return
        for found, wanted in zip(result, expected, strict=True):
            # A decoder may scale while it decodes: means of pixels, not bits, must agree.
            difference = np.abs(found.astype(np.float32) - wanted.astype(np.float32))
            if found.shape != wanted.shape or difference.mean() > 4:
                raise WrongResultError(f"{name}: pixels are {difference.mean():.1f} of 255 off on average")

    n = len(files)
    return Workload(
        variant=variant,
        candidates=(
            Candidate(name="ltstore decode + resize", run=ours, work=n),
            Candidate(name="Pillow, full decode", run=pillow, work=n, peer="pillow", aim=2.0, stretch=3.0),
            Candidate(
                name="Pillow, full decode + resize",
                run=pillow_resized,
                work=n,
                peer="pillow",
                aim=2.0,
                stretch=3.0,
            ),
        ),
        check=check,
        unit="images",
        settings={"n_images": n, "side": SIDE, "mean_bytes": sum(map(len, files)) // n},
    )


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


CASE = Case(
    name="ingest.decode",
    definition=f"images/s of decode + resize to {SIDE} / images/s of plain Pillow full decode, one core",
    build=build,
    note="A JPEG is decoded at a half where both its sides are four times the encoder's at least: most photographs of "
    "ImageNet are too small for that, and only their resize is faster.",
)
