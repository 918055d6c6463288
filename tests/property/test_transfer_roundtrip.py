"""What is imported, exported and imported again is the same to the last bit, in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ltstore.store import create_store, open_store
from ltstore.transfer import EXPORT_FORMATS, export_embeddings, import_embeddings
from ltstore.types import UNLABELLED, EncoderIdentity, RowStatus
from support.foreign import same_bits, scratch, stored

CLASSES = ("newt", "été\nnewt", "crane", "crane")


@st.composite
def finite_bits(draw: st.DrawFn) -> NDArray[Any]:
    """Any finite floats: subnormals and negative zeros too."""
    dtype = draw(st.sampled_from(["float16", "float32"]))
    n, d = draw(st.integers(1, 23)), draw(st.integers(1, 9))
    word = np.dtype(dtype).itemsize
    bits = np.frombuffer(draw(st.binary(min_size=n * d * word, max_size=n * d * word)), dtype).reshape(n, d)
    return np.where(np.isfinite(bits), bits, np.array(-0.0, dtype))


def out_path(directory: Path, layout: str) -> Path:
    return directory / ("out" if layout in ("clip-retrieval", "datacomp") else f"out.{layout}")


@pytest.mark.parametrize("layout", EXPORT_FORMATS)
@settings(max_examples=10, deadline=None)
@given(X=finite_bits(), part_rows=st.integers(1, 30), data=st.data())
def test_round_trip(layout: str, X: NDArray[Any], part_rows: int, data: st.DataObject) -> None:
    n = len(X)
    labels = data.draw(st.lists(st.integers(-1, len(CLASSES) - 1), min_size=n, max_size=n))
    keys = data.draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=n, max_size=n))
    with scratch() as name:
        here = Path(name)
        identity = EncoderIdentity(encoder="import", model="m/1", weights="w", n_features=X.shape[1])
        store = create_store(here / "a.zarr", encoder=identity, class_names=CLASSES)
        with store.begin_split(
            "train", n_rows=n, source_digest="", dtype=X.dtype.name, rows_per_shard=7
        ) as writer:
            for shard in writer.pending:
                at = slice(*writer.plan.shard_range(shard))
                writer.write_shard(
                    shard,
                    embeddings=X[at],
                    labels=np.array(labels[at]),
                    status=np.zeros(len(X[at]), np.uint8),
                    keys=keys[at],
                    errors=[None] * len(X[at]),
                )
            writer.finish()
        out = out_path(here, layout)
        export_embeddings(here / "a.zarr", out, "train", format=layout, part_rows=part_rows)
        report = import_embeddings(out, here / "b.zarr", "train", rows_per_shard=7)
        split, found = stored(here / "b.zarr")
        assert same_bits(found, X)
        assert split.labels.tolist() == labels
        assert split.keys(range(n)) == keys
        assert report.dtype == X.dtype.name
        assert (split.class_names, split.encoder) == (CLASSES, identity)
        assert split.digest == open_store(here / "a.zarr").split("train").digest


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(lambda n: sum(n) > 0),
    rows_per_shard=st.integers(1, 20),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4"]),
    fortran=st.booleans(),
)
def test_parts_are_joined_in_numeric_order(
    lengths: list[int], rows_per_shard: int, dtype: str, fortran: bool
) -> None:
    X = np.random.default_rng(1).standard_normal((sum(lengths), 3)).astype(dtype)
    with scratch() as name:
        here = Path(name)
        (here / "parts").mkdir()
        start = 0
        for number, length in enumerate(lengths, 7):
            piece = X[start : start + length]
            np.save(here / "parts" / f"emb_{number}.npy", np.asfortranarray(piece) if fortran else piece)
            start += length
        import_embeddings(here / "parts", here / "a.zarr", "train", rows_per_shard=rows_per_shard)
        split, found = stored(here / "a.zarr")
        assert same_bits(found, X.astype(X.dtype.newbyteorder("<")))
        expected = [f"emb_{number}.npy#{row}" for number, n in enumerate(lengths, 7) for row in range(n)]
        assert split.keys(range(len(X))) == expected


@settings(max_examples=15, deadline=None)
@given(
    bad=st.dictionaries(st.integers(0, 19), st.sampled_from([np.nan, np.inf, -np.inf, 1e6]), max_size=6),
    layout=st.sampled_from(EXPORT_FORMATS),
)
def test_failed_rows_keep_their_place(bad: dict[int, float], layout: str) -> None:
    X = np.random.default_rng(2).standard_normal((20, 4)).astype(np.float32)
    for row, value in bad.items():
        X[row, 1] = value
    with scratch() as name:
        here = Path(name)
        np.save(here / "x.npy", X)
        report = import_embeddings(here / "x.npy", here / "a.zarr", "train", dtype="float16")
        split, found = stored(here / "a.zarr")
        ok = split.status == RowStatus.OK
        assert (report.n_rows, report.n_failed) == (20, len(bad))
        assert np.flatnonzero(~ok).tolist() == sorted(bad)
        assert same_bits(found[ok], X[ok].astype(np.float16))
        assert (split.labels == UNLABELLED).all()
        export_embeddings(here / "a.zarr", out_path(here, layout), "train", format=layout, skip_failed=True)
        import_embeddings(out_path(here, layout), here / "b.zarr", "train")
        again, kept = stored(here / "b.zarr")
        assert same_bits(kept, X[ok].astype(np.float16))
        assert again.keys(range(again.n_rows)) == [f"x.npy#{row}" for row in np.flatnonzero(ok)]
