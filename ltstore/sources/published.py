"""The published long-tailed data sets: which files make them, where they come from, and how large they are.

File names, paths in the lists and numbers of rows were read from facebookresearch/classifier-balancing (data/, commit
22370c6) and visipedia/inat_comp (2018/README.md, commit 1509ec0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.errors import ConfigError, SourceNotFoundError
from ltstore.sources.cifar import is_cifar_directory
from ltstore.sources.listing import read_class_names

SPLITS = ("train", "test")
_LISTS = "the lists from https://github.com/facebookresearch/classifier-balancing/tree/main/data"


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """One data set as its authors give it out.

    Attributes
    ----------
    name : str
    n_train, n_test, n_classes : int
        Of the official files.
    layouts : tuple of (train, test)
        Names of the files in the user's directory; the first pair that is there counts. Images lie below the directory.
    class_names_file : str
        Beside the lists, if the user has it; "" where the files themselves name the classes.
    cut : bool
        Whether the set is balanced, and its tail is cut from it by rule and seed.
    download : str
        Where the files are, for a message.
    reference : str
    """

    name: str
    n_train: int
    n_test: int
    n_classes: int
    layouts: tuple[tuple[str, str], ...]
    class_names_file: str = ""
    cut: bool = False
    download: str
    reference: str

    def source(self, data: Path | str, split: str) -> dict[str, Any]:
        """Return what `ltstore.sources.open_source` is called with for a split.

        Raises
        ------
        SourceNotFoundError
            A file is not there: names it, and where to get it.
        SourceError
            The file of class names is malformed.
        """
        home = Path(data)
        names = home / self.class_names_file
        path = self._files(home)[SPLITS.index(split)]
        given: dict[str, Any] = {"spec": path, "split": split}
        if path.suffix in (".txt", ".json"):
            given["root"] = home
        if self.class_names_file and names.is_file():
            given["class_names"] = read_class_names(names)
        return given

    def _files(self, home: Path) -> tuple[Path, Path]:
        if self.cut and (home.is_file() or (home.is_dir() and is_cifar_directory(home))):
            return home, home
        for train, test in self.layouts:
            if (home / train).is_file() and (home / test).is_file():
                return home / train, home / test
        expected = ", or ".join(" and ".join(dict.fromkeys(pair)) for pair in self.layouts)
        raise SourceNotFoundError(f"{self.name} needs {expected} in {home}: {self.download}")


PUBLISHED: dict[str, PublishedSet] = {
    each.name: each
    for each in (
        PublishedSet(
            name="cifar100-lt",
            n_train=50_000,
            n_test=10_000,
            n_classes=100,
            layouts=(("cifar-100-python.tar.gz",) * 2, ("cifar-100-python.tar.xz",) * 2),
            cut=True,
            download="download the python version from https://www.cs.toronto.edu/~kriz/cifar.html; its unpacked "
            "directory cifar-100-python does as well",
            reference="Krizhevsky 2009; the cut: Cao et al. 2019, LDAM",
        ),
        PublishedSet(
            name="places-lt",
            n_train=62_500,
            n_test=36_500,
            n_classes=365,
            layouts=(("Places_LT_train.txt", "Places_LT_test.txt"),),
            class_names_file="Places_LT_classnames.txt",
            download=f"download {_LISTS}/Places_LT, and places365standard_easyformat.tar from "
            "http://places2.csail.mit.edu/download.html, so that train/airfield/ and val/airfield/ lie there",
            reference="Liu et al. 2019, OLTR",
        ),
        PublishedSet(
            name="imagenet-lt",
            n_train=115_846,
            n_test=50_000,
            n_classes=1000,
            layouts=(("ImageNet_LT_train.txt", "ImageNet_LT_test.txt"),),
            class_names_file="ImageNet_LT_classnames.txt",
            download=f"download {_LISTS}/ImageNet_LT, and the images of ILSVRC 2012 from https://image-net.org, so "
            "that train/n01440764/ and val/n01440764/ lie there (the official val is one folder: sort it into classes)",
            reference="Liu et al. 2019, OLTR",
        ),
        PublishedSet(
            name="inat2018",
            n_train=437_513,
            n_test=24_426,
            n_classes=8142,
            layouts=(
                ("train2018.json", "val2018.json"),
                ("iNaturalist18_train.txt", "iNaturalist18_val.txt"),
            ),
            download="download images and annotations from https://github.com/visipedia/inat_comp/tree/master/2018, so "
            "that train_val2018/Plantae/ lies there; the labels of its test split are not public, val judges",
            reference="Van Horn et al. 2018, iNaturalist",
        ),
    )
}
"""By name."""


def published_set(name: str) -> PublishedSet:
    """Return a data set by name.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"no published data set {name!r}; known: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
