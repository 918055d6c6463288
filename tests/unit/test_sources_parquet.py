"""Parquet files that hold images: rows, labels, row groups, and files that lie."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltstore.errors import ImageError, LabelError, LtstoreError, SourceError, SourceNotFoundError
from ltstore.sources import ParquetSource, open_source, parquet
from ltstore.types import RowStatus
from support.images import encoded, picture
from support.shards import write_images

JPEGS = [encoded(picture(i)) for i in range(7)]
CLASS_LABEL = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["crane", "newt"]}}}})}


def keys(source: Any) -> list[str]:
    return [source.key(i) for i in range(source.n_samples)]


def test_files_of_a_split_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_images(data / "train-00001-of-00002.parquet", JPEGS[3:5], label=[1, 0], metadata=CLASS_LABEL)
    write_images(
        data / "train-00000-of-00002.parquet",
        JPEGS[:3],
        label=[0, 1, -1],
        metadata=CLASS_LABEL,
        row_group_size=2,
    )
    write_images(data / "test-00000-of-00001.parquet", JPEGS[5:6], label=[1], metadata=CLASS_LABEL)
    source = open_source(data)
    assert isinstance(source, ParquetSource)
    first, second = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    assert keys(source) == [f"{first}/0", f"{first}/1", f"{first}/2", f"{second}/0", f"{second}/1"]
    assert source.class_names == ("crane", "newt")
    assert source.labels.tolist() == [0, 1, -1, 1, 0]
    assert [source.fetch(i) for i in range(5)] == JPEGS[:5]
    assert open_source(data, split="test").n_samples == 1
    assert (
        open_source(f"{data}/train-*.parquet", split="test").n_samples == 5
    )  # what was named is what is meant
    assert open_source(f"{data}/train-{{00000..00001}}-of-00002.parquet").digest == source.digest
    assert open_source(data, class_names=["newt", "crane"]).labels.tolist() == [1, 0, -1, 0, 1]
    with pytest.raises(SourceError, match="holds the splits test, train and no 'val'"):
        open_source(data, split="val")
    with pytest.raises(SourceNotFoundError):
        open_source(data / "train-00007.parquet")


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    table = pa.table({"pixels": JPEGS[:2], "thumb": JPEGS[2:4], "species": ["newt", None], "id": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", format="parquet", path_column="thumb", label_column="species")
    assert [source.key(0), source.class_names, source.labels.tolist()] == ["a.parquet/0", ("newt",), [0, -1]]
    assert isinstance(source, ParquetSource)
    assert source.fetch(1) == JPEGS[3]
    for how, message in (
        ({}, r"has no column of images as bytes: name it .*pixels: binary"),
        ({"path_column": "species"}, "has no column 'species' as bytes"),
        (
            {"path_column": "thumb", "label_column": "kind"},
            r"has no column 'kind'; it has pixels, thumb, species, id",
        ),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / "a.parquet", format="parquet", **how)  # type: ignore[arg-type]
    pq.write_table(table.drop(["thumb"]), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").n_samples == 2  # the only column of bytes


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (
            {"label": [0.5]},
            LabelError,
            r"a.parquet/0: labels must be whole numbers or class names, found double",
        ),
        ({"label": [2**40]}, SourceError, r"a.parquet/0: label 1099511627776 is no class number"),
        ({"label": np.array([2**64 - 2], np.uint64)}, SourceError, "is no class number"),
        ({"label": [2], "metadata": CLASS_LABEL}, LabelError, "label 2 is outside the 2 classes"),
        ({"label": [0], "metadata": {"huggingface": "{"}}, SourceError, "huggingface entry cannot be read"),
        ({"label": [0], "metadata": {"huggingface": "[1]"}}, SourceError, "huggingface entry cannot be read"),
        (
            {"label": [0], "metadata": {"huggingface": '{"info": {"features": {"label": {"names": 3}}}}'}},
            SourceError,
            "are no list of strings",
        ),
    ],
)
def test_bad_labels(tmp_path: Path, columns: dict[str, Any], error: type[Exception], message: str) -> None:
    path = write_images(tmp_path / "a.parquet", JPEGS[:1], **columns)
    with pytest.raises(error, match=message):
        ParquetSource(path)


def test_files_that_differ(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet", JPEGS[:1], label=[0])
    write_images(tmp_path / "b.parquet", JPEGS[:1], label=["newt"])
    with pytest.raises(SourceError, match="labels are of several kinds"):
        ParquetSource(tmp_path)
    write_images(tmp_path / "b.parquet", JPEGS[:1])
    with pytest.raises(SourceError, match=r"b.parquet lacks the columns that the first file has: image, label"):
        ParquetSource(tmp_path)


def test_each_group_is_read_once_and_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_images(tmp_path / "a.parquet", JPEGS * 6, row_group_size=3)
    source = ParquetSource(path)
    read: list[int] = []
    original = ParquetSource._read_group

    def counting(self: ParquetSource, group: int) -> Any:
        read.append(group)
        return original(self, group)

    monkeypatch.setattr(ParquetSource, "_read_group", counting)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.fetch, range(42))) == JPEGS * 6
    assert sorted(read) == list(range(14))
    monkeypatch.setattr(parquet, "_HELD_BYTES", int(source._groups[:3, 3].sum()))
    for row in (0, 5, 41):
        source.fetch(row)
    assert len(source._held) <= 3
    monkeypatch.setattr(parquet, "_HELD_BYTES", 1)
    source.fetch(20)
    assert list(source._held) == [6]


def test_a_group_that_failed_for_the_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ParquetSource(write_images(tmp_path / "a.parquet", JPEGS[:2]))
    waiting = threading.Event()

    def broken(*_: object) -> Any:
        waiting.wait(1)
        raise SourceError("disk away")

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(source, "_read_group", broken)
        both = [pool.submit(source.fetch, i) for i in range(2)]
        waiting.set()
        for one in both:
            with pytest.raises(SourceError, match="disk away"):
                one.result()
    assert source.fetch(1) == JPEGS[1]


def test_rows_without_bytes_and_groups_that_are_damaged(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.parquet", [JPEGS[0], None, *JPEGS[2:6]], row_group_size=2)
    metadata = pq.read_metadata(path)
    at = metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 24] = b"\xff" * 24
    path.write_bytes(data)
    source = ParquetSource(path)

    def state(row: int) -> object:
        try:
            return source.fetch(row)
        except ImageError as err:
            return RowStatus(err.status), str(err).partition(": ")[0]

    assert [state(row) for row in range(6)] == [
        JPEGS[0],
        (RowStatus.MISSING, "a.parquet/1"),
        (RowStatus.CORRUPT, "a.parquet/2"),
        (RowStatus.CORRUPT, "a.parquet/3"),
        *JPEGS[4:6],
    ]


def test_a_bomb_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"\0" * (1 << 22)] * 4}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(parquet, "_LARGEST_GROUP_BYTES", 1 << 23)
    with pytest.raises(SourceError, match=r"row group 0 of .* says it holds 16\d+ bytes of images"):
        ParquetSource(path)
    monkeypatch.undo()
    source = ParquetSource(path)
    monkeypatch.setattr(
        parquet, "_LARGEST_GROUP_BYTES", 1 << 23
    )  # as if the footer had said less than the pages
    with pytest.raises(ImageError, match="claim to hold more than 8388608"):
        source.fetch(0)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"image": [JPEGS[0]] * 5000, "label": long}), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(SourceError, match="unfolds to 5242880000 bytes of text"):
        ParquetSource(path)


def test_any_flipped_byte_gives_rows_or_one_line(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.parquet", JPEGS, label=list("abcabca"), row_group_size=3)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 200):
        hurt = bytearray(data)
        hurt[at] ^= int(rng.integers(1, 256))
        path.write_bytes(hurt)
        try:
            source = ParquetSource(path)
            for row in range(min(source.n_samples, 20)):
                source.fetch(row)
        except LtstoreError as err:
            message = str(err)
            assert message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"x" * 100])
def test_what_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*a.parquet as Parquet"):
        open_source(tmp_path / "a.parquet")
    write_images(tmp_path / "a.parquet", [])
    with pytest.raises(SourceError, match="holds no rows"):
        open_source(tmp_path)
