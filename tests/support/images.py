"""Image files and sources that tests make themselves."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ltstore.errors import ImageError
from ltstore.sources import LabelledSource
from ltstore.types import ByteArray, EncoderIdentity, FloatArray, RowStatus


def picture(seed: int = 0, width: int = 24, height: int = 16) -> Image.Image:
    """Return a smooth RGB image, so that JPEG keeps it nearly as it is."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **settings: Any) -> bytes:
    """Return the file that Pillow writes of an image."""
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return sink.getvalue()


def class_tree(root: Path, counts: dict[str, int]) -> Path:
    """Write ROOT/<class>/<i>.jpg."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03d}.jpg").write_bytes(encoded(picture(100 * label + i)))
    return root


def cifar100_files(n_train: int = 12, n_test: int = 5) -> dict[str, bytes]:
    """Return the three pickles of CIFAR-100 as Python 2 wrote them, with few rows and three classes."""
    rng = np.random.default_rng(3)
    files = {}
    for name, n in (("train", n_train), ("test", n_test)):
        fine = [int(y) for y in rng.integers(0, 3, n)]
        batch = {
            b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
            b"fine_labels": fine,
            b"coarse_labels": [0] * n,
            b"filenames": [b"x.png"] * n,
        }
        files[name] = python2_pickle(batch)
    files["meta"] = python2_pickle({b"fine_label_names": [b"apple", b"bear", b"crab"]})
    return files


def cifar10_files(n_each: int = 3) -> dict[str, bytes]:
    """Return the seven pickles of CIFAR-10 with few rows."""
    rng = np.random.default_rng(4)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files = {
        name: python2_pickle(
            {
                b"data": rng.integers(0, 256, (n_each, 3072), dtype=np.uint8),
                b"labels": [int(y) for y in rng.integers(0, 2, n_each)],
            }
        )
        for name in names
    }
    files["batches.meta"] = python2_pickle({b"label_names": [b"cat", b"dog"]})
    return files


_PurePickler: Any = vars(pickle)["_Pickler"]


class _Python2Pickler(_PurePickler):  # type: ignore[misc]
    """Protocol 2 as Python 2 wrote it: bytes are its `str`, stored as SHORT_BINSTRING or BINSTRING."""

    dispatch: ClassVar[dict[type, Any]] = dict(_PurePickler.dispatch)

    def save_bytes(self, data: bytes) -> None:
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def python2_pickle(value: Any) -> bytes:
    """Return a protocol-2 pickle in which bytes are Python 2 strings and NumPy has its old module name."""
    sink = io.BytesIO()
    _Python2Pickler(sink, 2, fix_imports=False).dump(value)
    return sink.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    """Write files into a directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def write_tar(path: Path, directory: str, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    """Write a tar with the files under a directory and return its path."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


class ArraySource(LabelledSource):
    """Images made from (N, H, W, 3) pixels; positions in `broken` raise that error."""

    def __init__(
        self,
        pixels: ByteArray,
        labels: Sequence[int],
        names: Sequence[str],
        broken: dict[int, Exception] | None = None,
    ) -> None:
        super().__init__([f"row/{i:04d}" for i in range(len(pixels))], labels, names)
        self.pixels, self.broken = pixels, broken or {}

    def fetch(self, position: int) -> ByteArray:
        if position in self.broken:
            raise self.broken[position]
        row: ByteArray = self.pixels[position]
        return row


def array_source(n: int = 20, broken: dict[int, Exception] | None = None, seed: int = 0) -> ArraySource:
    """Return n random 4 x 4 images of three classes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return ArraySource(pixels, [i % 3 for i in range(n)], ["a", "b", "c"], broken)


def corrupt(key: str = "x") -> ImageError:
    """Return the error of a broken file."""
    return ImageError(f"{key}: broken on purpose", RowStatus.CORRUPT)


class SumEncoder:
    """Two features: mean pixel and first pixel. `fail` maps a first pixel to what encode or preprocess does."""

    spec = "sum"
    device = "cpu"

    def __init__(self, name: str = "sum") -> None:
        self.identity = EncoderIdentity(encoder="test", model=name, n_features=2)
        self.batches: list[int] = []

    def preprocess(self, image: Image.Image) -> ByteArray:
        return np.asarray(image).reshape(-1)

    def encode(self, batch: ByteArray) -> FloatArray:
        self.batches.append(len(batch))
        wide = batch.astype(np.float32)
        return np.stack([wide.mean(axis=1), wide[:, 0]], axis=1)
