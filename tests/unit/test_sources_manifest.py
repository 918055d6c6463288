"""Manifests: tables with a column of paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltstore.errors import ConfigError, ImageError, LabelError, SourceError, SourceNotFoundError
from ltstore.sources import ManifestSource, open_source
from ltstore.types import RowStatus
from support.images import encoded, picture


def facts(source: Any) -> tuple[list[str], list[int], tuple[str, ...]]:
    return [source.key(i) for i in range(source.n_samples)], source.labels.tolist(), source.class_names


def test_tables_of_three_kinds_are_one(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x,y.jpg").write_bytes(encoded(picture()))
    rows = [("owl", "d/x,y.jpg"), ("newt", "d/absent.jpg"), (None, "/abs.jpg")]
    (tmp_path / "m.csv").write_text(
        'Class,FILE\r\n owl ,"d/x,y.jpg"\r\nnewt,d/absent.jpg\r\n\r\n,/abs.jpg', newline=""
    )
    (tmp_path / "m.tsv").write_text("Class\tFILE\nowl\td/x,y.jpg\nnewt\td/absent.jpg\n\t/abs.jpg\n")
    labels, paths = zip(*rows, strict=True)
    pq.write_table(pa.table({"Class": labels, "FILE": paths}), tmp_path / "m.parquet")
    sources = [open_source(tmp_path / f"m.{kind}") for kind in ("csv", "tsv", "parquet")]
    assert all(isinstance(source, ManifestSource) for source in sources)
    assert facts(sources[0]) == facts(sources[1]) == facts(sources[2])
    assert facts(sources[0]) == (["d/x,y.jpg", "d/absent.jpg", "/abs.jpg"], [1, 0, -1], ("newt", "owl"))
    assert len({source.digest for source in sources}) == 1
    assert sources[0].read(0).size == (24, 16)
    with pytest.raises(ImageError) as caught:
        sources[0].read(1)
    assert caught.value.status == RowStatus.MISSING


def test_columns_root_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(encoded(picture()))
    table = tmp_path / "m.csv"
    table.write_bytes(b"\xef\xbb\xbfpath,label,pic,kind\na,0,1.jpg,2\nb,1,caf\xe9.jpg,-1\n")
    how: dict[str, Any] = {"root": tmp_path / "images", "path_column": "pic", "label_column": "kind"}
    source = open_source(table, **how)
    assert facts(source) == (["1.jpg", r"caf\xe9.jpg"], [2, -1], ("0", "1", "2"))
    assert source.read(0).size == (24, 16)
    assert open_source(table, class_names=["x", "y"]).labels.tolist() == [0, 1]
    with pytest.raises(LabelError, match=r"m.csv, 1.jpg: label 2 is outside the 2 classes"):
        open_source(table, class_names=["x", "y"], **how)
    for wrong in ({"path_column": "nope"}, {"label_column": "nope"}):
        with pytest.raises(SourceError, match=r"m.csv has no column 'nope'; it has path, label, pic, kind"):
            open_source(table, **wrong)
    (tmp_path / "l.txt").write_text("a.jpg 0\n")
    with pytest.raises(
        ConfigError, match=r"path_column is for manifest, parquet only, and .*l.txt is opened as list"
    ):
        open_source(tmp_path / "l.txt", path_column="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "has no column of paths"),
        (b"a.jpg,3\nb.jpg,4\n", r"has no column of paths: name it \(--path-column\); it has a.jpg, 3"),
        (b"path,label\n", "lists no images"),
        (b"path,label\na.jpg,1\nb.jpg\n", "line 3: expected 2 fields, found 1"),
        (b"path,label\na.jpg,1,2\n", "line 2: expected 2 fields, found 3"),
        (b"path,label\n,1\n", "line 2: a row without a path"),
        (b'path,label\n"a.jpg,1\n', "line 2: "),
        (b"path,label\n" + b"x" * 200_000 + b",1\n", r"line 2: field larger than field limit"),
        (b"path,label\na.jpg,99999999999\n", "a.jpg: label 99999999999 is no class number"),
        (b"path,label\na.jpg,5000\n", "label 5000 among 1 rows is hardly a class number"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(text)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(tmp_path / "m.csv")
    assert "\n" not in str(caught.value)


def test_nul_and_odd_labels_are_text(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path,label\na\0.jpg,caf\xe9\nb.jpg," + b"9" * 40 + b"\n")
    source = open_source(tmp_path / "m.csv")
    assert source.key(0) == r"a\x00.jpg"
    assert len(source.class_names) == 2
    assert all(name.isprintable() for name in source.class_names)
    with pytest.raises(ImageError) as caught:
        source.read(0)
    assert caught.value.status == RowStatus.MISSING


def test_parquet_refusals(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    for column, message in (
        (["a.jpg", None], "must hold a path in every row, found string with 1"),
        ([1], "int64"),
    ):
        pq.write_table(pa.table({"path": column}), path)
        with pytest.raises(SourceError, match=message):
            open_source(path)
    pq.write_table(pa.table({"x": ["a.jpg"]}), path)
    with pytest.raises(SourceError, match=r"no column of paths: name it \(--path-column\); it has x"):
        open_source(path)
    with pytest.raises(SourceNotFoundError):
        ManifestSource(tmp_path / "absent.csv")
