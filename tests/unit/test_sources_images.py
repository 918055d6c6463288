"""Unlabelled images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.sources import open_source


def test_images_at_any_depth_in_path_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/x.JPG", "a/.hidden.png", "a/notes.txt", "ü/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2), "red").save(tmp_path / name, format="PNG")
    source = open_source(tmp_path, labelled=False)
    assert [source.key(i) for i in range(source.n_samples)] == ["a/x.JPG", "b.png", "ü/z.png"]
    assert (source.labels == -1).all()
    assert source.read(2).size == (3, 2)
    assert open_source(tmp_path / "a" / "x.JPG", labelled=False).n_samples == 1


def test_nothing_to_see(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        open_source(tmp_path / "no.png", format="images")
    with pytest.raises(SourceError, match="no images under"):
        open_source(tmp_path, format="images")
