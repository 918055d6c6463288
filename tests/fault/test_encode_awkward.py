"""A folder of awkward images ends with exactly the statuses and pixels that it must."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import PixelEncoder, ingest
from ltstore.sources import FolderSource
from ltstore.sources.files import FileSource
from ltstore.store import open_store
from ltstore.types import UNLABELLED, RowStatus
from support.awkward import Awkward, write_awkward


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


@pytest.fixture(scope="module")
def awkward(root: Path) -> list[Awkward]:
    return write_awkward(root / "any")


@pytest.fixture(scope="module")
def source(root: Path, awkward: list[Awkward]) -> FileSource:
    return FileSource(root / "any", [each.name for each in awkward], [UNLABELLED] * len(awkward), ())


def test_there_are_two_hundred_and_every_fate(awkward: list[Awkward]) -> None:
    fates = Counter(each.status for each in awkward)
    assert sum(fates.values()) >= 200
    assert set(fates) == {RowStatus.OK, RowStatus.MISSING, RowStatus.CORRUPT, RowStatus.TOO_LARGE}


def test_pixels_are_those_of_the_picture(awkward: list[Awkward], source: FileSource) -> None:
    for position, each in enumerate(awkward):
        if each.pixels is not None:
            found = np.asarray(source.read(position)).astype(int)
            assert found.shape == each.pixels.shape, each.name
            assert np.abs(found - each.pixels).mean() <= each.off, each.name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("decoding", ["full", "fast"])
def test_ingest_keeps_every_row_with_its_status(
    tmp_path: Path, awkward: list[Awkward], source: FileSource, decoding: str
) -> None:
    encoder = PixelEncoder(8, 8, decoding=decoding)
    report = ingest(source, encoder, tmp_path / "s", "train", class_names=["any"], dtype="float32", n_workers=3)
    split = open_store(tmp_path / "s").split("train")
    expected = [each.status for each in awkward]
    named = {
        source.key(i): (RowStatus(status), each.status)
        for i, (status, each) in enumerate(zip(split.status, awkward, strict=True))
    }
    assert {name: found for name, (found, wanted) in named.items() if found != wanted} == {}
    assert report.n_failed == sum(status != RowStatus.OK for status in expected)
    errors = split.errors(np.arange(len(awkward)))
    assert [error is None for error in errors] == [status == RowStatus.OK for status in expected]
    X = split.rows(normalize=False).read(0, expected.count(RowStatus.OK))
    readable = [each for each in awkward if each.pixels is not None]
    for row, each in zip(X, readable, strict=True):
        whole = PixelEncoder(8, 8).preprocess(Image.fromarray(each.pixels))
        assert np.abs(row * 255 - whole).mean() <= each.off + 1, each.name


def test_the_folder_names_what_it_leaves_out(root: Path, awkward: list[Awkward]) -> None:
    folder = FolderSource(root)
    assert (
        folder.n_ignored["not_a_file"] == 3
    )  # a loop, a dangling link and a pipe; an empty directory is entered
    without_suffix = [each.name for each in awkward if "." not in each.name]
    assert folder.n_ignored["suffix"] == len(without_suffix) == 9
    n_files = sum(each.data is not None for each in awkward)
    assert folder.n_samples == n_files - len(without_suffix)
