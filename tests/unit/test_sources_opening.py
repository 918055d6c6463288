"""open_source: what is opened as what, and views of other sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError, LabelError, SourceError, SourceNotFoundError
from ltstore.sources import (
    CifarSource,
    DigitsSource,
    FolderSource,
    ListSource,
    RelabelledSource,
    SelectedSource,
    open_source,
    read_indices,
    relabelled,
)
from support.images import ArraySource, array_source, cifar100_files, class_tree, write_files, write_tar


def test_formats_are_detected(tmp_path: Path) -> None:
    tree = class_tree(tmp_path / "tree", {"a": 2})
    (tmp_path / "rows.lst").write_text("x.jpg 0\n")
    assert isinstance(open_source("digits"), DigitsSource)
    assert isinstance(open_source(tree), FolderSource)
    assert isinstance(open_source(write_files(tmp_path / "c", cifar100_files())), CifarSource)
    assert isinstance(open_source(write_tar(tmp_path / "c.tar.gz", "d", cifar100_files())), CifarSource)
    assert isinstance(open_source(tmp_path / "rows.lst"), ListSource)
    assert isinstance(open_source(str(tree), format="folder"), FolderSource)


def test_what_is_not_a_source_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no source .*absent: expected the word digits, or a path"):
        open_source(tmp_path / "absent")
    for content in (b"", b"\x89PNG\0", b"a,b\n1,2\n"):
        (tmp_path / "x.dat").write_bytes(content)
        with pytest.raises(SourceError, match=r"cannot tell what .* format: digits, folder, cifar, list"):
            open_source(tmp_path / "x.dat")
    with pytest.raises(ConfigError, match="unknown source format 'imagefolder'"):
        open_source(tmp_path, format="imagefolder")
    with pytest.raises(
        ConfigError, match="root is for list, manifest, coco only, and digits is opened as digits"
    ):
        open_source("digits", root=tmp_path)
    with pytest.raises(ConfigError, match="splits train and test, found 'val'"):
        open_source("digits", split="val")


def test_a_directory_of_splits_is_entered(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"a": 2, "b": 1})
    class_tree(tmp_path / "test", {"a": 1})
    assert open_source(tmp_path, split="train").n_samples == 3
    assert open_source(tmp_path, split="test").n_samples == 1
    with pytest.raises(SourceError, match="holds the splits test, train and no 'val'"):
        open_source(tmp_path, split="val")
    class_tree(tmp_path, {"zebra": 1})
    assert open_source(tmp_path, split="test").class_names == ("test", "train", "zebra")


def test_indices_then_limit(tmp_path: Path) -> None:
    source = open_source("digits", indices=np.array([5, 2, 9]), limit=2)
    whole = open_source("digits")
    assert [source.key(i) for i in range(source.n_samples)] == [whole.key(5), whole.key(2)]
    assert source.labels.tolist() == whole.labels[[5, 2]].tolist()
    assert np.asarray(source.read(0)).tolist() == np.asarray(whole.read(5)).tolist()
    assert open_source("digits", limit=10_000).n_samples == 1258
    for bad in ([0, 1258], [-1], [], [0.5], [[1]]):
        with pytest.raises(ConfigError, match="ind"):
            open_source("digits", indices=bad)
    with pytest.raises(ConfigError, match="limit must be at least 1, found 0"):
        open_source("digits", limit=0)


def test_labels_are_mapped_by_name_onto_the_stores_classes(tmp_path: Path) -> None:
    tree = class_tree(tmp_path, {"cat": 1, "dog": 2})
    source = open_source(tree, class_names=("ant", "dog", "cat"))
    assert source.class_names == ("ant", "dog", "cat")
    assert source.labels.tolist() == [2, 1, 1]
    assert source.read(2).mode == "RGB"
    with pytest.raises(LabelError, match="1 of the source's classes are not among the 2 expected ones: 'dog'"):
        open_source(tree, class_names=("ant", "cat"))
    assert open_source(tree, class_names=("cat",), limit=1).labels.tolist() == [0]


def test_a_lists_integers_are_positions_in_the_stores_classes(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("x.jpg 1\n")
    source = open_source(tmp_path / "l.txt", class_names=("ant", "dog"))
    assert (source.class_names, source.labels.tolist()) == (("ant", "dog"), [1])


def test_views_of_a_source_that_is_only_a_protocol() -> None:
    base = array_source(6)

    class Foreign:
        n_samples, class_names, labels, digest = base.n_samples, base.class_names, base.labels, base.digest
        key, read = base.key, base.read

    view = SelectedSource(Foreign(), [4, 1])
    assert (np.asarray(view.read(0)) == base.pixels[4]).all()
    assert (np.asarray(RelabelledSource(view, ["c", "b", "a"]).read(1)) == base.pixels[1]).all()


def test_relabelling_keeps_unlabelled_rows_and_ignores_empty_foreign_classes() -> None:
    source = ArraySource(np.zeros((3, 2, 2, 3), np.uint8), [-1, 1, -1], ["gone", "here"])
    assert relabelled(source, ["x", "here"]).labels.tolist() == [-1, 1, -1]
    assert relabelled(source, ["gone", "here"]) is source
    with pytest.raises(LabelError, match="class name 'x' comes twice"):
        relabelled(source, ["x", "x", "here"])


def test_digests_tell_order_labels_and_keys_apart() -> None:
    source = array_source(6)
    views = [source, SelectedSource(source, [1, 0, 2, 3, 4, 5]), SelectedSource(source, range(5))]
    views.append(RelabelledSource(source, ["b", "a", "c"]))
    assert len({view.digest for view in views}) == 4
    assert SelectedSource(source, range(6)).digest == source.digest


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(LabelError, match=r"label 3 of row 1 \(row/0001\) is outside the 2 classes"):
        ArraySource(np.zeros((2, 2, 2, 3), np.uint8), [0, 3], ["a", "b"])


def test_digits_are_cut_once_and_for_all() -> None:
    train, test = DigitsSource("train"), DigitsSource("test")
    names = {train.key(i) for i in range(1258)} | {test.key(i) for i in range(539)}
    assert len(names) == 1797
    assert np.bincount(train.labels).tolist() == [125, 127, 124, 128, 127, 127, 127, 125, 122, 126]
    assert train.digest == "sha256:a9d92a688720c7958f23720b5fb3e401a236ff5927680610dd3e5ae2952a9cd0"


def test_digits_pixels_can_be_had_back() -> None:
    from sklearn.datasets import load_digits

    source = DigitsSource("test")
    row = int(source.key(17).removeprefix("digits/"))
    found = np.asarray(source.read(17))
    assert found.shape == (8, 8, 3)
    assert (np.round(found[..., 0] * (16 / 255)) == load_digits().images[row]).all()


def test_read_indices(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.array([3, 1], np.int32))
    (tmp_path / "i.txt").write_text("3\n1\n")
    for name in ("i.npy", "i.txt"):
        assert read_indices(tmp_path / name).tolist() == [3, 1]
    (tmp_path / "i.txt").write_text("3\nx\n")
    with pytest.raises(SourceError, match="line 2: expected a row number, found 'x'"):
        read_indices(tmp_path / "i.txt")
    np.save(tmp_path / "i.npy", np.zeros(2))
    with pytest.raises(SourceError, match="one row of integers, found float64"):
        read_indices(tmp_path / "i.npy")
    (tmp_path / "i.npy").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot read"):
        read_indices(tmp_path / "i.npy")
    with pytest.raises(SourceNotFoundError, match="no file"):
        read_indices(tmp_path / "absent")


@pytest.mark.parametrize("line", ["1_000", "9" * 30, "-" + "9" * 30, "9" * 5000, str(2**63), "", "1 2", "٣"])
def test_a_line_that_is_no_row_number_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "i.txt").write_text(f"3\n{line}\n4\n")
    with pytest.raises(SourceError, match="line 2: expected a row number, found"):
        read_indices(tmp_path / "i.txt")


def test_an_archive_and_a_number_beyond_all_rows_are_no_indices(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", a=np.arange(3))
    (tmp_path / "i.npz").rename(tmp_path / "i.npy")
    with pytest.raises(SourceError, match="one row of integers, found an archive"):
        read_indices(tmp_path / "i.npy")
    np.save(tmp_path / "i.npy", np.array([1, 2**63], np.uint64))
    with pytest.raises(SourceError, match="9223372036854775808 is no row number"):
        read_indices(tmp_path / "i.npy")


def test_what_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "i.txt").write_text("3\n")
    write_files(tmp_path / "c", cifar100_files())

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("open", "read_text", "read_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(SourceError, match=r"cannot read .*i.txt: Permission denied"):
        read_indices(tmp_path / "i.txt")
    with pytest.raises(SourceError, match=r"cannot read .*: Permission denied"):
        CifarSource(tmp_path / "c")


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    heavy = ("torch", "open_clip", "onnxruntime", "zarr", "faiss", "pyarrow", "sklearn", "timm")
    code = f"import sys, ltstore.sources, ltstore.encode; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
