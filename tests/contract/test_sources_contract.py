"""What every image source keeps to, run over all of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ImageError
from ltstore.sources import (
    AnnotationSource,
    CifarSource,
    DigitsSource,
    FolderSource,
    ListSource,
    ManifestSource,
    ParquetSource,
    RelabelledSource,
    SelectedSource,
    ShuffledSource,
    TarSource,
)
from ltstore.types import ImageSource, RowStatus
from support.images import cifar10_files, cifar100_files, class_tree, encoded, picture, write_files, write_tar
from support.shards import sample, write_images, write_shard


def folder(path: Path) -> ImageSource:
    return FolderSource(class_tree(path / "tree", {"b": 3, "a": 2}))


def listing(path: Path) -> ImageSource:
    (path / "x.jpg").write_bytes(encoded(picture()))
    (path / "bad.jpg").write_bytes(b"bad")
    (path / "l.txt").write_text("x.jpg 1\nabsent.jpg 0\nbad.jpg -1\n")
    return ListSource(path / "l.txt")


def tars(path: Path) -> ImageSource:
    write_shard(path / "0.tar", [*sample("a", 1), *sample("b", None), ("c.cls", b"0")])
    write_shard(path / "1.tar", [*sample("a", 0), ("d.jpg", b"bad")])
    return TarSource(path)


def parquet(path: Path) -> ImageSource:
    write_images(
        path / "p" / "a.parquet", [b"bad", None, encoded(picture())], label=[2, None, 0], row_group_size=2
    )
    write_images(path / "p" / "b.parquet", [encoded(picture(1))], label=[1])
    return ParquetSource(path / "p")


def manifest(path: Path) -> ImageSource:
    (path / "x.jpg").write_bytes(encoded(picture()))
    (path / "m.csv").write_text("label,path\nred fox,x.jpg\n,absent.jpg\n")
    return ManifestSource(path / "m.csv")


def annotations(path: Path) -> ImageSource:
    (path / "x.jpg").write_bytes(encoded(picture()))
    images = [{"id": 7, "file_name": "x.jpg"}, {"id": 8, "file_name": "absent.jpg"}]
    listed = {"images": images, "annotations": [{"image_id": 7, "category_id": 3}]}
    (path / "i.json").write_text(json.dumps(listed))
    return AnnotationSource(path / "i.json")


SOURCES: dict[str, Callable[[Path], ImageSource]] = {
    "digits": lambda path: SelectedSource(DigitsSource("test"), range(40)),
    "folder": folder,
    "list": listing,
    "cifar-10": lambda path: CifarSource(write_files(path / "c", cifar10_files())),
    "cifar-100 tar": lambda path: CifarSource(
        write_tar(path / "c.tar.xz", "c", cifar100_files(), "w:xz"), "test"
    ),
    "tars": tars,
    "parquet": parquet,
    "manifest": manifest,
    "annotations": annotations,
    "selected": lambda path: SelectedSource(folder(path), [4, 0, 0]),
    "shuffled": lambda path: ShuffledSource(folder(path), 1),
    "relabelled": lambda path: RelabelledSource(folder(path), ["z", "b", "a"]),
}


@pytest.fixture(params=SOURCES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ImageSource]:
    source = SOURCES[request.param](tmp_path)
    return lambda: source


def content(source: ImageSource, position: int) -> object:
    try:
        image = source.read(position)
    except ImageError as err:
        return RowStatus(err.status)
    assert image.mode == "RGB"
    return image.size, image.tobytes()


class TestImageSource:
    def test_columns_agree(self, make: Callable[[], ImageSource]) -> None:
        source = make()
        assert source.n_samples > 0
        assert source.labels.shape == (source.n_samples,)
        assert source.labels.dtype == np.int64
        assert not source.labels.flags.writeable
        assert ((source.labels >= -1) & (source.labels < len(source.class_names))).all()
        assert len(set(source.class_names)) == len(source.class_names)
        keys = [source.key(i) for i in range(source.n_samples)]
        assert all(key and key.isprintable() for key in keys)
        assert source.digest.startswith("sha256:")

    def test_every_row_is_an_rgb_image_or_an_image_error(self, make: Callable[[], ImageSource]) -> None:
        source = make()
        for i in range(source.n_samples):
            content(source, i)

    def test_a_pickled_source_is_the_same_source(self, make: Callable[[], ImageSource]) -> None:
        source = make()
        again = pickle.loads(pickle.dumps(source))  # noqa: S301
        assert again.digest == source.digest
        assert again.class_names == source.class_names
        assert again.labels.tolist() == source.labels.tolist()
        for i in range(source.n_samples):
            assert again.key(i) == source.key(i)
            assert content(again, i) == content(source, i)

    def test_reading_from_threads_is_reading(self, make: Callable[[], ImageSource]) -> None:
        source = pickle.loads(pickle.dumps(make()))  # noqa: S301
        rows = list(range(source.n_samples)) * 3
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: content(source, i), rows))
        assert found == [content(source, i) for i in rows]
