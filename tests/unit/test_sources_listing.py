"""List files: `path label`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltstore.errors import ImageError, LabelError, SourceError, SourceNotFoundError
from ltstore.sources import ListSource, open_source, read_class_names
from ltstore.types import RowStatus
from support.images import encoded, picture


def test_lines_are_cut_at_the_last_blank(tmp_path: Path) -> None:
    (tmp_path / "my images").mkdir()
    (tmp_path / "my images" / "a b.jpg").write_bytes(encoded(picture()))
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"my images/a b.jpg 2\r\n\n/absolute/x.jpg\t0\ncaf\xe9.jpg   -1")
    source = ListSource(listing)
    assert [source.key(i) for i in range(3)] == ["my images/a b.jpg", "/absolute/x.jpg", r"caf\xe9.jpg"]
    assert source.labels.tolist() == [2, 0, -1]
    assert source.class_names == ("0", "1", "2")
    assert source.read(0).size == (24, 16)
    with pytest.raises(ImageError) as caught:
        source.read(1)
    assert caught.value.status == RowStatus.MISSING


def test_the_digest_knows_which_files_are_there_and_how_large(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg 0\nb.jpg 1\n")
    seen = {ListSource(listing).digest}
    for name, content in (("a.jpg", b"1"), ("a.jpg", b"22"), ("b.jpg", b"22")):
        (tmp_path / name).write_bytes(content)
        seen.add(ListSource(listing).digest)
    assert len(seen) == 4
    assert ListSource(listing).digest in seen


def test_root_and_class_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_bytes(encoded(picture()))
    listing = tmp_path / "list.txt"
    listing.write_text("x.jpg 1\n")
    source = ListSource(listing, root=tmp_path / "images", class_names=["a", "b", "c"])
    assert source.class_names == ("a", "b", "c")
    assert source.read(0).size == (24, 16)
    with pytest.raises(LabelError, match="line 1: label 1 is outside the 1 classes"):
        ListSource(listing, class_names=["a"])


@pytest.mark.parametrize(
    "line",
    ["alone.jpg", "x.jpg cat", "x.jpg 1.5", "x.jpg -2", "x.jpg 1_0", "x.jpg ²", "7", "x.jpg " + "9" * 5000],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"a.jpg 0\n{line}\n")
    with pytest.raises(SourceError, match="line 2: expected `path label` with an integer label, found"):
        ListSource(listing)


def test_a_column_that_is_no_class_number_is_refused_before_names_are_made_for_it(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg 0\nb.jpg 1693526400\n")
    for names in (None, ["x", "y"]):
        with pytest.raises(SourceError, match=r"line 2: label 1693526400 is no class number, those are below"):
            ListSource(listing, class_names=names)
    listing.write_text(f"a.jpg {2**24}\n")
    with pytest.raises(SourceError, match="line 1: label 16777216"):
        ListSource(listing)
    listing.write_text("a.jpg 0\nb.jpg 1201\n")
    with pytest.raises(SourceError, match=r"label 1201 \(b.jpg\) in a list of 2 rows is hardly a class number"):
        ListSource(listing)
    assert ListSource(listing, class_names=[str(i) for i in range(5000)]).labels.tolist() == [0, 1201]
    listing.write_text("a.jpg 0\nb.jpg 1200\n")
    assert len(ListSource(listing).class_names) == 1201


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no file"):
        ListSource(tmp_path / "absent.txt")
    with pytest.raises(SourceError, match="cannot read"):
        ListSource(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(SourceError, match="lists no images"):
        ListSource(tmp_path / "empty.txt")


def test_a_list_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg 0\n")

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=r"cannot read .*list.txt: Permission denied"):
        open_source(listing)


def test_class_name_files(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("airfield airfield\nred fox\nowl\n")
    assert read_class_names(path) == ("airfield", "red fox", "owl")
    path.write_text("a\n\nb\n")
    with pytest.raises(SourceError, match="line 2: expected a class name"):
        read_class_names(path)
    path.write_text("a\nb\na\n")
    with pytest.raises(SourceError, match="line 3: class name 'a' is on line 1 already"):
        read_class_names(path)


def test_places(real_data: Path) -> None:
    names = read_class_names(real_data / "longtail" / "Places_LT_classnames.txt")
    source = ListSource(real_data / "longtail" / "Places_LT_train.txt", class_names=names)
    assert (source.n_samples, len(source.class_names)) == (62_500, 365)
    assert source.class_names[0] == "airfield"
    assert source.key(0) == "train/airfield/00004851.jpg"
    with pytest.raises(ImageError) as caught:
        source.read(0)
    assert caught.value.status == RowStatus.MISSING
