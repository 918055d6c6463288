"""Tars of samples: what is a row, in which order, under which key and label."""

from __future__ import annotations

import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltstore.errors import ImageError, LabelError, SourceError, SourceNotFoundError
from ltstore.sources import SelectedSource, TarSource, open_source, tar_index, tars
from ltstore.types import RowStatus
from support.images import cifar100_files, encoded, picture, write_tar
from support.shards import sample, write_shard


def keys(source: Any) -> list[str]:
    return [source.key(i) for i in range(source.n_samples)]


def failure(source: TarSource, row: int) -> tuple[RowStatus, str]:
    with pytest.raises(ImageError) as caught:
        source.read(row)
    return RowStatus(caught.value.status), str(caught.value)


def test_rows_are_samples_in_the_order_of_tars_and_members(tmp_path: Path) -> None:
    write_shard(tmp_path / "00001.tar", [*sample("b", 2), *sample("a", 0, seed=1)])
    write_shard(tmp_path / "00000.tar", [("x/z.cls", b"1\n"), ("x/z.seg.PNG", encoded(picture(5), "PNG"))])
    for spec in (tmp_path, f"{tmp_path}/*.tar", f"{tmp_path}/{{00000..00001}}.tar"):
        source = open_source(spec)
        assert isinstance(source, TarSource)
        assert keys(source) == ["00000.tar/x/z", "00001.tar/b", "00001.tar/a"]
        assert source.labels.tolist() == [1, 2, 0]
        assert source.class_names == ("0", "1", "2")
    assert source.fetch(0) == encoded(picture(5), "PNG")
    assert source.fetch(2) == encoded(picture(1))
    assert keys(open_source(tmp_path / "00001.tar")) == ["00001.tar/b", "00001.tar/a"]


def test_members_of_a_sample_need_not_be_neighbours(tmp_path: Path) -> None:
    images, labels = (
        [m for i in range(3) for m in sample(f"{i}", None, i)],
        [(f"{i}.cls", b"%d" % i) for i in (2, 0, 1)],
    )
    source = TarSource(write_shard(tmp_path / "s.tar", [*images, *labels]))
    assert source.labels.tolist() == [0, 1, 2]


def test_labels_are_numbers_names_or_fields(tmp_path: Path) -> None:
    about = [("a.json", b'{"label": 3, "name": "owl"}'), ("b.json", b'{"name": "newt"}')]
    members = [*sample("a", "crane"), *sample("b", "newt"), *sample("c"), *about, ("c.txt", b"a caption")]
    path = write_shard(tmp_path / "s.tar", members)
    found = {field: TarSource(path, label_field=field) for field in (None, "label", "name", "txt")}
    assert [(s.class_names, s.labels.tolist()) for s in found.values()] == [
        (("crane", "newt"), [0, 1, -1]),
        (("0", "1", "2", "3"), [3, -1, -1]),
        (("newt", "owl"), [1, 0, -1]),
        (("a caption",), [-1, -1, 0]),
    ]
    named = open_source(path, class_names=["newt", "owl", "crane"])
    assert named.labels.tolist() == [2, 0, -1]
    assert open_source(path, label_column="label", class_names=list("abcd")).labels.tolist() == [3, -1, -1]
    with pytest.raises(LabelError, match=r"s.tar/a: label 3 is outside the 2 classes"):
        open_source(path, label_column="label", class_names=["x", "y"])
    with pytest.raises(SourceError, match=r"no sample of .*s.tar has a label in 'nmae'"):
        TarSource(path, label_field="nmae")
    with pytest.raises(LabelError, match="'crane'"):
        open_source(path, class_names=["newt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", r"s.tar: a.json must hold an object with fields"),
        (b'{"label": [1]}', r"s.tar: a.json, 'label' must hold a whole number or a class name, found \[1\]"),
        (b'{"label": 1.5}', "must hold a whole number or a class name"),
        (b'{"label": "\\ud800"}', "must hold a whole number or a class name"),
        (b"{", "s.tar: a.json is no JSON"),
        (b"[" * 100_000, "s.tar: a.json is no JSON"),
        (b'{"label": ' + b"9" * 5000 + b"}", "s.tar: a.json is no JSON"),
        (b'{"label": 99999999}', "s.tar/a: label 99999999 is no class number"),
        (b'{"label": 5000}', "s.tar/a: label 5000 among 1 rows is hardly a class number"),
        (b'{"label": -7}', "s.tar/a: label -7 is no class number"),
        (b" " * (1 << 21), "a.json of 2097152 bytes holds no label"),
    ],
)
def test_a_bad_label_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_shard(tmp_path / "s.tar", [*sample("a"), ("a.json", text)])
    with pytest.raises(SourceError, match=message):
        TarSource(path, label_field="label")


def test_what_is_no_part_of_a_sample_is_counted(tmp_path: Path) -> None:
    directory = tarfile.TarInfo("d")
    directory.type = tarfile.DIRTYPE
    members = [
        (directory, b""),
        ("d/.hidden", b"x"),
        ("README", b"x"),
        *sample("d/a", 0),
        ("d/a.2.jpg", b"y"),
        ("d/b.txt", b""),
    ]
    source = TarSource(write_shard(tmp_path / "s.tar", members))
    assert source.n_ignored == {"hidden": 1, "suffix": 1, "second_image": 1}
    assert keys(source) == ["s.tar/d/a", "s.tar/d/b"]
    assert failure(source, 1) == (RowStatus.MISSING, "s.tar/d/b: no image among its members")


def test_a_second_sample_of_one_name_has_its_own_key(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [*sample("a", 0), *sample("a", 1, seed=1), *sample("a", 2, seed=2)])
    source = TarSource(path)
    with tarfile.open(path) as archive:
        places = [member.offset for member in archive if member.name == "a.jpg"]
    assert keys(source) == ["s.tar/a", f"s.tar/a@{places[1]}", f"s.tar/a@{places[2]}"]
    assert source.labels.tolist() == [0, 1, 2]
    assert source.fetch(1) == encoded(picture(1))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names(tmp_path: Path, form: int) -> None:
    names = ["d/" * 90 + "x" * 120, "../../etc/passwd", "/abs", "new\nline", "back\\slash", "ü", "./dot"]
    source = TarSource(write_shard(tmp_path / "s.tar", [m for n in names for m in sample(n, 0)], format=form))
    expected = [*names[:3], r"new\x0aline", r"back\\slash", "ü", "dot"]
    assert keys(source) == [f"s.tar/{name}" for name in expected]
    assert all(source.fetch(i) == encoded(picture()) for i in range(len(names)))


def test_img2dataset_rows_that_were_not_downloaded_are_kept(tmp_path: Path) -> None:
    members = [
        (f"{i:09d}.{kind}", data)
        for i in (2, 0)
        for kind, data in (("jpg", encoded(picture(i))), ("json", b'{"y": "owl"}'))
    ]
    path = write_shard(tmp_path / "00000.tar", members)
    rows = {
        "key": [f"{i:09d}" for i in range(4)],
        "status": ["success", "failed_to_download", "success", "success"],
        "error_message": [None, "HTTP Error 404: Not Found", None, None],
        "y": ["owl", "newt", "owl", None],
    }
    pq.write_table(pa.table(rows), tmp_path / "00000.parquet")
    source = open_source(tmp_path, label_column="y")
    assert isinstance(source, TarSource)
    assert keys(source) == [f"00000.tar/00000000{i}" for i in (2, 0, 1, 3)]
    assert source.class_names == ("newt", "owl")
    assert source.labels.tolist() == [1, 1, 0, -1]
    assert failure(source, 2) == (
        RowStatus.MISSING,
        "00000.tar/000000001: failed_to_download: HTTP Error 404: Not Found",
    )
    assert failure(source, 3) == (
        RowStatus.MISSING,
        "00000.tar/000000003: the Parquet file lists it, the tar does not hold it",
    )
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "00000.parquet")  # some other table
    assert TarSource(path).n_samples == 2
    (tmp_path / "00001.parquet").touch()
    assert TarSource(tmp_path).n_ignored == {"lone_table": 1}


def test_tars_are_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    killed = {"2.tar": True}
    walk = tar_index._Walk

    def counting(path: Path, label_field: str | None) -> Any:
        walked.append(path.name)
        if killed.pop(path.name, False):
            raise KeyboardInterrupt
        return walk(path, label_field)

    monkeypatch.setattr(tar_index, "_Walk", counting)
    for i in range(4):
        write_shard(tmp_path / f"{i}.tar", [*sample("a", i), ("b", b"")])
    how: dict[str, Any] = {"cache": tmp_path / "kept", "n_workers": 1}
    with pytest.raises(KeyboardInterrupt):
        TarSource(tmp_path, **how)
    assert walked[:3] == ["0.tar", "1.tar", "2.tar"]
    stopped = len(walked)
    first = TarSource(tmp_path, **how)
    assert {"0.tar", "1.tar"}.isdisjoint(walked[stopped:])
    assert "2.tar" in walked[stopped:]
    walked.clear()
    again = TarSource(tmp_path, **how)
    assert not walked
    assert again.digest == first.digest == TarSource(tmp_path).digest
    assert (keys(again), again.n_ignored) == (keys(first), first.n_ignored)
    walked.clear()
    write_shard(tmp_path / "1.tar", [*sample("a", 1), *sample("c", 0)])
    assert TarSource(tmp_path, **how).n_samples == 5
    assert walked == ["1.tar"]
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    walked.clear()
    assert TarSource(tmp_path, **how).n_samples == 5
    assert sorted(walked) == ["0.tar", "1.tar", "2.tar", "3.tar"]
    with pytest.raises(SourceError):
        TarSource(tmp_path, label_field="txt", **how)
    assert len(walked) == 8  # another label is another index


def test_what_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no file 1 of the 2 of .*1.tar"):
        write_shard(tmp_path / "t" / "0.tar", sample("a", 0))
        open_source(f"{tmp_path}/t/{{0..1}}.tar")
    for split, n in (("train", 2), ("test", 1)):
        write_shard(tmp_path / "splits" / split / "0.tar", [m for i in range(n) for m in sample(f"{i}", 0)])
        assert open_source(tmp_path / "splits", split=split).n_samples == n
    with pytest.raises(SourceError, match=r"no image in the 1 tars of .*expected members like 000001.jpg"):
        open_source(write_shard(tmp_path / "none.tar", [("a.txt", b"")]))
    for mode, name in (("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")):
        path = write_tar(tmp_path / "packed.tar", "d", {"a.jpg": encoded(picture())}, mode)
        with pytest.raises(SourceError, match=rf"packed.tar is compressed \({name}\)") as caught:
            open_source(path, format="tar")
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="a compressed tar of images has to be decompressed"):
        open_source(write_tar(tmp_path / "packed.tar.gz", "d", {"a.jpg": encoded(picture())}))
    plain = write_tar(tmp_path / "c.tar", "cifar-100-python", cifar100_files(), "w")
    assert type(open_source(plain)).__name__ == "CifarSource"
    (tmp_path / "mixed" / "a").mkdir(parents=True)
    (tmp_path / "mixed" / "a" / "x.jpg").write_bytes(encoded(picture()))
    write_shard(tmp_path / "mixed" / "0.tar", sample("a", 0))
    assert type(open_source(tmp_path / "mixed")).__name__ == "FolderSource"  # as ever
    assert open_source(tmp_path / "t", labelled=False).n_samples == 1
    for made in ("s.zarr", "s.zarr.tars"):  # what an ingest into the same directory leaves
        (tmp_path / "t" / made).mkdir()
    assert isinstance(open_source(tmp_path / "t"), TarSource)


def test_a_tar_that_changes_under_a_source_costs_no_row(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", sample("a", 0))
    source = TarSource(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SourceError, match="has changed since it was opened"):
        source.read(0)
    path.unlink()
    with pytest.raises(SourceError, match=r"cannot read .*s.tar"):
        source.read(0)


def test_a_million_rows_take_less_than_64_bytes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tars of 100,000 made samples; a third of them failed downloads."""
    n_tars, n_rows = 10, 100_000

    def made(path: Path, label_field: str | None, cache: Path | None) -> Any:
        row = np.arange(n_rows)
        gone = row % 3 == 0
        columns = {
            "key": pa.array(np.char.zfill(row.astype("U9"), 9)),
            "offset": row * 1536,
            "size": np.where(gone, -1, 1000),
            "label": pa.array((row % 1000).astype("U4")),
            "status": np.where(gone, RowStatus.MISSING, RowStatus.OK).astype(np.uint8),
            "reason": pa.array(["HTTP Error 404"] * n_rows, mask=~gone),
        }
        return pa.table(columns), Counter()

    monkeypatch.setattr(tars, "tar_index", made)
    for i in range(n_tars):
        write_shard(tmp_path / f"{i:05d}.tar", [])
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    try:
        source = TarSource(tmp_path, n_workers=1)
        held, _ = tracemalloc.get_traced_memory()
        per_row = (held + pa.total_allocated_bytes() - arrow) / source.n_samples
        before = held
        chosen = SelectedSource(source, [999_999, 3])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.n_samples == 1_000_000
    assert source.key(999_999) == chosen.key(0) == "00009.tar/000099999"
    assert source.labels[999_999] == 999
    assert failure(source, 3)[1] == "00000.tar/000000003: HTTP Error 404"
    assert per_row < 64
    assert after - before < 100_000
