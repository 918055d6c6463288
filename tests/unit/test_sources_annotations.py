"""JSON of images, annotations and categories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltstore.errors import LtstoreError, SourceNotFoundError
from ltstore.sources import AnnotationSource, open_source
from support.images import encoded, picture

IMAGES = [
    {"id": 10, "file_name": "train/Aves/1/x.jpg"},
    {"id": 11, "file_name": "y.jpg"},
    {"id": 9, "file_name": "z.jpg"},
]
OF_IMAGES = [{"image_id": 9, "category_id": 7}, {"image_id": 10, "category_id": 3}]


def write(path: Path, **lists: Any) -> Path:
    path.write_text(json.dumps({"images": IMAGES, "annotations": OF_IMAGES, **lists}))
    return path


@pytest.mark.parametrize(
    ("categories", "names", "labels"),
    [
        (
            [{"id": 7, "name": "owl"}, {"id": 3, "name": "newt"}, {"id": 4, "name": "elk"}],
            "newt elk owl",
            [0, -1, 2],
        ),
        ([{"id": 7, "name": "owl"}, {"id": 3, "name": "owl"}], "3 7", [0, -1, 1]),
        ([{"id": 7}, {"id": 3}], "3 7", [0, -1, 1]),
        ([], "3 7", [0, -1, 1]),
    ],
)
def test_categories_by_id(tmp_path: Path, categories: list[Any], names: str, labels: list[int]) -> None:
    (tmp_path / "data" / "train" / "Aves" / "1").mkdir(parents=True)
    (tmp_path / "data" / "train" / "Aves" / "1" / "x.jpg").write_bytes(encoded(picture()))
    source = open_source(write(tmp_path / "i.json", categories=categories), root=tmp_path / "data")
    assert isinstance(source, AnnotationSource)
    assert [source.key(i) for i in range(3)] == ["train/Aves/1/x.jpg", "y.jpg", "z.jpg"]
    assert source.class_names == tuple(names.split())
    assert source.labels.tolist() == labels
    assert source.read(0).size == (24, 16)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": []}, "lists no images"),
        ({"images": {}}, "images must be a list, found dict"),
        ({"images": [{"id": 1}]}, "entry 0 of images must have id and file_name"),
        (
            {"images": [{"id": 9, "file_name": ""}, {"id": 10, "file_name": "x"}]},
            "file_name of image 9 is no path",
        ),
        ({"images": [{"id": 9, "file_name": "\ud800"}, *IMAGES[:1]]}, "file_name of image 9 is no path"),
        ({"categories": [{"id": 3}]}, "category 7 of image 9 is not among its categories"),
        ({"categories": [{"id": "a"}]}, "category ids must be whole numbers, found 'a'"),
        ({"annotations": [*OF_IMAGES, {"image_id": 9, "category_id": 3}]}, "image 9 is of several categories"),
        (
            {"annotations": [{"image_id": 99, "category_id": 3}]},
            "1 annotations are of images that it does not list",
        ),
        ({"annotations": [7]}, "entry 0 of annotations must have image_id and category_id"),
    ],
)
def test_what_is_not_of_this_form_is_one_line(tmp_path: Path, lists: dict[str, Any], message: str) -> None:
    with pytest.raises(LtstoreError, match=message) as caught:
        AnnotationSource(write(tmp_path / "i.json", **lists))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"[" * 100_000, b'{"images": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "i.json").write_bytes(content)
    with pytest.raises(LtstoreError, match=r"i.json (is no JSON|must hold an object)"):
        AnnotationSource(tmp_path / "i.json")
    with pytest.raises(SourceNotFoundError):
        AnnotationSource(tmp_path / "absent.json")
