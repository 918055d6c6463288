"""Images without labels: one file, or all that lie under a directory. What a model is asked about."""

from __future__ import annotations

from pathlib import Path

from ltstore.errors import SourceError, SourceNotFoundError
from ltstore.sources.files import FileSource
from ltstore.sources.folder import SUFFIXES, walk_images
from ltstore.types import UNLABELLED


class ImagesSource(FileSource):
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
            root = path
            paths = walk_images(path, ".", dict.fromkeys(("hidden", "suffix", "not_a_file", "linked_twice"), 0))
            if not paths:
                raise SourceError(
                    f"no images under {path}: expected files ending in {' '.join(sorted(SUFFIXES))}"
                )
        elif path.exists():
            root, paths = path.parent, [path.name]
        else:
            raise SourceNotFoundError(f"no image or directory {path}")
        super().__init__(root, paths, [UNLABELLED] * len(paths), ())
