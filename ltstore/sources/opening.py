"""From what a user types to a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError
from ltstore.sources.annotations import AnnotationSource
from ltstore.sources.cifar import TAR_SUFFIXES, CifarSource, is_cifar_directory, is_cifar_tar
from ltstore.sources.digits import DigitsSource
from ltstore.sources.folder import FolderSource, is_image_name, is_kind, listed
from ltstore.sources.images import ImagesSource
from ltstore.sources.listing import ListSource, looks_like_list
from ltstore.sources.manifest import TABLE_SUFFIXES, ManifestSource
from ltstore.sources.parquet import ParquetSource, holds_images
from ltstore.sources.parquet_file import PARQUET_SUFFIXES
from ltstore.sources.patterns import is_pattern
from ltstore.sources.tars import TarSource
from ltstore.sources.views import SelectedSource, relabelled
from ltstore.types import ImageSource, Progress, no_progress

FORMATS = ("auto", "digits", "folder", "cifar", "list", "images", "tar", "parquet", "manifest", "coco")
_SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})
_TAKEN_BY = {
    "root": ("list", "manifest", "coco"),
    "path_column": ("manifest", "parquet"),
    "label_column": ("manifest", "parquet", "tar"),
}


def open_source(
    spec: str | Path,
    *,
    split: str = "train",
    format: str = "auto",  # noqa: A002 - the word on the command line
    root: str | Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    indices: ArrayLike | None = None,
    limit: int | None = None,
    labelled: bool = True,
    cache: str | Path | None = None,
    progress: Progress = no_progress,
) -> ImageSource:
    """Open images by what they are.

    Parameters
    ----------
    spec : str or path
        The word "digits" (a directory of that name is "./digits"), or a path. Tars and Parquet files also as a
        wildcard, or braces: ``shards/{00000..00099}.tar``.
    split : str
        Which part of sources that have parts: digits and CIFAR ("train", "test"); a directory whose only
        sub-directories are named train, val, valid, validation or test; Parquet files whose names begin so.
    format : str
        "digits", "folder" (one directory per class), "cifar" (directory or tar), "list" (`path label` lines),
        "images" (unlabelled: one file, or all under a directory), "tar" (samples as WebDataset has them), "parquet"
        (files that hold the images), "manifest" (CSV, TSV or Parquet with a column of paths), "coco" (JSON of images,
        annotations and categories, as iNaturalist has it), or "auto": by suffix and content.
    root : path, optional
        Where the relative paths of a list, manifest or coco file start; default its directory.
    path_column, label_column : str, optional
        Column of a manifest or Parquet file; `label_column` also the field of a tar's samples ("cls", "txt", or one of
        their JSON). Default: usual names.
    class_names : sequence of str, optional
        The store's classes. Labels that are names are mapped onto them; bare integers are positions in them.
    indices : (n,) ints, optional
        Rows to take, in this order.
    limit : int, optional
        At most this many rows, after `indices`.
    labelled : bool
        Whether labels are wanted: without, "auto" takes a directory, or a file with an image suffix, as "images".
    cache : path, optional
        Directory that keeps what was found in tars, so that opening them again is quick.
    progress : callable
        Called with 1 after every tar or Parquet file that was looked through.

    Raises
    ------
    SourceNotFoundError
        Nothing at that path.
    SourceError
        No format fits, or the source is malformed.
    LabelError
        A class is not among `class_names`.
    ConfigError
        Unknown format or split, an option that the format does not have, an index out of range, a limit below 1.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown source format {format!r}: expected one of {', '.join(FORMATS)}")
    kind = _detected(spec, labelled) if format == "auto" else format
    given = {"root": root, "path_column": path_column, "label_column": label_column}
    for name, value in given.items():
        if value is not None and kind not in _TAKEN_BY[name]:
            raise ConfigError(
                f"{name} is for {', '.join(_TAKEN_BY[name])} only, and {spec} is opened as {kind}"
            )
    source: ImageSource
    if kind == "list":
        source = ListSource(spec, root=root, class_names=class_names)
    elif kind == "digits":
        source = DigitsSource(split)
    elif kind == "cifar":
        source = CifarSource(spec, split)
    elif kind == "images":
        source = ImagesSource(spec)
    elif kind == "tar":
        source = TarSource(
            _split_directory(Path(spec), split),
            label_field=label_column,
            class_names=class_names,
            cache=cache,
            progress=progress,
        )
    elif kind == "parquet":
        source = ParquetSource(
            _split_directory(Path(spec), split),
            split=split,
            image_column=path_column,
            label_column=label_column,
            class_names=class_names,
            progress=progress,
        )
    elif kind == "manifest":
        source = ManifestSource(
            spec, root=root, path_column=path_column, label_column=label_column, class_names=class_names
        )
    elif kind == "coco":
        source = AnnotationSource(spec, root=root)
    else:
        source = FolderSource(_split_directory(Path(spec), split))
    if indices is not None:
        source = SelectedSource(source, indices)
    if limit is not None:
        if limit < 1:
            raise ConfigError(f"limit must be at least 1, found {limit}")
        if limit < source.n_samples:
            source = SelectedSource(source, np.arange(limit))
    return source if class_names is None else relabelled(source, class_names)


def _detected(spec: str | Path, labelled: bool) -> str:
    if str(spec) == "digits":
        return "digits"
    path = Path(spec)
    if path.is_dir():
        if is_cifar_directory(path):
            return "cifar"
        return _files_of(path) or ("folder" if labelled else "images")
    if is_pattern(spec):
        kind = _by_suffix(path.name)
        if kind in ("tar", "parquet"):
            return kind
        raise SourceError(
            f"a pattern stands for tars or Parquet files: {spec} ends in neither .tar nor .parquet"
        )
    if not path.exists():
        raise SourceNotFoundError(
            f"no source {spec}: expected the word digits, or a path to class folders, tars, Parquet files, CIFAR "
            "(directory or tar), a list or a manifest"
        )
    if path.name.lower().endswith(TAR_SUFFIXES):
        return "tar" if _by_suffix(path.name) == "tar" and not is_cifar_tar(path) else "cifar"
    if not labelled and is_image_name(path.name):
        return "images"
    if kind := _by_suffix(path.name):
        return "manifest" if kind == "parquet" and not holds_images(path) else kind
    if path.is_file() and looks_like_list(path):
        return "list"
    raise SourceError(
        f"cannot tell what {spec} is: it is no directory, not named {' '.join((*_KINDS, *TAR_SUFFIXES[1:]))}, and "
        f"its first line is not `path label`; say which with format: {', '.join(FORMATS[1:])}"
    )


_KINDS = {
    ".tar": "tar",
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
    **dict.fromkeys(TABLE_SUFFIXES, "manifest"),
    ".json": "coco",
}


def _by_suffix(name: str) -> str | None:
    return _KINDS.get(Path(name).suffix.lower())


def _files_of(path: Path) -> str | None:
    """Return "tar" or "parquet" where a directory, or one of its splits, holds such files and no images or classes.

    Stores, and what is kept beside them, may lie there too.
    """
    entries = [entry for entry in listed(path) if not entry.name.startswith(".")]
    entries = [entry for entry in entries if not entry.name.endswith((".zarr", ".zarr.tars"))]
    kinds = {_by_suffix(entry.name) for entry in entries}
    if any(is_image_name(entry.name) for entry in entries):
        return None
    inner = [entry for entry in entries if is_kind(entry, entry.is_dir)]
    if inner:
        of_splits = len(inner) == len(entries) and {entry.name for entry in inner} <= _SPLIT_NAMES
        return _files_of(Path(inner[0].path)) if of_splits else None
    return next((kind for kind in ("tar", "parquet") if kind in kinds), None)


def _split_directory(path: Path, split: str) -> Path:
    if not path.is_dir():
        return path
    names = {entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if not names or not names <= _SPLIT_NAMES:
        return path
    if split not in names:
        raise SourceError(
            f"{path} holds the splits {', '.join(sorted(names))} and no {split!r}: name one of them"
        )
    return path / split
