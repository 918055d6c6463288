"""JSON of images, annotations and categories, as iNaturalist and COCO publish them: one category an image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltstore.errors import LabelError, SourceError, SourceNotFoundError
from ltstore.sources.files import FileSource
from ltstore.sources.keys import key_of
from ltstore.types import UNLABELLED


class AnnotationSource(FileSource):
    """Images named by a JSON file, in the order of its ``images``; an image without annotation is unlabelled.

    Classes are the ``categories`` by ascending id, named by their ``name``, or by their id where names are missing or
    come twice. Without categories, the ids that annotations use are the classes.

    Parameters
    ----------
    path : path
    root : path, optional
        Where the ``file_name`` of the images start; default the directory of the JSON file.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        It is not of this form: names the entry.
    LabelError
        An image has annotations of several categories, or one that is not listed.

    Notes
    -----
    Memory while it opens: the whole JSON, about 1 kB an image (iNaturalist 2018: 0.5 GB).
    """

    def __init__(self, path: str | Path, *, root: str | Path | None = None) -> None:
        path = Path(path)
        listed = _read(path)
        images = _entries(listed, "images", ("id", "file_name"), path)
        annotations = _entries(listed, "annotations", ("image_id", "category_id"), path)
        categories = _entries(listed, "categories", ("id",), path)
        if not images:
            raise SourceError(
                f"{path} lists no images: expected an object with images, annotations and categories"
            )
        ids = sorted({_number(entry["id"], path) for entry in categories}) or sorted(
            {_number(entry["category_id"], path) for entry in annotations}
        )
        position = {number: i for i, number in enumerate(ids)}
        category_of: dict[Any, int] = {}
        for entry in annotations:
            image, category = entry["image_id"], _number(entry["category_id"], path)
            if category not in position:
                raise LabelError(f"{path}: category {category} of image {image!r} is not among its categories")
            if category_of.setdefault(image, category) != category:
                raise LabelError(f"{path}: image {image!r} is of several categories, expected one")
        if strangers := category_of.keys() - {entry["id"] for entry in images}:
            some = next(image for image in category_of if image in strangers)
            raise LabelError(
                f"{path}: {len(strangers)} annotations are of images that it does not list: {some!r}"
            )
        paths = []
        for entry in images:
            name = entry["file_name"]
            if not isinstance(name, str) or not name or not _is_text(name):
                raise SourceError(f"{path}: file_name of image {entry['id']!r} is no path: {str(name)[:80]!r}")
            paths.append(name)
        position_of = {image: position[category] for image, category in category_of.items()}
        labels = [position_of.get(entry["id"], UNLABELLED) for entry in images]
        names = {entry["id"]: entry.get("name") for entry in categories}
        found = [names.get(number) for number in ids]
        if all(isinstance(name, str) and name and _is_text(name) for name in found) and len(set(found)) == len(
            ids
        ):
            class_names = [key_of(str(name)) for name in found]
        else:
            class_names = list(map(str, ids))
        super().__init__(Path(root) if root is not None else path.parent, paths, labels, class_names)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        listed = json.loads(path.read_bytes())
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err
    except (ValueError, RecursionError) as err:
        raise SourceError(f"{path} is no JSON: {err}") from err
    if not isinstance(listed, dict):
        raise SourceError(f"{path} must hold an object with images, annotations and categories")
    return listed


def _entries(listed: Mapping[str, Any], name: str, fields: Sequence[str], path: Path) -> list[dict[str, Any]]:
    entries = listed.get(name, [])
    if not isinstance(entries, list):
        raise SourceError(f"{path}: {name} must be a list, found {type(entries).__name__}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), (int, str)) for key in fields):
            raise SourceError(
                f"{path}: entry {i} of {name} must have {' and '.join(fields)}: {str(entry)[:80]!r}"
            )
    return entries


def _number(value: Any, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SourceError(f"{path}: category ids must be whole numbers, found {str(value)[:80]!r}")
    return value


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold it: JSON may hold halves of surrogate pairs."""
    return name.encode("utf-8", "replace").decode() == name
