"""The problems: which rows are trained on, and which ones judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.case import Size
from ltstore.rng import stream
from ltstore.sources.digits import DigitsSource
from ltstore.sources.longtail import exp_cut
from ltstore.types import FloatArray, IntArray

CIFAR_LARGEST = 500
DTD_IMBALANCE = 12.0
DIGITS_IMBALANCE = 50.0
_TOY_CLASSES, _TOY_FEATURES, _TOY_TEST = 12, 32, 10


@dataclass(frozen=True, kw_only=True)
class LabelledArrays:
    """Rows in memory.

    Attributes
    ----------
    X : (N, D) float32
    y : (N,) int64
    """

    X: FloatArray
    y: IntArray

    def select(self, positions: IntArray) -> LabelledArrays:
        """Return the rows at some positions; new."""
        return LabelledArrays(X=self.X[positions], y=self.y[positions])

    def by_class(self) -> LabelledArrays:
        """Return the rows in order of their class; new."""
        return self.select(np.argsort(self.y, kind="stable"))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Training rows with a long tail (or few of all), and test rows.

    Attributes
    ----------
    name : str
    seed : int
        Of the draw of the rows, of synthetic rows and of the backtest.
    encoder : str
    rule : str
        What the rows are, in words.
    n_classes : int
        C.
    train, test : LabelledArrays
        Test rows stand in order of their class.
    everything : LabelledArrays, optional
        All training rows there are, before a tail was cut: what a head could know.
    ceiling : float, optional
        Accuracy of plain cross entropy on the full balanced training set, where that was measured elsewhere.
    vectors : (C, D) float32, optional
        Text vectors of the classes.
    per_class : int, optional
        Synthetic rows of every class where the training rows are balanced; else classes are filled up to the largest.
    """

    name: str
    seed: int
    encoder: str
    rule: str
    n_classes: int
    train: LabelledArrays = field(repr=False)
    test: LabelledArrays = field(repr=False)
    everything: LabelledArrays | None = field(default=None, repr=False)
    ceiling: float | None = None
    vectors: FloatArray | None = field(default=None, repr=False)
    per_class: int | None = None

    @property
    def counts(self) -> IntArray:
        """(C,) int64 training rows of each class."""
        return np.bincount(self.train.y, minlength=self.n_classes).astype(np.int64)

    def shrunk(self) -> Problem:
        """Return a toy of it: a dozen classes, few features and test rows."""
        classes = np.unique(np.linspace(0, self.n_classes - 1, _TOY_CLASSES).astype(np.int64))
        step = -(-self.train.X.shape[1] // _TOY_FEATURES)

        def some(rows: LabelledArrays, most: int | None = None) -> LabelledArrays:
            chosen = [np.flatnonzero(rows.y == c)[:most] for c in classes]
            y = np.repeat(np.arange(len(classes)), [len(each) for each in chosen])
            positions = np.concatenate(chosen)
            return LabelledArrays(X=np.ascontiguousarray(rows.X[positions, ::step]), y=y)

        return replace(
            self,
            n_classes=len(classes),
            train=some(self.train),
            test=some(self.test, _TOY_TEST),
            everything=None if self.everything is None else some(self.everything),
            vectors=None if self.vectors is None else np.ascontiguousarray(self.vectors[classes, ::step]),
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a problem is made, and how often.

    Attributes
    ----------
    make : callable
        Of the folder with the data (None where none was given) and the seed.
    seeds : tuple of int
        Unless told otherwise.
    needs_data : bool
    """

    make: Callable[[Path | None, int], Problem]
    seeds: tuple[int, ...]
    needs_data: bool = True


def problem(name: str, data: Path | None, seed: int, size: Size = "full") -> Problem:
    """Return a problem by name.

    Raises
    ------
    KeyError
        There is none of that name.
    ValueError
        It needs a folder with data, or cannot be drawn with this seed.
    FileNotFoundError
        The folder lacks a file.
    """
    if name not in PROBLEMS:
        raise KeyError(f"no problem {name!r}; known: {', '.join(PROBLEMS)}")
    if PROBLEMS[name].needs_data and data is None:
        raise ValueError(f"problem {name} needs the folder with the data: give --data DIR")
    made = PROBLEMS[name].make(data, seed)
    return made.shrunk() if size == "toy" else made


def _cifar(data: Path | None, seed: int, *, imbalance: int) -> Problem:
    assert data is not None
    cut_file = data / "longtail" / f"cifar100_lt_if{imbalance}_seed0_ldam_order.npy"
    with np.load(data / "cifar100" / "mobilenetv2_embeddings_u8.npz") as file:
        scale = np.float32(file["scale"])
        y, index = file["train_y"].astype(np.int64), file["train_index"]
        pool = LabelledArrays(X=file["train_q"] * scale, y=y)
        test = LabelledArrays(X=file["test_q"] * scale, y=file["test_y"].astype(np.int64))
    if seed == 0:
        positions = np.searchsorted(index, np.sort(np.load(cut_file)))
        rule = "the published cut"
    else:
        if imbalance == 10:
            raise ValueError("only the rows of the imbalance-10 cut are at hand: it has no other seed than 0")
        sizes = [int(CIFAR_LARGEST * (1 / imbalance) ** (c / 99)) for c in range(100)]
        positions = _draw(y, sizes, seed)
        rule = "n_i = int(500 f^(i / 99)) rows drawn from the imbalance-10 cut"
    return Problem(
        name=f"cifar100-lt-if{imbalance}",
        seed=seed,
        encoder="MobileNetV2 1.0 224 (u8 rows)",
        rule=f"CIFAR-100, {rule}; the official 10,000 test images",
        n_classes=100,
        train=pool.select(positions),
        test=test.by_class(),
        everything=None if imbalance == 10 else pool,
        ceiling=0.673,
    )


def _caltech(data: Path | None, seed: int) -> Problem:
    found = _clip(data, "caltech101")
    return Problem(
        name="caltech101",
        seed=seed,
        encoder="CLIP ViT-B/32",
        rule="Caltech-101, the validation rows as they are, long-tailed by nature; its test rows",
        n_classes=100,
        train=found["val"],
        test=found["test"].by_class(),
    )


def _dtd(data: Path | None, seed: int) -> Problem:
    found = _clip(data, "dtd")
    pool = found["val"]
    return Problem(
        name="dtd-lt",
        seed=seed,
        encoder="CLIP ViT-B/32",
        rule="DTD, the validation rows cut exponentially from 24 to 2 a class, above seed 0 in an order of the classes "
        "drawn by the seed; its test rows",
        n_classes=47,
        train=pool.select(_tail(pool.y, DTD_IMBALANCE, seed)),
        test=found["test"].by_class(),
        everything=pool,
    )


def _imagenet(data: Path | None, seed: int) -> Problem:
    assert data is not None
    found = _clip(data, "imagenet")
    train = found["shots4"]
    judged = LabelledArrays(
        X=np.concatenate([found["shots2"].X, found["shots1"].X]),
        y=np.concatenate([found["shots2"].y, found["shots1"].y]),
    )
    first = {row.tobytes(): i for i, row in reversed(list(enumerate([*train.X, *judged.X])))}
    fresh = [i for i in range(len(judged.y)) if first[judged.X[i].tobytes()] == len(train.y) + i]
    with np.load(data / "clip_vitb32" / "imagenet_text.npz") as file:
        vectors = file["text2"].astype(np.float32)
    return Problem(
        name="imagenet-fewshot",
        seed=seed,
        encoder="CLIP ViT-B/32",
        rule=f"ImageNet, 4 rows of each class (balanced: no tail); {len(fresh)} other rows of the 2-shot and 1-shot "
        f"sets, {len(judged.y) - len(fresh)} duplicates left out",
        n_classes=1000,
        train=train,
        test=judged.select(np.array(fresh)).by_class(),
        vectors=vectors,
        per_class=16,
    )


def _digits(_: Path | None, seed: int) -> Problem:
    def rows(split: str) -> LabelledArrays:
        source = DigitsSource(split)
        X = np.stack([source.fetch(position) for position in range(len(source.labels))])
        return LabelledArrays(X=X.reshape(len(X), -1).astype(np.float32), y=np.asarray(source.labels))

    pool = rows("train")
    return Problem(
        name="digits",
        seed=seed,
        encoder="raw pixels",
        rule="scikit-learn's digits, the training rows of the source `digits` cut exponentially (imbalance 50), above "
        "seed 0 in an order of the classes drawn by the seed; its test rows",
        n_classes=10,
        train=pool.select(_tail(pool.y, DIGITS_IMBALANCE, seed)),
        test=rows("test").by_class(),
        everything=pool,
    )


def _clip(data: Path | None, name: str) -> dict[str, LabelledArrays]:
    assert data is not None
    with np.load(data / "clip_vitb32" / f"{name}.npz") as file:
        return {
            key[:-2]: LabelledArrays(X=file[key].astype(np.float32), y=file[f"{key[:-2]}_y"].astype(np.int64))
            for key in file.files
            if key.endswith("_x")
        }


def _draw(y: IntArray, sizes: list[int], seed: int) -> IntArray:
    """Positions, ascending, of `sizes[c]` rows of each class c."""
    drawn = [
        stream(seed, "bench.accuracy.rows", c).permutation(np.flatnonzero(y == c))[:size]
        for c, size in enumerate(sizes)
    ]
    return np.sort(np.concatenate(drawn))


def _tail(y: IntArray, imbalance: float, seed: int) -> IntArray:
    """Positions, ascending, of an exponential cut; above seed 0 classes fall in a drawn order."""
    n_classes = int(y.max()) + 1
    order = np.arange(n_classes)
    if seed:
        order = stream(seed, "bench.accuracy.order").permutation(n_classes)
    place = np.argsort(order)
    return np.sort(exp_cut(place[y], imbalance, n_classes=n_classes, seed=seed))


PROBLEMS: dict[str, Entry] = {
    "digits": Entry(make=_digits, seeds=(0, 1, 2), needs_data=False),
    "caltech101": Entry(make=_caltech, seeds=(0,)),
    "dtd-lt": Entry(make=_dtd, seeds=(0, 1, 2)),
    "imagenet-fewshot": Entry(make=_imagenet, seeds=(0,)),
    "cifar100-lt-if100": Entry(make=partial(_cifar, imbalance=100), seeds=(0, 1, 2, 3)),
    "cifar100-lt-if50": Entry(make=partial(_cifar, imbalance=50), seeds=(0, 1, 2, 3)),
    "cifar100-lt-if10": Entry(make=partial(_cifar, imbalance=10), seeds=(0,)),
}
"""By name, quickest first."""
