"""From what a user types to a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError
from ltstore.sources.cifar import TAR_SUFFIXES, CifarSource, is_cifar_directory
from ltstore.sources.digits import DigitsSource
from ltstore.sources.folder import FolderSource, is_image_name
from ltstore.sources.images import ImagesSource
from ltstore.sources.listing import ListSource, looks_like_list
from ltstore.sources.views import SelectedSource, relabelled
from ltstore.types import ImageSource

FORMATS = ("auto", "digits", "folder", "cifar", "list", "images")
_SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})


def open_source(
    spec: str | Path,
    *,
    split: str = "train",
    format: str = "auto",  # noqa: A002 - the word on the command line
    root: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    indices: ArrayLike | None = None,
    limit: int | None = None,
    labelled: bool = True,
) -> ImageSource:
    """Open images by what they are.

    Parameters
    ----------
    spec : str or path
        The word "digits" (a directory of that name is "./digits"), or a path.
    split : str
        Which part of sources that have parts: digits and CIFAR ("train", "test"), and a directory whose
        only sub-directories are named train, val, valid, validation or test.
    format : str
        "digits", "folder" (one directory per class), "cifar" (directory or tar), "list" (`path label` lines),
        "images" (unlabelled: one file, or all under a directory), or "auto": a directory is cifar where it holds
        the pickles and folder otherwise; a file is cifar where it is named .tar, .tar.gz, .tgz, .tar.xz or
        .tar.bz2, and list where its first line ends in an integer.
    root : path, optional
        Where the relative paths of a list start; default the list's directory.
    class_names : sequence of str, optional
        The store's classes. Labels of digits, folder and cifar are mapped onto them by name; a list's integers
        are positions in them.
    indices : (n,) ints, optional
        Rows to take, in this order.
    limit : int, optional
        At most this many rows, after `indices`.
    labelled : bool
        Whether labels are wanted: without, "auto" takes a directory, or a file with an image suffix, as "images".

    Raises
    ------
    SourceNotFoundError
        Nothing at that path.
    SourceError
        No format fits, or the source is malformed.
    LabelError
        A class is not among `class_names`.
    ConfigError
        Unknown format or split, `root` without a list, an index out of range, a limit below 1.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown source format {format!r}: expected one of {', '.join(FORMATS)}")
    kind = _detected(spec, labelled) if format == "auto" else format
    if root is not None and kind != "list":
        raise ConfigError(f"root is for list files only, and {spec} is opened as {kind}")
    source: ImageSource
    if kind == "list":
        source = ListSource(spec, root=root, class_names=class_names)
    elif kind == "digits":
        source = DigitsSource(split)
    elif kind == "cifar":
        source = CifarSource(spec, split)
    elif kind == "images":
        source = ImagesSource(spec)
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
        return "folder" if labelled else "images"
    if not path.exists():
        raise SourceNotFoundError(
            f"no source {spec}: expected the word digits, or a path to class folders, CIFAR (directory or tar) "
            "or a list file"
        )
    if path.name.lower().endswith(TAR_SUFFIXES):
        return "cifar"
    if not labelled and is_image_name(path.name):
        return "images"
    if path.is_file() and looks_like_list(path):
        return "list"
    raise SourceError(
        f"cannot tell what {spec} is: it is no directory, not named {' '.join(TAR_SUFFIXES)}, and its first "
        f"line is not `path label`; say which with format: {', '.join(FORMATS[1:])}"
    )


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
