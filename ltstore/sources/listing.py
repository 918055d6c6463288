"""List files, `path label` a line: Places-LT, ImageNet-LT, iNaturalist and anything written like them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ltstore.errors import LabelError, SourceError, SourceNotFoundError
from ltstore.sources.files import FileSource
from ltstore.sources.keys import key_of
from ltstore.sources.labels import MOST_CLASSES, is_hardly_a_class
from ltstore.sources.lines import bounded_lines
from ltstore.types import UNLABELLED

_LONGEST_NUMBER = 30


class ListSource(FileSource):
    """Images named by a text file, one `path label` a line, in the order of the file.

    The line is cut at its last run of blanks, so paths may hold blanks. Empty lines are skipped. Keys are the
    paths as listed. Images are opened only when they are read: one that is not there is that row's MISSING.

    Parameters
    ----------
    path : path
        The list; UTF-8, other bytes in names survive.
    root : path, optional
        Where relative paths start; default the directory of the list.
    class_names : sequence of str, optional
        Name of each label; default "0", "1", ... up to the largest.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        No rows, a line without a label that is an integer from -1 to 2**24 - 1 (names the line), or, without
        class names, a label that is far beyond the number of rows and so hardly a class.
    LabelError
        A label has no name in `class_names`: names the line.
    """

    def __init__(
        self, path: str | Path, *, root: str | Path | None = None, class_names: Sequence[str] | None = None
    ) -> None:
        path = Path(path)
        paths: list[str] = []
        labels: list[int] = []
        n_classes = len(class_names) if class_names is not None else None
        for number, line in enumerate(_lines(path), 1):
            parts = line.rsplit(maxsplit=1)
            if not parts:
                continue
            label = _label(parts[1]) if len(parts) == 2 else None
            if label is None:
                raise SourceError(
                    f"{path}, line {number}: expected `path label` with an integer label, "
                    f"found {key_of(line.strip()[:120])!r}"
                )
            if label >= MOST_CLASSES:
                raise SourceError(
                    f"{path}, line {number}: label {label} is no class number, those are below 2**24: "
                    "is the last column something else?"
                )
            if n_classes is not None and label >= n_classes:
                raise LabelError(
                    f"{path}, line {number}: label {label} is outside the {n_classes} classes: "
                    "give the class names that this list was made for"
                )
            paths.append(parts[0].lstrip())
            labels.append(label)
        if not paths:
            raise SourceError(f"{path} lists no images: expected lines of `path label`")
        if class_names is None and is_hardly_a_class(max(labels), len(labels)):
            raise SourceError(
                f"{path}: label {max(labels)} ({key_of(paths[int(np.argmax(labels))])}) in a list of {len(labels)} "
                "rows is hardly a class number: give the class names where it is one"
            )
        names = class_names if class_names is not None else [str(i) for i in range(max(labels) + 1)]
        super().__init__(Path(root) if root is not None else path.parent, paths, labels, names)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Return the class names of a text file, one a line; line i names label i - 1.

    A line of the form `name name` (both halves equal, as in the published Places-LT file) counts as `name`.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        A line is empty, or a name comes twice.
    """
    names = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(_lines(Path(path)), 1):
        halves = line.split()
        name = halves[0] if len(halves) == 2 and halves[0] == halves[1] else line.strip()
        if not name:
            raise SourceError(f"{path}, line {number}: expected a class name, found an empty line")
        if name in first_line:
            raise SourceError(
                f"{path}, line {number}: class name {name!r} is on line {first_line[name]} already"
            )
        first_line[name] = number
        names.append(name)
    return tuple(names)


def looks_like_list(path: Path) -> bool:
    """Tell whether the first line of a file is text that ends in an integer.

    Raises
    ------
    SourceError
        The file cannot be read.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(4096)
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err
    if b"\0" in head:
        return False
    lines = [line for line in head.splitlines() if line.strip()]
    parts = os.fsdecode(lines[0]).rsplit(maxsplit=1) if lines else []
    return len(parts) == 2 and _label(parts[1]) is not None


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(bounded_lines(handle, path)):
                text = line if number else line.removeprefix(b"\xef\xbb\xbf")
                yield os.fsdecode(text.removesuffix(b"\n"))
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except OSError as err:
        if isinstance(err, SourceError):
            raise
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err


def _label(text: str) -> int | None:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        return None
    value = int(text)
    return value if value >= UNLABELLED else None
