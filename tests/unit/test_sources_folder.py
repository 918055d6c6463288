"""Class folders: what is a row, in which order, under which key."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.errors import ImageError, SourceError, SourceNotFoundError
from ltstore.sources import FolderSource, RelabelledSource, SelectedSource
from ltstore.sources.keys import key_of
from ltstore.types import RowStatus
from support.images import class_tree, encoded, picture

JPEG = encoded(picture())


def keys(source: FolderSource) -> list[str]:
    return [source.key(i) for i in range(source.n_samples)]


def test_classes_and_paths_are_sorted_by_bytes_at_any_depth(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.JPEG", "B/x.PNG", "ä/ü.webp", "b/deep/er/1.tif", "b/deep.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    source = FolderSource(tmp_path)
    assert source.class_names == ("B", "b", "ä")
    assert keys(source) == ["B/x.PNG", "b/10.JPEG", "b/2.jpg", "b/deep.gif", "b/deep/er/1.tif", "ä/ü.webp"]
    assert source.labels.tolist() == [0, 1, 1, 1, 1, 2]
    assert source.read(4).size == (24, 16)


def test_every_usual_suffix_of_a_decodable_format_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    kinds = {
        "ppm": "PPM",
        "pgm": "PPM",
        "pbm": "PPM",
        "pnm": "PPM",
        "jp2": "JPEG2000",
        "bmp": "BMP",
        "TIF": "TIFF",
    }
    modes = {"pgm": "L", "pbm": "1"}
    for suffix, kind in kinds.items():
        image = picture().convert(modes.get(suffix, "RGB"))
        (tmp_path / "a" / f"x.{suffix}").write_bytes(encoded(image, kind))
    source = FolderSource(tmp_path)
    assert sorted(keys(source)) == sorted(f"a/x.{suffix}" for suffix in kinds)
    assert all(source.read(i).size == (24, 16) for i in range(source.n_samples))


def test_order_does_not_depend_on_the_order_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_tree(tmp_path, {"a": 4, "b": 3})
    first = FolderSource(tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            self.entries = list(scandir(path))[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return sorted(self.entries, key=lambda entry: entry.name, reverse=True)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert FolderSource(tmp_path).digest == first.digest


def test_hidden_files_other_suffixes_and_loose_images_are_left_out_and_counted(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 1})
    for name in ("a/.hidden.jpg", "a/notes.txt", "a/._x.jpg", "loose.jpg", "README", ".DS_Store"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    source = FolderSource(tmp_path)
    assert keys(source) == ["a/000.jpg"]
    assert source.n_ignored == {"hidden": 4, "suffix": 2, "top_level": 1, "not_a_file": 2, "linked_twice": 0}


def test_symbolic_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    class_tree(tmp_path / "elsewhere", {"z": 2})
    root = class_tree(tmp_path / "root", {"a": 1})
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "z")
    source = FolderSource(root)
    assert keys(source) == [
        "a/000.jpg",
        "a/up/linked/000.jpg",
        "a/up/linked/001.jpg",
        "linked/000.jpg",
        "linked/001.jpg",
    ]
    assert source.n_ignored["linked_twice"] >= 2


def test_a_link_to_itself_is_not_a_file(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 1})
    for name in ("a/self.jpg", "self.jpg", "self"):
        (tmp_path / name).symlink_to(tmp_path / name)
    source = FolderSource(tmp_path)
    assert keys(source) == ["a/000.jpg"]
    assert source.n_ignored == {"hidden": 0, "suffix": 1, "top_level": 1, "not_a_file": 1, "linked_twice": 0}


def test_a_class_directory_without_images_keeps_its_class(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 1, "c": 1})
    (tmp_path / "b" / "inner").mkdir(parents=True)
    source = FolderSource(tmp_path)
    assert source.class_names == ("a", "b", "c")
    assert source.labels.tolist() == [0, 2]


def test_what_is_no_class_tree_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="expected one with a sub-directory per class"):
        FolderSource(tmp_path / "absent")
    with pytest.raises(SourceError, match="no images and no sub-directories"):
        FolderSource(tmp_path)
    (tmp_path / "x.jpg").write_bytes(JPEG)
    with pytest.raises(
        SourceError, match="1 images at its top level and no sub-directories: expected one directory"
    ):
        FolderSource(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError, match=r"no images under the 1 class directories .* \.jpg"):
        FolderSource(tmp_path)


def test_a_directory_that_cannot_be_listed_is_an_error_not_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_tree(tmp_path, {"a": 1, "b": 1})
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"cannot list .*b: Permission denied"):
        FolderSource(tmp_path)


def test_names_that_are_not_utf8_become_printable_keys_and_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in (b"caf\xe9.jpg", b"new\nline.jpg", b"back\\xe9.jpg", "日本.jpg".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/" + name)).write_bytes(JPEG)
    source = FolderSource(tmp_path)
    assert keys(source) == [r"a/back\\xe9.jpg", r"a/caf\xe9.jpg", r"a/new\x0aline.jpg", "a/日本.jpg"]
    assert all(source.read(i).size == (24, 16) for i in range(4))
    assert source.digest.startswith("sha256:")


def test_a_file_that_goes_away_is_missing(tmp_path: Path) -> None:
    source = FolderSource(class_tree(tmp_path, {"a": 2}))
    (tmp_path / "a" / "001.jpg").unlink()
    assert source.read(0).mode == "RGB"
    with pytest.raises(ImageError, match=r"a/001.jpg: No such file") as caught:
        source.read(1)
    assert caught.value.status == RowStatus.MISSING


def test_files_of_other_sizes_under_the_same_names_are_another_source(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3})
    source = FolderSource(tmp_path)
    assert FolderSource(tmp_path).digest == source.digest
    first_two = SelectedSource(source, [0, 1]).digest
    relabelled = RelabelledSource(source, ["z", "a"]).digest
    (tmp_path / "a" / "002.jpg").write_bytes(b"grown since")
    changed = FolderSource(tmp_path)
    assert changed.digest != source.digest
    assert SelectedSource(changed, [0, 1]).digest == first_two
    assert RelabelledSource(changed, ["z", "a"]).digest != relabelled


def test_the_digest_takes_a_file_that_is_not_there_and_not_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FolderSource(class_tree(tmp_path, {"a": 2}))
    whole = FolderSource(tmp_path).digest
    (tmp_path / "a" / "001.jpg").unlink()
    assert source.digest != whole

    def fail(path: Path, **_: object) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error", str(path))

    failing = FolderSource(tmp_path)
    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(SourceError, match=r"cannot read .*000.jpg: Input/output error"):
        _ = failing.digest


def test_caltech(real_data: Path) -> None:
    source = FolderSource(real_data / "caltech101_jpeg" / "train")
    assert (source.n_samples, len(source.class_names)) == (611, 20)
    assert source.read(0).mode == "RGB"


def path_of(key: str) -> bytes:
    """Undo `key_of`."""
    out, i = b"", 0
    while i < len(key):
        if key[i] != "\\":
            out += key[i].encode()
            i += 1
        elif key[i + 1] == "\\":
            out += b"\\"
            i += 2
        else:
            out += bytes([int(key[i + 2 : i + 4], 16)])
            i += 4
    return out


def test_a_path_that_prints_is_its_key_and_takes_no_memory_of_its_own() -> None:
    path = "".join(["n01440764/", "日本.jpg"])
    assert key_of(path) is path
    assert key_of("a\\b") == "a\\\\b"


@given(st.binary())
def test_a_key_is_printable_and_gives_its_path_back(raw: bytes) -> None:
    key = key_of(raw)
    assert key.isprintable()
    assert path_of(key) == raw
