"""Foreign Zarr arrays made to do harm: adoption names them, runs none of their code, and takes no memory for them."""

from __future__ import annotations

import bz2
import json
import lzma
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from ltstore.errors import DataError, LabelError, SourceError
from ltstore.transfer import adopt
from support.foreign import matrix
from support.peak import MIB, peak_bytes

X = matrix(40, 6)
CODECS: dict[str, Any] = {
    "none": None,
    "zstd": numcodecs.Zstd(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc("lz4"),
}


def v2(path: Path, codec: str = "zstd", **arguments: Any) -> Path:
    array = zarr.create_array(
        path,
        shape=X.shape,
        dtype=X.dtype,
        chunks=(10, 6),
        zarr_format=2,
        compressors=CODECS[codec],
        **arguments,
    )
    array[...] = X
    return path


def rewrite(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("codec", CODECS)
def test_every_compressor_of_format_2_reads_alike(tmp_path: Path, codec: str) -> None:
    rows = adopt(v2(tmp_path / "a", codec), normalize=False)
    assert np.array_equal(rows.read(0, 40), X)
    assert np.array_equal(rows.take(np.array([39, 3])), X[[39, 3]])


@pytest.mark.parametrize("codec", ["zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "blosc"])
def test_every_compressor_of_numcodecs_in_format_3_reads_alike(tmp_path: Path, codec: str) -> None:
    import warnings

    import numcodecs.zarr3 as in_zarr

    names = {"gzip": "GZip", "bz2": "BZ2", "lzma": "LZMA", "lz4": "LZ4"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compressor = getattr(in_zarr, names.get(codec, codec.capitalize()))()
        array = zarr.create_array(
            tmp_path / "a", shape=X.shape, dtype=X.dtype, chunks=(10, 6), compressors=compressor
        )
        array[...] = X
    assert np.array_equal(adopt(tmp_path / "a", normalize=False).read(0, 40), X)


def test_filters_that_rearrange_numbers_and_order_f(tmp_path: Path) -> None:
    rows = adopt(v2(tmp_path / "s", filters=[numcodecs.Shuffle(4)], order="F"), normalize=False)
    assert np.array_equal(rows.read(0, 40), X)
    whole = np.round(X * 8).astype("float32")
    array = zarr.create_array(
        tmp_path / "d",
        shape=X.shape,
        dtype="float32",
        zarr_format=2,
        filters=[numcodecs.Delta("<f4")],
        chunks=(7, 6),
    )
    array[...] = whole
    assert np.allclose(adopt(tmp_path / "d", normalize=False).read(0, 40), whole)


@pytest.mark.parametrize("version", [2, 3])
def test_labels_that_are_text(tmp_path: Path, version: Any) -> None:
    import warnings

    group = zarr.create_group(tmp_path / "g", zarr_format=version)
    group.create_array("X", shape=X.shape, dtype=X.dtype, chunks=(10, 6))[...] = X
    names = np.array(["crane", "newt"] * 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group.create_array("label", shape=(40,), dtype=str, chunks=(16,))[...] = names
    rows = adopt(tmp_path / "g", labels="label")
    assert rows.class_names == ("crane", "newt")
    assert rows.labels.tolist() == [0, 1] * 20


# code


class _Evil:
    """Unpickled, it makes a directory."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_no_codec_runs_code(tmp_path: Path, place: str) -> None:
    """numcodecs' "pickle" is a codec like others, and unpickling runs what a chunk says: it is not even made."""
    path, mark = v2(tmp_path / "a", "none"), tmp_path / "ran"
    entry = {"id": "pickle", "protocol": 5}
    rewrite(path / ".zarray", **{place: entry if place == "compressor" else [entry]})
    for chunk in path.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(_Evil(mark)))
    with pytest.raises(SourceError, match="'pickle' is not one that is safe"):
        adopt(path)
    assert not mark.exists()


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_nor_do_labels(tmp_path: Path, place: str) -> None:
    path, mark = tmp_path / "g", tmp_path / "ran"
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("X", shape=X.shape, dtype=X.dtype)[...] = X
    group.create_array("y", shape=(40,), dtype="int64", compressors=None)[...] = 1
    entry = {"id": "pickle", "protocol": 5}
    rewrite(
        path / "y" / ".zarray",
        dtype="|O",
        fill_value=None,
        **{place: entry if place == "compressor" else [entry]},
    )
    (path / "y" / "0").write_bytes(pickle.dumps(_Evil(mark)))
    with pytest.raises(SourceError):
        adopt(path, array="X", labels="y")
    assert not mark.exists()


# size


def bomb(kind: str, n_mib: int = 256) -> bytes:
    zeros = bytes(MIB)
    if kind == "bz2":
        squeeze: Any = bz2.BZ2Compressor()
    elif kind == "lzma":
        squeeze = lzma.LZMACompressor(preset=0)
    else:
        squeeze = zlib.compressobj(1, wbits=31 if kind == "gzip" else 15)
    return b"".join(squeeze.compress(zeros) for _ in range(n_mib)) + squeeze.flush()


def adopt_bytes(path: Path) -> tuple[int, str]:
    """Adopt in a process of its own; see `support.peak`."""
    imports = (
        "import numpy, zarr, pyarrow; from ltstore.store import zarr_arrays; from ltstore.transfer import adopt"
    )
    return peak_bytes(path, "adopt(path)", imports)


@pytest.mark.parametrize("kind", ["gzip", "zlib", "bz2", "lzma"])
def test_a_decompression_bomb(tmp_path: Path, kind: str) -> None:
    path = v2(tmp_path / "a", kind)
    (path / "0.0").write_bytes(bomb(kind))
    grown, error = adopt_bytes(path)
    assert grown < 200 * MIB
    assert error.startswith("SourceError"), error


@pytest.mark.parametrize("kind", ["lz4", "blosc"])
@pytest.mark.parametrize("claimed", [1 << 30, 0xFFFFFFFF])
def test_a_head_that_claims_more_than_there_is(tmp_path: Path, kind: str, claimed: int) -> None:
    """And for blosc, a length of its own that leads past the end of the chunk."""
    path = v2(tmp_path / "a", kind)
    whole = (path / "0.0").read_bytes()
    for place in (0,) if kind == "lz4" else (4, 12):
        data = bytearray(whole)
        data[place : place + 4] = claimed.to_bytes(4, "little")
        (path / "0.0").write_bytes(data)
        grown, error = adopt_bytes(path)
        assert grown < 200 * MIB
        assert error.startswith("SourceError"), error


@pytest.mark.parametrize("shape", [[1 << 40, 6], [1 << 62, 1 << 30], [10_000_000, 6], [40, 1 << 40]])
@pytest.mark.parametrize("version", [2, 3])
def test_a_shape_that_no_file_holds(tmp_path: Path, shape: list[int], version: int) -> None:
    """Zarr fills what is missing: it would be read for years."""
    path = tmp_path / "a"
    if version == 2:
        v2(path)
    else:
        zarr.create_array(path, shape=X.shape, dtype=X.dtype, chunks=(10, 6))[...] = X
    rewrite(path / (".zarray" if version == 2 else "zarr.json"), shape=shape)
    if shape[0] == 10_000_000:
        shape = [100_000_000, 6]
        rewrite(path / (".zarray" if version == 2 else "zarr.json"), shape=shape)
    grown, error = adopt_bytes(path)
    assert grown < 200 * MIB
    assert error.startswith("SourceError"), error


@pytest.mark.parametrize(
    "values",
    [
        {"chunks": [1 << 40, 6]},
        {"chunks": [0, 6]},
        {"chunks": [10]},
        {"chunks": "x"},
        {"shape": [-1, 6]},
        {"shape": [True, 6]},
        {"shape": 3},
        {"dtype": "<U100000000"},
        {"dtype": "|O"},
        {"dtype": [["a", "<f4"]]},
        {"dtype": "|V1000000000"},
        {"dtype": 3},
        {"compressor": {"id": "x" * 100_000}},
        {"compressor": "zstd"},
        {"compressor": {"id": ["zstd"]}},
        {"filters": [{"id": "vlen-array"}]},
        {"filters": [{"id": "packbits"}] * 100},
        {"filters": "x"},
        {"zarr_format": 4},
        {"order": "Z"},
        {"fill_value": {"a": []}},
        {"dimension_separator": "../"},
    ],
)
def test_hostile_documents_of_format_2(tmp_path: Path, values: dict[str, Any]) -> None:
    path = v2(tmp_path / "a")
    rewrite(path / ".zarray", **values)
    with pytest.raises((SourceError, DataError)) as caught:
        adopt(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"a": 1, "a": 2}', "[]", "null", '{"zarr_format": 1e999}']
)
@pytest.mark.parametrize("name", [".zarray", "zarr.json"])
def test_documents_that_are_none(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(text)
    with pytest.raises(SourceError):
        adopt(tmp_path / "a")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("name", [".zarray", "0.0"])
def test_pipes_and_devices(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    path = v2(tmp_path / "a")
    (path / name).unlink()
    make(path / name)
    with pytest.raises(SourceError):
        adopt(path)


def test_hints_of_a_group_are_not_believed(tmp_path: Path) -> None:
    """Consolidated metadata may say of an array what its own document does not."""
    path = tmp_path / "g"
    group = zarr.create_group(path, zarr_format=3)
    group.create_array("X", shape=X.shape, dtype=X.dtype, chunks=(10, 6))[...] = X
    document = json.loads((path / "X" / "zarr.json").read_text())
    document["shape"] = [1 << 40, 6]
    hint = {"kind": "inline", "must_understand": False, "metadata": {"X": document}}
    rewrite(path / "zarr.json", consolidated_metadata=hint)
    assert np.array_equal(adopt(path, normalize=False).read(0, 40), X)


def test_labels_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "g"
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("X", shape=X.shape, dtype=X.dtype)[...] = X
    group.create_array("y", shape=(40,), dtype="int64")[...] = 1
    for shape in ([1 << 40], [40, 1], [39], []):
        rewrite(path / "y" / ".zarray", shape=shape, chunks=[max(n, 1) for n in shape[:1] * len(shape)])
        with pytest.raises((LabelError, SourceError)):
            adopt(path, array="X", labels="y")
