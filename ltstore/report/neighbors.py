"""Who takes the rows of a class: its confusions, beside how similar the classes are. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltstore.metrics import Evaluation, confusion_pairs, count_groups
from ltstore.report.data import ReportData
from ltstore.types import UNLABELLED, BoolArray, DoubleArray, IntArray

NEAREST = 5
_MAX_RANKED_CLASSES = 2048  # all pairs of classes: 8,142 would take a quarter of a gigabyte
_FEW_TEST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Taker:
    """A class that another class's rows are predicted as.

    Attributes
    ----------
    class_id : int
    n_rows : int
        Rows it takes.
    share : float
        The same as a share of the other class's test rows.
    similarity : float or None
        Cosine between the two classes, None where it is not known.
    rank : int or None
        1 where it is the other class's nearest of all classes.
    """

    class_id: int
    n_rows: int
    share: float
    similarity: float | None
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class Confused:
    """A class, its accuracy and who takes its rows (most first; at most as many as asked for)."""

    class_id: int
    n_rows: int
    accuracy: float
    takers: tuple[Taker, ...]
    n_takers: int


class ClassSimilarity:
    """Cosines between classes, from class means or, without them, from donors.

    Parameters
    ----------
    data : ReportData
    """

    def __init__(self, data: ReportData) -> None:
        self._donors = data.donors
        self._rows: dict[int, DoubleArray] = {}
        self._unit: DoubleArray | None = None
        if data.class_means is not None:
            means = np.asarray(data.class_means, np.float64)
            norms = np.linalg.norm(means, axis=1, keepdims=True)
            self._unit = np.divide(means, norms, out=np.zeros_like(means), where=norms > 0)

    def between(self, class_id: int, other: int) -> tuple[float | None, int | None]:
        """Return (cosine, rank of `other` among the neighbours of `class_id`), None where not known."""
        if self._unit is not None:
            cosines = self._rows.get(class_id)
            if cosines is None:
                cosines = self._rows[class_id] = self._unit @ self._unit[class_id]
                cosines[class_id] = -np.inf
            return float(cosines[other]), int((cosines > cosines[other]).sum()) + 1
        if self._donors is not None:
            where = np.flatnonzero(self._donors.class_ids[class_id] == other)
            if len(where):
                return float(self._donors.similarity[class_id, where[0]]), None
        return None, None

    def nearest(self, k: int) -> IntArray | None:
        """Return (C, k) nearest classes of every class, None without means or with too many classes."""
        if self._unit is None or not k < len(self._unit) <= _MAX_RANKED_CLASSES:
            return None
        cosines = self._unit @ self._unit.T
        np.fill_diagonal(cosines, -np.inf)
        return np.argpartition(-cosines, k - 1, axis=1)[:, :k].astype(np.int64)


def confused_classes(
    data: ReportData, class_ids: Sequence[int], similarity: ClassSimilarity, n_takers: int = 3
) -> list[Confused]:
    """Return who takes the rows of each of `class_ids`, in that order; classes without test rows are left out."""
    if data.labels is None or data.predictions is None:
        return []
    true_ids, predicted_ids, counts = confusion_pairs(data.labels, data.predictions, data.n_classes)
    found = []
    for class_id in class_ids:
        mine = true_ids == class_id
        total = int(counts[mine].sum())
        if not total:
            continue
        wrong = mine & (predicted_ids != class_id)
        order = np.argsort(-counts[wrong], kind="stable")
        takers = []
        for other, n_rows in zip(predicted_ids[wrong][order][:n_takers], counts[wrong][order], strict=False):
            cosine, rank = similarity.between(class_id, int(other))
            takers.append(
                Taker(
                    class_id=int(other), n_rows=int(n_rows), share=n_rows / total, similarity=cosine, rank=rank
                )
            )
        found.append(
            Confused(
                class_id=class_id,
                n_rows=total,
                accuracy=float(1 - counts[wrong].sum() / total),
                takers=tuple(takers),
                n_takers=int(wrong.sum()),
            )
        )
    return found


def most_confused(data: ReportData, limit: int) -> list[int]:
    """Return the classes that lose the largest share of their test rows to one other class, worst first."""
    if data.labels is None or data.predictions is None:
        return []
    true_ids, predicted_ids, counts = confusion_pairs(data.labels, data.predictions, data.n_classes)
    rows = np.bincount(true_ids, counts, minlength=data.n_classes)
    wrong = true_ids != predicted_ids
    lost = np.zeros(data.n_classes)
    np.maximum.at(lost, true_ids[wrong], counts[wrong] / rows[true_ids[wrong]])
    order = np.lexsort((-rows, -lost))  # of equal shares, those that more test rows vouch for
    return [int(c) for c in order[:limit] if lost[c] > 0]


def errors_to_neighbors(data: ReportData, similarity: ClassSimilarity) -> dict[str, float]:
    """Return, by group, the share of wrong rows that went to one of the class's five nearest classes."""
    nearest = similarity.nearest(NEAREST)
    if nearest is None or data.labels is None or data.predictions is None:
        return {}
    wrong: BoolArray = (data.labels != UNLABELLED) & (data.labels != data.predictions)
    y, predicted = data.labels[wrong], data.predictions[wrong]
    near = (nearest[y] == predicted[:, None]).any(axis=1)
    shares = {"all": float(near.mean())} if len(near) else {}
    for name, mask in count_groups(data.class_counts).items():
        if mask[y].any():
            shares[name] = float(near[mask[y]].mean())
    return shares


def worst_classes(evaluation: Evaluation, limit: int) -> list[int]:
    """Return the classes with test rows that a model does worst on; of equals, the smallest first."""
    tested = np.flatnonzero(evaluation.test_counts > 0)
    order = np.lexsort((evaluation.class_counts[tested], evaluation.class_accuracy[tested]))
    return [int(c) for c in tested[order[:limit]]]


@dataclass(frozen=True, kw_only=True)
class Why:
    """What is known of why a class does badly.

    Attributes
    ----------
    few : bool
        It has fewer than 20 training rows.
    times : float or None
        Training rows of the class that takes most of its rows over its own, where that is 5 or more.
    scattered : bool
        No class takes a fifth of its rows, and four or more take some.
    far_donor : bool
        Its best donor is farther than those of three quarters of the tail.
    below : float
        Accuracy lost to the baseline, 0 where that is less than five points.
    doubtful : bool
        Fewer than 20 test rows tell of it.
    """

    few: bool
    times: float | None
    scattered: bool
    far_donor: bool
    below: float
    doubtful: bool


def why(data: ReportData, confused: Confused) -> Why:
    """Say why a class does badly: rows, neighbours, donors, or too few test rows to know."""
    class_id, takers = confused.class_id, confused.takers
    n_train = int(data.class_counts[class_id])
    times = data.class_counts[takers[0].class_id] / n_train if takers and n_train else 0.0
    below = 0.0
    if data.baseline_model is not None:
        below = float(data.baseline_model.evaluation.class_accuracy[class_id]) - confused.accuracy
    best, far = nearest_donor_similarity(data), False
    if best is not None and data.donors is not None and np.isfinite(best[class_id]):
        tail = best[~data.donors.head & np.isfinite(best)]
        far = len(tail) >= 8 and bool(best[class_id] < np.quantile(tail, 0.25))
    return Why(
        few=bool(count_groups(data.class_counts)["few"][class_id]),
        times=float(times) if times >= 5 else None,
        scattered=bool(takers) and takers[0].share < 0.2 and confused.n_takers >= 4,
        far_donor=far,
        below=below if below >= 0.05 else 0.0,
        doubtful=confused.n_rows < _FEW_TEST_ROWS,
    )


def nearest_donor_similarity(data: ReportData) -> DoubleArray | None:
    """Return (C,) the cosine of each class's best donor, NaN where it has none; None without donors."""
    if data.donors is None or not data.donors.similarity.shape[1]:
        return None
    best: DoubleArray = data.donors.similarity[:, 0]
    return best
