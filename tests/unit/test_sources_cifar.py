"""CIFAR in its official form, and pickles that are not what they say."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError
from ltstore.sources import CifarSource, SelectedSource
from support.images import cifar10_files, cifar100_files, python2_pickle, write_files, write_tar


def test_cifar100_rows_in_official_order_with_planes_put_together(tmp_path: Path) -> None:
    files = cifar100_files()
    source = CifarSource(write_files(tmp_path, files))
    official = pickle.loads(files["train"], encoding="bytes")  # noqa: S301
    assert source.class_names == ("apple", "bear", "crab")
    assert source.labels.tolist() == official[b"fine_labels"]
    assert source.key(7) == "train/00007"
    image = np.asarray(source.read(7))
    row = official[b"data"][7]
    assert image.shape == (32, 32, 3)
    assert image[2, 5].tolist() == [row[2 * 32 + 5], row[1024 + 2 * 32 + 5], row[2048 + 2 * 32 + 5]]


@pytest.mark.parametrize(
    "mode, name", [("w", "c.tar"), ("w:gz", "c.tar.gz"), ("w:gz", "c.tgz"), ("w:xz", "c.tar.xz")]
)
def test_a_tar_is_the_same_as_its_directory(tmp_path: Path, mode: str, name: str) -> None:
    files = cifar100_files()
    plain = CifarSource(write_files(tmp_path / "cifar-100-python", files), "test")
    nested = CifarSource(tmp_path, "test")
    packed = CifarSource(write_tar(tmp_path / name, "cifar-100-python", files, mode), "test")
    for other in (nested, packed):
        assert other.digest == plain.digest
        assert (np.asarray(other.read(3)) == np.asarray(plain.read(3))).all()


def test_cifar10_joins_its_five_batches(tmp_path: Path) -> None:
    files = cifar10_files()
    train = CifarSource(write_files(tmp_path, files))
    assert (train.n_samples, train.class_names) == (15, ("cat", "dog"))
    third = pickle.loads(files["data_batch_3"], encoding="bytes")  # noqa: S301
    assert train.labels[6:9].tolist() == third[b"labels"]
    assert np.asarray(train.read(6))[0, 0, 0] == third[b"data"][0, 0]
    packed = CifarSource(write_tar(tmp_path / "c.tar", "cifar-10-batches-py", files, "w"), "test")
    assert packed.n_samples == 3


def test_pickled_source_reads_its_pixels_again(tmp_path: Path) -> None:
    source = CifarSource(write_files(tmp_path, cifar100_files()))
    data = pickle.dumps(source)
    assert len(data) < 3072 * 4
    again = pickle.loads(data)  # noqa: S301
    assert again.digest == source.digest
    assert (np.asarray(again.read(2)) == np.asarray(source.read(2))).all()


def test_other_pixels_under_the_same_labels_are_another_source(tmp_path: Path) -> None:
    files = cifar100_files()
    source = CifarSource(write_files(tmp_path / "a", files))
    batch = pickle.loads(files["train"], encoding="bytes")  # noqa: S301
    batch[b"data"][-1, -1] ^= 1
    other = CifarSource(write_files(tmp_path / "b", files | {"train": python2_pickle(batch)}))
    assert other.labels.tolist() == source.labels.tolist()
    assert other.digest != source.digest
    assert SelectedSource(other, [0]).digest != SelectedSource(source, [0]).digest


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch evil-ran",))


@pytest.mark.parametrize(
    "value, name",
    [(Evil(), "posix.system"), (Path("x"), "pathlib"), (np.float64(1), "numpy.*scalar")],
)
def test_a_pickle_that_asks_for_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = cifar100_files() | {"train": pickle.dumps({"data": value}, 2)}
    with pytest.raises(SourceError, match=f"train asks to load {name}.*refused"):
        CifarSource(write_files(tmp_path / "c", files))
    assert not (tmp_path / "evil-ran").exists()


FORGED = b"cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\n(U\x01Otq\x00RU\x08AAAAAAAAtR"
"""Calls ``np.ndarray((1,), np.dtype("O"), b"AAAAAAAA")``: an object at an address of the file's choice."""


def test_a_pickle_cannot_forge_object_pointers(tmp_path: Path) -> None:
    meta = b"\x80\x02}(U\x10fine_label_names" + FORGED + b"u."
    code = f"from ltstore.sources import CifarSource; CifarSource({str(tmp_path)!r})"
    write_files(tmp_path, cifar100_files() | {"meta": meta})
    # in a process of its own: what fails here is a segmentation fault
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.returncode
    assert "SourceError" in ended.stderr
    assert "meta is not a whole pickle" in ended.stderr


@pytest.mark.parametrize(
    "call",
    [
        b"cnumpy\nndarray\n(K\x01\x85tR",  # ndarray((1,))
        b"cnumpy\ndtype\n(U\x01OtR",  # dtype("O")
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x01\x85NI00\nNtb",
    ],
)
def test_the_numpy_names_build_nothing_but_arrays_of_bytes(tmp_path: Path, call: bytes) -> None:
    files = cifar100_files() | {"train": b"\x80\x02}(U\x04data" + call + b"u."}
    with pytest.raises(SourceError, match="train is not a whole pickle"):
        CifarSource(write_files(tmp_path, files))


@pytest.mark.parametrize(
    "train, message",
    [
        (b"", "not a whole pickle"),
        (b"garbage", "not a whole pickle"),
        (cifar100_files()["train"][:-500], "not a whole pickle"),
        (python2_pickle([1, 2]), "expected a dict with 'data'"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.uint8)}), "fine_labels"),
        (python2_pickle({b"data": np.zeros((2, 30), np.uint8), b"fine_labels": [0, 0]}), "shape"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.float32), b"fine_labels": [0, 0]}), "uint8"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0]}), "2 labels"),
        (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [3]}), "labels in 0..2"),
        (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": 7}), "labels"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, train: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        CifarSource(write_files(tmp_path, cifar100_files() | {"train": train}))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="cifar-100-python"):
        CifarSource(tmp_path / "absent.tar")
    with pytest.raises(SourceError, match="holds no CIFAR pickles"):
        CifarSource(tmp_path)
    with pytest.raises(ConfigError, match="train and test, found 'val'"):
        CifarSource(tmp_path, "val")
    files = cifar10_files()
    del files["data_batch_4"]
    with pytest.raises(SourceError, match="lacks data_batch_4 of CIFAR-10"):
        CifarSource(write_files(tmp_path / "c", files))


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.xz", "w:xz")])
def test_a_tar_cut_short_or_of_something_else(tmp_path: Path, suffix: str, mode: str) -> None:
    path = write_tar(tmp_path / f"c{suffix}", "cifar-100-python", cifar100_files(), mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"not a whole tar|holds no CIFAR"):
        CifarSource(path)
    path.write_bytes(b"hello" * 300)
    with pytest.raises(SourceError, match=r"not a whole tar|holds no CIFAR"):
        CifarSource(path)
    write_tar(path, "x", {"readme": b"hi"}, mode)
    with pytest.raises(SourceError, match="holds no CIFAR"):
        CifarSource(path)
