"""Rows and images that the cases work on: made ones, and real ones where they are at hand."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ltstore.rows import ArrayRows
from ltstore.sources.longtail import long_tail_counts
from ltstore.store import Store, create_store
from ltstore.types import EncoderIdentity, FloatArray, RowStatus

DATA = Path(os.environ.get("LTSTORE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real_file(*parts: str) -> Path | None:
    """Return a file or directory of the real data, None where it is not at hand."""
    path = DATA.joinpath(*parts)
    return path if path.exists() else None


def made_rows(
    n_rows: int, n_features: int, n_classes: int, imbalance: float = 100.0, seed: int = 0
) -> ArrayRows:
    """Return long-tailed rows of unit norm: Gaussian classes with one covariance of decaying spectrum, shuffled."""
    rng = np.random.default_rng(seed)
    counts = long_tail_counts(n_rows, n_classes, imbalance)
    labels = rng.permutation(np.repeat(np.arange(n_classes), counts))
    deviations = (1.0 / np.sqrt(1.0 + np.arange(n_features) / 16)).astype(np.float32)
    means = rng.standard_normal((n_classes, n_features), np.float32) * deviations * np.float32(0.5)
    X: FloatArray = rng.standard_normal((len(labels), n_features), np.float32)
    X *= deviations
    X += means[labels]
    return ArrayRows(X, labels, class_names=[f"class {c}" for c in range(n_classes)], normalize=True)


def made_half_rows(
    n_rows: int, n_features: int, seed: int = 0
) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    """Return (N, D) float16 rows whose bytes do not compress; made block by block."""
    rng = np.random.default_rng(seed)
    rows = np.empty((n_rows, n_features), np.float16)
    for start in range(0, n_rows, 8192):
        block = rows[start : start + 8192]
        block[:] = rng.standard_normal(block.shape, np.float32)
    return rows


def stored(path: Path, rows: np.ndarray[tuple[int, int], np.dtype[np.float16]]) -> Store:
    """Write float16 rows as split "train" of a new store of one class."""
    identity = EncoderIdentity(encoder="import", model="made", n_features=rows.shape[1])
    store = create_store(path, encoder=identity, class_names=["any"])
    with store.begin_split("train", n_rows=len(rows), source_digest="sha256:made") as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            n = stop - start
            writer.write_shard(
                shard,
                embeddings=rows[start:stop],
                labels=np.zeros(n, np.int64),
                status=np.zeros(n, np.uint8),
                keys=[str(row) for row in range(start, stop)],
                errors=[None] * n,
            )
        writer.finish()
    return store


def write_rows(path: Path, rows: ArrayRows, dtype: str = "float32") -> Store:
    """Write labelled rows as split "train" of a new store of their classes."""
    store = create_store(path, encoder=rows.encoder, class_names=rows.class_names)
    with store.begin_split("train", n_rows=rows.n_samples, source_digest="sha256:made", dtype=dtype) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            writer.write_shard(
                shard,
                embeddings=rows.read(start, stop),
                labels=rows.labels[start:stop],
                status=np.full(stop - start, RowStatus.OK, np.uint8),
                keys=[str(row) for row in range(start, stop)],
                errors=[None] * (stop - start),
            )
        writer.finish()
    return store


def load_compiled() -> None:
    """Have the compiled row loops used from the first row on, as they are in a process that has trained."""
    if find_spec("numba") is not None:
        import_module("numba")


def made_jpegs(directory: Path, n_images: int, sides: tuple[int, int] = (320, 240)) -> Path:
    """Write smooth noise as JPEG files of quality 90 and return the directory."""
    from PIL import Image

    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    width, height = sides
    for number in range(n_images):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize(sides, Image.Resampling.BICUBIC)
        image.save(directory / f"{number:03d}.jpg", quality=90)
    return directory
