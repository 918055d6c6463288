"""A tree with one directory per class, as ImageFolder, Caltech-101 and most downloads have it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.sources.files import FileSource
from ltstore.sources.keys import key_of

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
)


class FolderSource(FileSource):
    """Images under ROOT/<class>/, at any depth; the class is the directory right below ROOT.

    Classes come sorted by the bytes of their names, images by the bytes of their paths: the order depends
    neither on the locale nor on the order of the directory. Hidden names, and files without an image suffix
    (any case), are left out and counted. Symbolic links are followed; a directory that a class has reached
    already (a loop, or a second link to it) is not entered again. A class directory without images keeps its
    class.

    Parameters
    ----------
    root : path

    Attributes
    ----------
    n_ignored : dict of str to int
        Left out: "hidden", "suffix" (no image suffix), "top_level" (images beside the class directories),
        "not_a_file" (broken links, pipes), "linked_twice" (directories reached before).

    Raises
    ------
    SourceNotFoundError
        There is no such directory.
    SourceError
        No class directories, no images, or a directory that cannot be listed.

    Notes
    -----
    Lists the tree once; about 5 us a file. `ltstore.sources.keys.key_of` says how names that do not print
    become keys.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        if not root.is_dir():
            raise SourceNotFoundError(f"no directory {root}: expected one with a sub-directory per class")
        self.n_ignored = dict.fromkeys(("hidden", "suffix", "top_level", "not_a_file", "linked_twice"), 0)
        classes = []
        for entry in listed(root):
            if entry.name.startswith("."):
                self.n_ignored["hidden"] += 1
            elif is_kind(entry, entry.is_dir):
                classes.append(entry.name)
            else:
                self.n_ignored["top_level" if is_image_name(entry.name) else "suffix"] += 1
        if not classes:
            loose = self.n_ignored["top_level"]
            found = f"{loose} images at its top level and no" if loose else "no images and no"
            raise SourceError(
                f"{root} holds {found} sub-directories: expected one directory per class ({root}/CLASS/*.jpg), "
                "or give a list file of `path label` lines"
            )
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found_here = walk_images(root, name, self.n_ignored)
            paths += found_here
            labels += [label] * len(found_here)
        if not paths:
            raise SourceError(
                f"no images under the {len(classes)} class directories of {root}: expected files ending in "
                + " ".join(sorted(SUFFIXES))
            )
        super().__init__(root, paths, labels, [key_of(name) for name in classes])


def walk_images(root: Path, below: str, n_ignored: dict[str, int]) -> list[str]:
    """Return the paths of the images under ``root / below``, relative to `root`, sorted by their bytes.

    What is left out is counted in `n_ignored`; a directory reached before (a link, a loop) is not entered again.

    Raises
    ------
    SourceError
        A directory cannot be listed.
    """
    found = []
    entered = set()
    pending = [below]
    while pending:
        current = pending.pop()
        try:
            where = (root / current).stat()
        except OSError as err:
            raise SourceError(f"cannot list {root / current}: {err.strerror or err}") from err
        if (where.st_dev, where.st_ino) in entered:
            n_ignored["linked_twice"] += 1
            continue
        entered.add((where.st_dev, where.st_ino))
        for entry in listed(root / current):
            path = os.path.normpath(f"{current}/{entry.name}")
            if entry.name.startswith("."):
                n_ignored["hidden"] += 1
            elif is_kind(entry, entry.is_dir):
                pending.append(path)
            elif not is_image_name(entry.name):
                n_ignored["suffix"] += 1
            elif not is_kind(entry, entry.is_file):
                n_ignored["not_a_file"] += 1
            else:
                found.append(path)
    return sorted(found, key=os.fsencode)


def listed(directory: Path) -> list[os.DirEntry[str]]:
    """Return what a directory holds, by the bytes of the names; SourceError where it cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as err:
        raise SourceError(f"cannot list {directory}: {err.strerror or err}") from err


def is_kind(entry: os.DirEntry[str], kind: Callable[[], bool]) -> bool:
    """Ask an entry for its kind (``entry.is_dir``); False for a link to itself, SourceError where it is not told."""
    try:
        return kind()
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENAMETOOLONG):  # a link to itself, or to an impossible name
            return False
        raise SourceError(f"cannot tell what {entry.path} is: {err.strerror or err}") from err


def is_image_name(name: str) -> bool:
    """Whether a file name ends in an image suffix, in any case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - ten times as fast
