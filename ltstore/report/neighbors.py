"""Who takes the rows of a class: its confusions, beside how similar the classes are. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltstore.metrics import confusion_pairs, count_groups
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


def reasons(data: ReportData, confused: Confused, names: Sequence[str]) -> list[str]:
    """Say in a few phrases why a class does badly: rows, neighbours, donors, or too few test rows to know.

    Parameters
    ----------
    names : sequence of str
        Class names as they are to be shown.
    """
    said = []
    n_train = int(data.class_counts[confused.class_id])
    if count_groups(data.class_counts)["few"][confused.class_id]:
        said.append("no training rows" if not n_train else f"only {_plural(n_train, 'training row')}")
    if confused.takers:
        first = confused.takers[0]
        taken = f"{first.n_rows} of its {confused.n_rows} test rows go to {names[first.class_id]}"
        if first.share >= 0.2:
            if first.rank is not None and first.rank <= NEAREST:
                taken += (
                    ", its nearest class"
                    if first.rank == 1
                    else f", number {first.rank} of its nearest classes"
                )
            n_taker = int(data.class_counts[first.class_id])
            if n_train and n_taker >= 5 * n_train:
                taken += f"; {names[first.class_id]} has {n_taker / n_train:.0f} times as many training rows"
            said.append(taken)
        elif confused.n_takers >= 4:
            said.append(f"its errors scatter over {confused.n_takers} classes")
    if data.baseline_model is not None:
        lost = data.baseline_model.evaluation.class_accuracy[confused.class_id] - confused.accuracy
        if lost >= 0.05:
            said.append(f"{100 * lost:.0f} points below the baseline")
    best = nearest_donor_similarity(data)
    if best is not None and np.isfinite(best[confused.class_id]):
        tail = best[~data.donors.head & np.isfinite(best)] if data.donors is not None else best[:0]
        if len(tail) >= 8 and best[confused.class_id] < np.quantile(tail, 0.25):
            said.append(f"no donor is close (best cosine {best[confused.class_id]:.2f})")
    if confused.n_rows < _FEW_TEST_ROWS:
        said.append(f"judged on {_plural(confused.n_rows, 'test row')} only")
    return said


def nearest_donor_similarity(data: ReportData) -> DoubleArray | None:
    """Return (C,) the cosine of each class's best donor, NaN where it has none; None without donors."""
    if data.donors is None or not data.donors.similarity.shape[1]:
        return None
    best: DoubleArray = data.donors.similarity[:, 0]
    return best


def _plural(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
