"""Foreign files that are damaged, hostile, ambiguous or do not agree: one line that names the file, nothing written."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import (
    ChecksumMismatchError,
    ConfigError,
    DataError,
    EncoderMismatchError,
    IncompleteStoreError,
    LabelError,
    LtstoreError,
    PlanMismatchError,
    SourceError,
    SourceNotFoundError,
    StoreExistsError,
)
from ltstore.store import open_store
from ltstore.transfer import export_embeddings, import_embeddings, importing
from ltstore.transfer.exporting import Selection
from support.foreign import clip_retrieval, lists, matrix, same_bits, stored, table
from support.stores import made_store


def refuse(source: Path, kind: type[LtstoreError], *words: str, **arguments: Any) -> None:
    """The import fails with one line that has all words, and makes no store."""
    store = source.parent / "refused.zarr"
    with pytest.raises(kind) as caught:
        import_embeddings(source, store, "train", **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert not store.exists()


def npy_bytes(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a .npy"),
        (b"PK\x03\x04" + b"0" * 50, "not a .npy"),
        (npy_bytes("(3, 4)", b"\0" * 47), "cut short"),
        (npy_bytes("(3, 4)", b"\0" * 49), "damaged"),
        (npy_bytes("(4611686018427387904, 4611686018427387904)"), "cut short"),
        (npy_bytes("(4294967296, 4294967296)", b""), "cut short"),  # the product wraps to 0 in 64 bits
        (npy_bytes("(-1, 4)", b"\0" * 16), "damaged"),
        (npy_bytes("(3, 4)", b"\0" * 100, "'|O'"), "never unpickled"),
        (npy_bytes("(3,)", b"\0" * 24, "[('a', '<f4'), ('b', '<f4')]"), "never unpickled"),
        (npy_bytes("(" * 200 + ")" * 200), "not a .npy"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "not a .npy"),
        (npy_bytes("__import__('os').system('true')"), "not a .npy"),
    ],
)
def test_damaged_npy(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    refuse(path, SourceError, str(path), words)


@pytest.mark.parametrize(
    "array", [np.zeros(4, np.float32), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2)), np.zeros((3, 0))]
)
def test_not_a_matrix_of_floats(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    refuse(tmp_path / "x.npy", DataError, "x.npy")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "x.npy", np.array([[Bomb()]], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", X=matrix(1), y=np.array([Bomb()], object))
    (tmp_path / "ran").exists() and (tmp_path / "ran").rmdir()
    for name in ("x.npy", "x.npz"):
        refuse(tmp_path / name, SourceError, "never unpickled")
    np.save(tmp_path / "ok.npy", matrix(1))
    refuse(tmp_path / "ok.npy", SourceError, "never unpickled", labels=tmp_path / "x.npy")
    assert not (tmp_path / "ran").exists()


def test_npz_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, X=matrix(5000))
    whole = path.read_bytes()
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refuse(path, SourceError, "checksum", "x.npz [X]")
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, SourceError, "x.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", npy_bytes("(1000000000, 1000000000)"))
    refuse(path, SourceError, "cut short")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../x.txt", "hello")
    refuse(path, SourceError, "x.txt")


def test_compressed_npz_damage_is_found_while_streaming(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X=matrix(3000))
    whole = path.read_bytes()
    path.write_bytes(whole[:20000] + bytes(50) + whole[20050:])
    with pytest.raises(SourceError, match=r"x\.npz"):
        import_embeddings(path, tmp_path / "a.zarr", "train")
    with pytest.raises(IncompleteStoreError):
        open_store(tmp_path / "a.zarr").split("train")


def test_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    path, head = tmp_path / "x.npz", npy_bytes("(268435400, 4)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", head + bytes(100_000))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")  # header and archive agree on 4 GB: only the ratio tells
    data[central + 24 : central + 28] = struct.pack("<I", len(head) + 268435400 * 16 & 0xFFFFFFFF)
    path.write_bytes(bytes(data))
    refuse(path, SourceError, "more than", "can hold")


def test_which_array_is_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, val_x=matrix(3), test_x=matrix(4), val_y=np.arange(3), test_y=np.arange(4))
    refuse(path, SourceError, "val_x, test_x", "--array")
    refuse(path, SourceError, "'nope'", "val_x", array="nope")
    report = import_embeddings(path, tmp_path / "a.zarr", "test", array="test_x")
    assert (report.n_rows, report.n_labelled, report.ignored) == (4, 4, ["val_x", "val_y"])
    np.savez(path, X=matrix(3), y=np.arange(3), labels=np.arange(3))
    refuse(path, SourceError, "labels, y", "--label-array")
    np.savez(path, q=np.zeros((3, 4), np.uint8))
    refuse(path, SourceError, "no matrix of floats", "q uint8 (3, 4)")


def test_safetensors_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = {"X": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    for data in (b"", len(text).to_bytes(8, "little") + text + b"\0" * 16, b"\xff" * 40):
        path.write_bytes(data)
        refuse(path, SourceError, "x.safetensors")
    text = json.dumps({"X": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    refuse(path, SourceError, "BF16", "F32")


def test_parquet_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 30 + b"PAR1")
    refuse(path, SourceError, "x.parquet")
    table(path, key=["a", "b"])
    refuse(path, SourceError, "no list column of floats")
    table(path, a=lists(matrix(2)), b=lists(matrix(2)))
    refuse(path, SourceError, "a, b", "--array")
    table(path, embedding=[None, None])
    refuse(path, SourceError, "no list column of floats")
    table(path, embedding=lists(matrix(3)), key=["a", None, "c"])
    refuse(path, DataError, "row 1", "--key-array")


def test_parquet_rows_of_other_lengths_are_named(tmp_path: Path) -> None:
    table(tmp_path / "x.parquet", embedding=[[1.0, 2.0]] * 9 + [[1.0]] + [[1.0, 2.0]] * 3)
    with pytest.raises(DataError, match="2 features in every row, found 1 in row 9"):
        import_embeddings(tmp_path / "x.parquet", tmp_path / "a.zarr", "train")


def test_clip_retrieval_parts_that_do_not_agree(tmp_path: Path) -> None:
    parts = [matrix(3), matrix(4), matrix(5)]
    base = clip_retrieval(tmp_path / "a", parts)
    np.save(base / "img_emb" / "img_emb_1.npy", matrix(3))
    refuse(base, DataError, "img_emb_1.npy has 3 rows", "metadata_1.parquet has 4")
    (base / "img_emb" / "img_emb_1.npy").unlink()
    refuse(base, SourceError, "no part 1", "img_emb_2.npy")
    np.save(base / "img_emb" / "img_emb_1.npy", matrix(4))
    np.save(base / "img_emb" / "img_emb_01.npy", matrix(4))
    refuse(base, SourceError, "one number")
    (base / "img_emb" / "img_emb_01.npy").unlink()
    (base / "metadata" / "metadata_2.parquet").unlink()
    refuse(base, SourceError, "part 2 of img_emb but none of metadata")
    (base / "img_emb" / "img_emb_0.npy").unlink()
    refuse(base, SourceError, "no part 0")
    wide = clip_retrieval(tmp_path / "b", [matrix(3), matrix(3, 6)])
    refuse(wide, DataError, "img_emb_0.npy has 5 features", "img_emb_1.npy has 6")


def test_datacomp_parts_that_do_not_agree(tmp_path: Path) -> None:
    base = tmp_path / "dc"
    base.mkdir()
    for name, n in (("00ab", 3), ("00cd", 4)):
        np.savez(base / f"{name}.npz", b32_img=matrix(n), l14_img=matrix(n, 7))
        table(base / f"{name}.parquet", uid=[f"{name}-{i}" for i in range(n)])
    refuse(base, SourceError, "b32_img, l14_img")
    table(base / "00cd.parquet", uid=["x"])
    refuse(base, DataError, "00cd.npz", "00cd.parquet has 1", array="l14_img")
    (base / "00cd.parquet").unlink()
    refuse(base, SourceError, "00cd.parquet is missing", array="l14_img")
    table(base / "00cd.parquet", uid=list("abcd"))
    np.savez(base / "00cd.npz", b32_img=matrix(4))
    refuse(base, SourceError, "00cd.npz has no array 'l14_img'", array="l14_img")
    (base / "00cd.npz").unlink()
    refuse(base, SourceError, "00cd.parquet has no .npz", array="l14_img")


def test_missing_and_unknown_sources(tmp_path: Path) -> None:
    refuse(tmp_path / "none.npy", SourceNotFoundError, "none.npy")
    (tmp_path / "x.bin").write_bytes(b"x")
    refuse(tmp_path / "x.bin", SourceError, "--format")
    refuse(tmp_path / "x.bin", ConfigError, "'foo'", format="foo")
    (tmp_path / "mixed").mkdir()
    refuse(tmp_path / "mixed", SourceError, "no file of embeddings")
    np.save(tmp_path / "mixed" / "a.npy", matrix(2))
    table(tmp_path / "mixed" / "a.parquet", key=["x"])
    refuse(tmp_path / "mixed", SourceError, "npy, parquet", "--format")
    np.save(tmp_path / "empty.npy", matrix(0))
    refuse(tmp_path / "empty.npy", DataError, "no rows")


def test_labels_and_keys_that_do_not_fit(tmp_path: Path) -> None:
    x = tmp_path / "x.npy"
    np.save(x, matrix(4))
    y, classes = tmp_path / "y.txt", tmp_path / "c.txt"
    classes.write_text("a\nb\n")
    y.write_text("0\n1\n2\n0\n")
    refuse(x, LabelError, "label 2 of row 2", "2 classes", labels=y, class_names=classes)
    y.write_text("a\nb\nzebra\na\n")
    refuse(x, LabelError, "'zebra' of row 2", labels=y, class_names=classes)
    y.write_text("0\n-2\n0\n0\n")
    refuse(x, LabelError, "label -2 of row 1", labels=y)
    y.write_text("0\n1\n")
    refuse(x, LabelError, "4 rows, found 2", labels=y)
    y.write_text("a\n\nb\na\n")
    refuse(x, LabelError, "line 2", labels=y)
    refuse(x, DataError, "key for each of 4 rows, found 2", keys=classes)
    for bad in (np.zeros(4), np.zeros((4, 1), int), np.full(4, 2**64 - 1, np.uint64)):
        np.save(tmp_path / "y.npy", bad)
        refuse(x, LabelError, "y.npy", labels=tmp_path / "y.npy")
    refuse(x, SourceNotFoundError, "gone.txt", labels=tmp_path / "gone.txt")


def test_a_false_claim_of_unit_norm(tmp_path: Path) -> None:
    X = matrix(40)
    X[:30] /= np.linalg.norm(X[:30], axis=1, keepdims=True)
    np.save(tmp_path / "x.npy", X)
    refuse(tmp_path / "x.npy", DataError, "row 30", "norm", normalized=True)


def test_a_store_of_another_identity(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", matrix(4))
    np.save(tmp_path / "wide.npy", matrix(4, 6))
    store = tmp_path / "a.zarr"
    import_embeddings(tmp_path / "x.npy", store, "train", model="one")
    with pytest.raises(EncoderMismatchError, match="one / two"):
        import_embeddings(tmp_path / "x.npy", store, "test", model="two")
    with pytest.raises(EncoderMismatchError, match="5 / 6"):
        import_embeddings(tmp_path / "wide.npy", store, "test")
    with pytest.raises(EncoderMismatchError, match="normalized"):
        import_embeddings(tmp_path / "x.npy", store, "test", normalized=True)
    assert open_store(store).splits == ("train",)
    assert import_embeddings(tmp_path / "x.npy", store, "test").encoder["model"] == "one"


def test_a_stopped_import_resumes_and_notices_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = matrix(40, 3)
    np.savez_compressed(tmp_path / "x.npz", X=X)  # streamed: resuming must skip what is there
    real, calls = importing.SplitWriter.write_shard, []

    def dies(self: Any, shard: int, **columns: Any) -> None:
        if shard >= 2:
            raise KeyboardInterrupt
        calls.append(shard)
        real(self, shard, **columns)

    store = tmp_path / "a.zarr"
    monkeypatch.setattr(importing.SplitWriter, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        import_embeddings(tmp_path / "x.npz", store, "train", rows_per_shard=8)
    monkeypatch.undo()
    np.savez_compressed(tmp_path / "other.npz", X=X + 1)
    with pytest.raises(PlanMismatchError, match="source_digest"):
        import_embeddings(tmp_path / "other.npz", store, "train", rows_per_shard=8)
    report = import_embeddings(tmp_path / "x.npz", store, "train", rows_per_shard=8)
    assert (report.resumed_shards, report.n_written) == (2, 24)
    assert same_bits(stored(store)[1], X)


def test_export_refusals(tmp_path: Path) -> None:
    X = matrix(20)
    X[[3, 7]] = np.nan
    np.save(tmp_path / "x.npy", X)
    store = tmp_path / "a.zarr"
    import_embeddings(tmp_path / "x.npy", store, "train")
    with pytest.raises(DataError, match=r"2 of 20 rows .* --skip-failed"):
        export_embeddings(store, tmp_path / "o.npy", "train", format="npy")
    assert not list(tmp_path.glob("o*"))
    for layout, out in (("npy", "o.npz"), ("clip-retrieval", "o.npy"), ("foo", "o.npy")):
        with pytest.raises(ConfigError):
            export_embeddings(store, tmp_path / out, "train", format=layout, skip_failed=True)
    with pytest.raises(ConfigError, match="'y'"):
        export_embeddings(store, tmp_path / "o.npz", "train", format="npz", array="y", skip_failed=True)
    (tmp_path / "o.rows.parquet").write_bytes(b"mine")
    with pytest.raises(StoreExistsError, match=r"o\.rows\.parquet"):
        export_embeddings(store, tmp_path / "o.npy", "train", format="npy", skip_failed=True)
    assert (tmp_path / "o.rows.parquet").read_bytes() == b"mine"
    (tmp_path / "dir").mkdir()
    with pytest.raises(StoreExistsError, match="dir"):
        export_embeddings(store, tmp_path / "dir", "train", format="datacomp", skip_failed=True)


@pytest.mark.parametrize("layout", ["npy", "npz", "safetensors", "parquet"])
def test_an_export_that_was_stopped_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    store, out = made_store(tmp_path / "s").path, tmp_path / f"o.{layout}"

    def write(**more: Any) -> None:
        export_embeddings(store, out, "train", format=layout, skip_failed=True, **more)

    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Selection, "blocks", stop)
        with pytest.raises(OSError, match="No space left"):
            write()
    left = sorted(file.name for file in tmp_path.glob("o.*"))
    assert "o.ltstore.json" in left
    assert out.name not in left
    with pytest.raises(
        StoreExistsError, match="is there already"
    ):  # another export than the one that was stopped
        write(part_rows=7)
    write()
    assert out.exists()
    with pytest.raises(StoreExistsError, match="is there already"):
        write()


def test_a_damaged_store_is_not_exported(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", matrix(20))
    import_embeddings(tmp_path / "x.npy", tmp_path / "a.zarr", "train")
    shard = tmp_path / "a.zarr" / "train" / "embeddings" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(ChecksumMismatchError):
        export_embeddings(tmp_path / "a.zarr", tmp_path / "o.npy", "train", format="npy")
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "ltstore export"}', "[" * 5000, '{"class_names": 1e999}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    np.save(tmp_path / "x.npy", matrix(3))
    (tmp_path / "x.ltstore.json").write_text(text)
    refuse(tmp_path / "x.npy", SourceError, "x.ltstore.json")


def test_random_damage_never_ends_otherwise(tmp_path: Path) -> None:
    """Flipped and cut bytes of every kind of file: an ltstore error or a whole import, nothing else."""
    rng = np.random.default_rng(0)
    X = matrix(30)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=X)
    np.save(tmp_path / "s.npy", X)
    import_embeddings(tmp_path / "s.npy", tmp_path / "s.zarr", "train")
    for layout in ("npz", "parquet", "safetensors"):
        export_embeddings(tmp_path / "s.zarr", tmp_path / f"e.{layout}", "train", format=layout)
        for extra in ("e.rows.parquet", "e.ltstore.json"):
            (tmp_path / extra).unlink(missing_ok=True)
    files = {name: (tmp_path / name).read_bytes() for name in ("s.npy", "e.npz", "e.parquet", "e.safetensors")}
    files["z.npz"] = buffer.getvalue()
    for name, whole in files.items():
        for trial in range(12):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 400), 3):
                data[at] ^= 1 << int(rng.integers(8))
            path = tmp_path / f"bad{Path(name).suffix}"
            path.write_bytes(bytes(data[: rng.integers(len(data))] if trial % 3 == 0 else data))
            try:
                import_embeddings(path, tmp_path / f"{name}-{trial}.zarr", "train")
            except LtstoreError as err:
                assert str(path) in str(err) or trial % 3  # noqa: PT017
