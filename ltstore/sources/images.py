"""Images without labels: one file, or all that lie under a directory. What a model is asked about."""

from __future__ import annotations

from pathlib import Path

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.sources.base import LabelledSource
from ltstore.sources.decode import read_file
from ltstore.sources.folder import SUFFIXES, walk_images
from ltstore.sources.keys import key_of
from ltstore.types import UNLABELLED


class ImagesSource(LabelledSource):
    """One image file, or the images at any depth of a directory, sorted by path; all unlabelled.

    Parameters
    ----------
    path : path
        A file is taken whatever its name; in a directory, hidden names and other suffixes are left out.

    Raises
    ------
    SourceNotFoundError
        Nothing at that path.
    SourceError
        The directory holds no image.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if path.is_dir():
            self._root = path
            self._paths = walk_images(
                path, ".", dict.fromkeys(("hidden", "suffix", "not_a_file", "linked_twice"), 0)
            )
            if not self._paths:
                raise SourceError(
                    f"no images under {path}: expected files ending in {' '.join(sorted(SUFFIXES))}"
                )
        elif path.exists():
            self._root, self._paths = path.parent, [path.name]
        else:
            raise SourceNotFoundError(f"no image or directory {path}")
        super().__init__([key_of(name) for name in self._paths], [UNLABELLED] * len(self._paths), ())

    def fetch(self, position: int) -> bytes:
        """Return the file's bytes."""
        return read_file(self._root / self._paths[position], self._keys[position])
