"""Each layout as its own programs write it: rows, labels and keys arrive in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from ltstore.errors import SourceError
from ltstore.store import open_store
from ltstore.transfer import export_embeddings, import_embeddings
from ltstore.transfer.digest import source_digest
from ltstore.transfer.npy import npz_members
from ltstore.transfer.numbering import in_order
from ltstore.transfer.parquet import ParquetPart
from ltstore.types import RowStatus
from support.foreign import clip_retrieval, lists, matrix, same_bits, stored, table


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("rows_per_shard", [1024, 3])
def test_npz(tmp_path: Path, dtype: str, compressed: bool, rows_per_shard: int) -> None:
    X, names = matrix(11, dtype=dtype), np.array(list("bbacabcabca"))
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", features=X, labels=names, other=X[:2])
    report = import_embeddings(tmp_path / "x.npz", tmp_path / "a.zarr", "train", rows_per_shard=rows_per_shard)
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, X)
    assert split.class_names == ("a", "b", "c")
    assert [split.class_names[label] for label in split.labels] == list(names)
    assert split.keys([0, 10]) == ["x.npz#0", "x.npz#10"]
    assert report.ignored == ["other"]


def test_npy_with_text_labels_and_keys(tmp_path: Path) -> None:
    X = matrix(4)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "y.txt").write_bytes(b"\xef\xbb\xbf1\r\n-1\r\n0\r\n2\r\n")
    (tmp_path / "k.txt").write_bytes("ä.jpg\nb\nc\nd".encode())
    (tmp_path / "c.txt").write_text("x\ny\nz\nw\n")
    report = import_embeddings(
        tmp_path / "x.npy",
        tmp_path / "a.zarr",
        "train",
        labels=tmp_path / "y.txt",
        keys=tmp_path / "k.txt",
        class_names=tmp_path / "c.txt",
    )
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, X)
    assert (split.labels.tolist(), split.class_names) == ([1, -1, 0, 2], ("x", "y", "z", "w"))
    assert split.keys(range(4)) == ["ä.jpg", "b", "c", "d"]
    assert (report.n_labelled, report.n_classes, report.keys_from) == (3, 4, str(tmp_path / "k.txt"))


def test_float64_is_rounded_and_says_so(tmp_path: Path) -> None:
    X = np.array([[1 / 3, 1e39], [1 / 3, 1e38]])
    np.save(tmp_path / "x.npy", X)
    report = import_embeddings(tmp_path / "x.npy", tmp_path / "a.zarr", "train")
    split, found = stored(tmp_path / "a.zarr")
    assert (report.dtype, report.failures) == ("float32", {"OVERFLOW": 1})
    assert "rounded" in report.dtype_reason
    assert same_bits(found[1:], X[1:].astype(np.float32))
    assert split.errors([0]) == ["largest magnitude 1e+39 does not fit float32"]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parquet(tmp_path: Path, fixed: bool, dtype: str) -> None:
    X = matrix(30, dtype=dtype)
    for part, rows in enumerate((slice(0, 19), slice(19, 30))):
        ids = range(30)[rows]
        table(
            tmp_path / "p" / f"part-{part}-of-2.parquet",
            vector=lists(X[rows], fixed=fixed),
            uid=[f"u{i}" for i in ids],
            label=pa.array(["even", "odd"]).take(pa.array([i % 2 for i in ids])).dictionary_encode(),
            url=["u"] * len(ids),
        )
    report = import_embeddings(tmp_path / "p", tmp_path / "a.zarr", "train", rows_per_shard=4)
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, X.astype(report.dtype))
    assert split.keys(range(30)) == [f"u{i}" for i in range(30)]
    assert split.labels.tolist() == [i % 2 for i in range(30)]
    assert report.ignored == ["url"]


@pytest.mark.parametrize("fixed", [True, False])
def test_nulls_of_parquet_become_failed_rows(tmp_path: Path, fixed: bool) -> None:
    kind = pa.list_(pa.float32(), 2) if fixed else pa.list_(pa.float32())
    rows = [None, [1.0, 2.0], None, [3.0, None], [5.0, 6.0], None, [7.0, 8.0], [9.0, 1.0], None]
    table(
        tmp_path / "x.parquet", embedding=pa.array(rows, kind), label=pa.array([0, None] + [1] * 7, pa.uint8())
    )
    report = import_embeddings(tmp_path / "x.parquet", tmp_path / "a.zarr", "train", rows_per_shard=2)
    split, found = stored(tmp_path / "a.zarr")
    assert report.failures == {"NON_FINITE": 5}
    assert np.flatnonzero(split.status == RowStatus.OK).tolist() == [1, 4, 6, 7]
    assert found[[1, 4, 6, 7]].tolist() == [[1, 2], [5, 6], [7, 8], [9, 1]]
    assert split.labels.tolist() == [0, -1] + [1] * 7


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("metadata", [True, False])
def test_clip_retrieval(tmp_path: Path, width: int, metadata: bool) -> None:
    parts = [matrix(2 + i % 3, dtype="float16", seed=i) for i in range(12)]  # 10 and 11 come after 9
    base = clip_retrieval(tmp_path / "c", parts, width=width, metadata=metadata)
    (base / "text_emb").mkdir()
    report = import_embeddings(base, tmp_path / "a.zarr", "train", rows_per_shard=5)
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, np.concatenate(parts))
    assert (report.format, report.n_parts) == ("clip-retrieval", 12)
    assert report.ignored == (["caption"] if metadata else []) + ["text_emb"]
    last = f"img_emb_{11:0{width}d}.npy#{len(parts[11]) - 1}"
    assert split.keys([len(found) - 1]) == [f"i/{len(found) - 1}.jpg" if metadata else last]


def test_datacomp(tmp_path: Path) -> None:
    base, X = tmp_path / "d", matrix(9, dtype="float16")
    base.mkdir()
    for name, rows in (("00f1", slice(0, 4)), ("0a03", slice(4, 9))):
        np.savez(base / f"{name}.npz", b32_img=matrix(9)[rows], l14_img=X[rows], dedup=np.arange(9)[rows])
        table(base / f"{name}.parquet", uid=[f"{i:032x}" for i in range(9)[rows]], text=["t"] * len(X[rows]))
    report = import_embeddings(base, tmp_path / "a.zarr", "train", array="l14_img")
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, X)
    assert split.keys([0, 4, 8]) == [f"{i:032x}" for i in (0, 4, 8)]
    assert report.ignored == ["b32_img", "dedup", "text"]


def test_safetensors(tmp_path: Path) -> None:
    X, y = matrix(12, dtype="float16"), np.arange(12, dtype=np.int32) % 3
    save_file({"X": X, "y": y, "scale": np.ones(1, np.float32)}, tmp_path / "x.safetensors")
    report = import_embeddings(tmp_path / "x.safetensors", tmp_path / "a.zarr", "train", rows_per_shard=5)
    split, found = stored(tmp_path / "a.zarr")
    assert same_bits(found, X)
    assert split.labels.tolist() == y.tolist()
    assert report.ignored == ["scale"]


def test_streamed_parts_may_be_read_in_any_order(tmp_path: Path) -> None:
    X = matrix(30)
    np.savez_compressed(tmp_path / "x.npz", X=X)
    table(tmp_path / "x.parquet", X=lists(X))
    for part in (npz_members(tmp_path / "x.npz")["X"].part(), ParquetPart(tmp_path / "x.parquet", "X")):
        for start, stop in ((0, 4), (4, 9), (20, 22), (3, 8), (8, 30), (0, 30), (29, 30), (0, 1)):
            assert same_bits(part.read(start, stop), X[start:stop]), (part.where, start, stop)


def test_what_is_exported_opens_elsewhere(tmp_path: Path) -> None:
    """By the libraries that these formats belong to, not by ours."""
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    X, y = matrix(25, dtype="float16"), np.arange(25) % 4
    np.savez(tmp_path / "x.npz", X=X, y=y)
    store = tmp_path / "a.zarr"
    import_embeddings(tmp_path / "x.npz", store, "train")
    ids = np.array([1, 2, 7, 20])
    open_store(store).split("train").add_subset("some", ids, settings={})
    for layout, out in (
        *((layout, f"o_{layout}.{layout}") for layout in ("npy", "npz", "parquet", "safetensors")),
        *((layout, layout) for layout in ("clip-retrieval", "datacomp")),
    ):
        report = export_embeddings(store, tmp_path / out, "train", subset="some", format=layout, part_rows=3)
        assert report.n_rows == 4
        assert all((tmp_path / file).exists() for file in report.files)
    assert same_bits(np.load(tmp_path / "o_npy.npy"), X[ids])
    assert np.load(tmp_path / "o_npy.labels.npy").tolist() == y[ids].tolist()
    for found in (np.load(tmp_path / "o_npz.npz"), load_file(tmp_path / "o_safetensors.safetensors")):
        assert same_bits(found["X"], X[ids])
        assert (found["y"].tolist(), found["row_ids"].tolist()) == (y[ids].tolist(), ids.tolist())
    rows = pq.read_table(tmp_path / "o_parquet.parquet")
    assert np.array_equal(np.stack(rows["embedding"].to_numpy()), X[ids])
    assert rows["row_id"].to_pylist() == ids.tolist()
    assert rows["class_name"].to_pylist() == [str(label) for label in y[ids]]
    clip = tmp_path / "clip-retrieval"
    assert same_bits(np.load(clip / "img_emb" / "img_emb_1.npy"), X[[20]])
    beside = pq.read_table(clip / "metadata" / "metadata_1.parquet")
    assert beside.to_pydict() == {
        "row_id": [20],
        "image_path": ["x.npz#20"],
        "label": [0],
        "class_name": ["0"],
    }
    assert same_bits(np.load(tmp_path / "datacomp" / "00000000.npz")["img"], X[ids[:3]])


def test_order_of_parts() -> None:
    def order(*names: str) -> list[str]:
        return [path.name for path in in_order([Path(name) for name in names])]

    assert order("e_10.npy", "e_9.npy", "e_011.npy") == ["e_9.npy", "e_10.npy", "e_011.npy"]
    assert order("p-2-of-2.x", "p-1-of-2.x") == ["p-1-of-2.x", "p-2-of-2.x"]
    assert order("a10b.npy", "a9b.npy", "c.npy") == ["a9b.npy", "a10b.npy", "c.npy"]
    assert order("0a03.npz", "00f1.npz", "a1b0.npz") == ["00f1.npz", "0a03.npz", "a1b0.npz"]
    assert order("7.npy") == ["7.npy"]
    for names in (("e_1.npy", "e_3.npy"), ("e_1.npy", "e_01.npy"), ("p-1-of-3.x", "p-2-of-3.x")):
        with pytest.raises(SourceError):
            order(*names)


def test_digest_sees_changes_and_not_copies(tmp_path: Path) -> None:
    y = np.zeros(3, np.int64)

    def digest(data: bytes, name: str = "x", labels: np.ndarray = y, folder: str = "a") -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return source_digest(["f"], [path], labels)

    whole = bytes(200_000)
    first = digest(whole)
    assert first == digest(whole, folder="b")
    changed = [
        *(whole[:at] + b"\1" + whole[at + 1 :] for at in (0, 100_000, 199_999)),
        whole + b"\0",
        whole[:-1],
    ]
    digests = [first, *map(digest, changed), digest(whole, "y"), digest(whole, labels=y + 1)]
    assert len(set(digests)) == len(digests)


def test_real_clip_features(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "clip_vitb32" / "caltech101.npz"
    report = import_embeddings(
        path, tmp_path / "a.zarr", "test", array="test_x", normalized=True, model="ViT-B-32"
    )
    split, found = stored(tmp_path / "a.zarr", "test")
    with np.load(path) as arrays:
        assert found.tobytes() == arrays["test_x"].astype(report.dtype).tobytes()
        assert split.labels.tolist() == arrays["test_y"].tolist()
