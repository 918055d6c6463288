"""Small files that ask for much: one clear line or a failed row, in bounded memory. Of stores: `test_store_hostile`."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode.class_text import ClassText, _names_digest, load_class_text
from ltstore.encode.onnx_file import onnx_encoder
from ltstore.errors import ConfigError, DataError, ImageError, ModelFormatError, SourceError, StoreFormatError
from ltstore.linear import load_model
from ltstore.neighbors.saved import read_record
from ltstore.provenance import sealed
from ltstore.sampling.text import _read_vectors
from ltstore.sources import open_source
from ltstore.sources.decode import decode_image
from ltstore.sources.views import read_indices
from ltstore.stats.artefact import load_moments
from ltstore.types import EncoderIdentity, RowStatus
from ltstore.workflow.neighborhood import load_vectors
from support.images import cifar100_files, write_files
from support.peak import MIB, peak_bytes
from support.shell import Shell

IMPORTS = (
    "import numpy, PIL.Image, pyarrow.parquet, csv\n"
    "from ltstore.sources import open_source, read_class_names\n"
    "from ltstore.linear import load_model\n"
    "import safetensors.numpy, ltstore.linear.model"
)
DEEP = "[" * 100_000
GIB = 1 << 30


def sparse(path: Path, n_bytes: int, head: bytes) -> Path:
    """A file that claims many bytes and has few."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(n_bytes)
    return path


def npy(path: Path, *shape: int) -> Path:
    """The header of an array, and no array."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return path


# text


@pytest.mark.parametrize(
    ("name", "head", "what"),
    [
        ("l.csv", b"path,label\na.jpg,", "open_source(path)"),
        ("l.csv", b'path,label\n"a.jpg', "open_source(path)"),
        ("l.csv", b"path,label", "open_source(path)"),
        ("l.tsv", b"path\tlabel\na.jpg\t", "open_source(path)"),
        ("l.txt", b"a.jpg 0\nb.jpg ", "open_source(path, format='list')"),
        ("names.txt", b"cat\ndo", "read_class_names(path)"),
    ],
)
def test_a_line_of_ten_gigabytes_is_not_read(tmp_path: Path, name: str, head: bytes, what: str) -> None:
    grown, error = peak_bytes(sparse(tmp_path / name, 10 * GIB, head), what, IMPORTS)
    assert error.startswith("SourceError")
    assert "longer than 1048576 characters" in error
    assert grown < 100 * MIB


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, '{"images":' + DEEP])
def test_json_nested_a_hundred_thousand_deep(tmp_path: Path, text: str) -> None:
    for name in ("deep.json", "model.json", "record.json", "m.safetensors.json", "model.safetensors"):
        (tmp_path / name).write_text(text)
    (tmp_path / "vectors.npz").write_bytes(b"")
    with pytest.raises(SourceError, match="is no JSON"):
        open_source(tmp_path / "deep.json")
    with pytest.raises(ModelFormatError, match="RecursionError"):
        load_model(tmp_path)
    with pytest.raises(StoreFormatError, match="not a record of an index"):
        read_record(tmp_path)
    with pytest.raises(StoreFormatError, match="not a record of text vectors"):
        load_class_text(tmp_path, encoder=IDENTITY, class_names=["a"])
    with pytest.raises(StoreFormatError, match="not a record of moments"):
        load_moments(tmp_path / "m.safetensors", rows_digest="")


@pytest.mark.parametrize("text", [f"a={DEEP}", "a=" + "{a=" * 3000, ".".join("a" * 100_000) + "=1"])
def test_toml_nested_deep(tmp_path: Path, shell: Shell, text: str) -> None:
    (tmp_path / "net.onnx").touch()
    (tmp_path / "net.toml").write_text(text)  # the settings beside the file are read without being asked for
    with pytest.raises(ConfigError, match=r"net\.toml (is not TOML|are of more than 8192 bytes)"):
        onnx_encoder(tmp_path / "net.onnx")
    (tmp_path / "c.toml").write_text(text[: 1 << 12])
    refused = shell("--config", tmp_path / "c.toml", "info", tmp_path)
    assert refused.code == 1
    assert "c.toml is not valid TOML" in refused.err


# arrays

IDENTITY = EncoderIdentity(encoder="test", model="m", n_features=3)


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 8), (10**30,), (10**9, 2)])
def test_an_npy_header_that_claims_a_trillion_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = npy(tmp_path / "x.npy", *shape)
    with pytest.raises(SourceError, match=r"x\.npy"):
        read_indices(path)
    with pytest.raises(DataError, match=r"x\.npy"):
        load_vectors(path, 8)
    with pytest.raises(DataError, match=r"x\.npy"):
        _read_vectors(str(path), ("a",))


def test_row_weights_that_claim_a_trillion_rows(tmp_path: Path, shell: Shell) -> None:
    path = npy(tmp_path / "x.npy", 10**12)
    refused = shell("train", tmp_path, "--out", tmp_path / "m", "--row-weights", path)
    assert refused.code in (1, 2)
    assert "internal error" not in refused.err
    assert "memory" not in refused.err or "x.npy" in refused.err


def zipped(member: str, n_bytes: int, shape: str) -> bytes:
    """An .npz of zeros, a thousandth of the size."""
    sink, head = (
        io.BytesIO(),
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n",
    )
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as file:
        file.write(b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode())
        for _ in range(n_bytes // MIB):
            file.write(bytes(MIB))
    return sink.getvalue()


def test_zip_bombs_of_text_vectors(tmp_path: Path) -> None:
    text = ClassText(
        vectors=np.eye(2, 3, dtype=np.float32),
        class_names=("a", "b"),
        logit_scale=1.0,
        record={
            "settings": {"logit_scale": 1.0},
            "made_from": {"encoder": IDENTITY.to_json(), "class_names": _names_digest(["a", "b"])},
        },
    )
    text.save(tmp_path)
    assert load_class_text(tmp_path, encoder=IDENTITY, class_names=["a", "b"]).logit_scale == 1
    for shape in ("(2, 8388608)", "(1000000000000, 512)"):
        data = zipped("vectors.npy", 64 * MIB, shape)
        (tmp_path / "vectors.npz").write_bytes(data)
        record = json.loads((tmp_path / "record.json").read_text())
        record["sha256"] = hashlib.sha256(data).hexdigest()  # who makes the file makes its checksum
        (tmp_path / "record.json").write_text(json.dumps(sealed(record)))
        with pytest.raises(StoreFormatError, match="they are compressed"):
            load_class_text(tmp_path, encoder=IDENTITY, class_names=["a", "b"])


def test_a_zip_bomb_for_the_text_sampler(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    data = bytearray(zipped("vectors.npy", MIB, "(1000000, 1000)"))
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 0xF0000000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="unpacks to more than 1 GiB"):
        _read_vectors(str(path), ("a",))


@pytest.mark.parametrize("size", [1 << 40, 1 << 63, 99_999_999])
def test_a_safetensors_header_of_a_terabyte(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.json").write_text('{"format_version": 1}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", size) + b"{}")
    grown, error = peak_bytes(tmp_path, "load_model(path)", IMPORTS)
    assert error.startswith("ModelFormatError")
    assert grown < 20 * MIB


def test_safetensors_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format_version": 1}')
    for shape, ends in (([1 << 40, 1 << 20], 4), ([1 << 30], 4 << 30)):
        head = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, ends]}}).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
        with pytest.raises(ModelFormatError, match="not a whole safetensors file"):
            load_model(tmp_path)


# images


def png(width: int, height: int, *before: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), *before, (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


TEXT = zlib.compress(bytes(64 * MIB))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (png(100_000, 100_000), RowStatus.TOO_LARGE),
        (png(2**31 - 1, 2**31 - 1), RowStatus.TOO_LARGE),
        (
            png(89_478_485, 1),
            RowStatus.TOO_LARGE,
        ),  # within the limit of pixels; Pillow says that memory ran out
        (png(1, 1, (b"zTXt", b"k\0\0" + TEXT)), RowStatus.CORRUPT),
        (png(1, 1, (b"iCCP", b"k\0\0" + TEXT)), RowStatus.CORRUPT),
    ],
)
def test_images_that_claim_too_much_are_failed_rows(data: bytes, status: RowStatus) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data, "k")
    assert caught.value.status == status


def test_a_file_of_a_terabyte_is_no_image(tmp_path: Path) -> None:
    """Unpacking a small archive may make one, with holes."""
    sparse(tmp_path / "a.jpg", 1 << 40, b"\xff\xd8")
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    with pytest.raises(ImageError, match="exceed 1 GiB") as caught:
        open_source(tmp_path / "list.txt").read(0)
    assert caught.value.status == RowStatus.TOO_LARGE


# CIFAR archives


@pytest.mark.parametrize("kind", ["gzip", "bz2"])
@pytest.mark.parametrize(
    ("type_", "size", "message"),
    [
        (tarfile.REGTYPE, 8 * GIB - 1, "unpacks to more than 1 GiB"),
        (tarfile.REGTYPE, GIB - 1024, "no CIFAR file"),
        (tarfile.XHDTYPE, 8 * GIB - 1, "a header of 8589934591 bytes"),
        (tarfile.GNUTYPE_LONGNAME, 2 * MIB, "a header of 2097152 bytes"),
    ],
)
def test_a_compressed_tar_that_unpacks_to_gigabytes(
    tmp_path: Path, kind: str, type_: bytes, size: int, message: str
) -> None:
    member = tarfile.TarInfo("cifar-100-python/meta")
    member.type, member.size = type_, size
    squeeze: Callable[[bytes], bytes] = gzip.compress if kind == "gzip" else bz2.compress
    path = tmp_path / f"c.tar.{'gz' if kind == 'gzip' else 'bz2'}"
    path.write_bytes(squeeze(member.tobuf() + bytes(4 * MIB)))
    grown, error = peak_bytes(path, "open_source(path)", IMPORTS)
    assert message in error
    assert grown < 50 * MIB


@pytest.mark.parametrize(
    "program",
    [
        b"}r" + struct.pack("<I", 0x3FFFFFFF),  # a memo of 2**30 objects
        b"}p1073741823\n",
        b"\x8e" + struct.pack("<Q", 1 << 40) + b"x",  # a terabyte of bytes
        b"\x8d" + struct.pack("<Q", 1 << 40) + b"x",
        b"\x96" + struct.pack("<Q", 1 << 40) + b"x",
        b"\x8b" + struct.pack("<I", 1 << 30) + b"x",
    ],
)
def test_a_pickle_of_cifar_that_claims_memory(tmp_path: Path, program: bytes) -> None:
    write_files(tmp_path / "c", cifar100_files() | {"train": b"\x80\x05" + program + b"."})
    grown, error = peak_bytes(tmp_path / "c", "open_source(path)", IMPORTS)
    assert "train is not a whole pickle" in error
    assert grown < 50 * MIB


# files that never end


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_a_pipe_in_place_of_a_file_of_a_model_or_artefact(tmp_path: Path) -> None:
    for name in ("model.safetensors", "record.json", "m.safetensors.json"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "model.json").write_text('{"format_version": 1}')
    readers: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ModelFormatError, lambda: load_model(tmp_path)),
        (StoreFormatError, lambda: read_record(tmp_path)),
        (StoreFormatError, lambda: load_class_text(tmp_path, encoder=IDENTITY, class_names=["a"])),
        (StoreFormatError, lambda: load_moments(tmp_path / "m.safetensors", rows_digest="")),
    ]
    for error, read in readers:
        with pytest.raises(error):
            read()
