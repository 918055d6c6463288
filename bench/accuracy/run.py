"""Records of the accuracy table: one JSON object per problem, seed and head."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.accuracy.heads import HEADS, Trained, Workbench, heads_of
from bench.accuracy.problems import Problem, problem
from bench.case import Size
from bench.records import latest_records
from ltstore.linear import predict_top
from ltstore.metrics import bootstrap_interval, count_groups, evaluate_predictions
from ltstore.rows import ArrayRows
from ltstore.types import BoolArray, DoubleArray, IntArray

Record = dict[str, Any]
Key = tuple[str, int, str, str]
REFERENCE = "la"
MEASURES = ("overall", "balanced", "many", "medium", "few")
_FIELDS = frozenset(
    {"problem", "seed", "size", "head", "overall", "correct", "test_counts", "class_counts", "seconds"}
)


def key(record: Record) -> Key:
    """Return (problem, seed, size, head), which a record stands for."""
    return record["problem"], record["seed"], record["size"], record["head"]


def read_records(paths: Iterable[Path]) -> dict[Key, Record]:
    """Return the records of files of JSON lines by key; of two with the same key the later one counts.

    Raises
    ------
    ValueError
        A line is no record of this table; names file and line.
    """

    def whole_key(record: Record) -> Key:
        if missing := _FIELDS - set(record):
            raise KeyError(*sorted(missing))
        return key(record)

    return latest_records(paths, whole_key, "the accuracy table")


def run_problem(
    name: str,
    seed: int,
    *,
    data: Path | None = None,
    size: Size = "full",
    heads: Sequence[str] = (),
    there: dict[Key, Record] | None = None,
) -> Iterator[Record]:
    """Train and judge the heads of a problem that have no record yet; yield their records.

    Parameters
    ----------
    name : str
    seed : int
    data : path, optional
        The folder with the data.
    size : {"toy", "full"}
    heads : sequence of str
        Only these; all if empty. "la" is made besides where it has no record, to compare with.
    there : dict of records by key
        What is there already.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        As `bench.accuracy.problems.problem`; or there is no head of that name.
    """
    if unknown := sorted(set(heads) - set(HEADS)):
        raise KeyError(f"no head {unknown[0]!r}; known: {', '.join(HEADS)}")
    known = dict(there or {})
    posed = problem(name, data, seed, size)
    wanted = [head for head in heads_of(posed) if not heads or head in (REFERENCE, *heads)]
    wanted = [head for head in wanted if (name, seed, size, head) not in known]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(posed, Path(folder))
        test = ArrayRows(
            posed.test.X, posed.test.y, class_names=bench.class_names, normalize=True, encoder=bench.encoder
        )
        reference = known.get((name, seed, size, REFERENCE))
        for head in wanted:
            record = _judged(posed, size, head, HEADS[head](bench), test, reference)
            reference = record if head == REFERENCE else reference
            yield record


def _judged(
    posed: Problem, size: Size, head: str, trained: Trained, test: ArrayRows, reference: Record | None
) -> Record:
    best = predict_top(trained.model, test)
    predictions, confidence = best.labels[:, 0], best.probabilities[:, 0]
    counts = posed.counts
    judged = evaluate_predictions(
        test.labels,
        predictions,
        class_counts=counts,
        class_names=test.class_names,
        confidence=np.minimum(confidence, 1.0),
    )
    assert judged.ece is not None
    record: Record = {
        "problem": posed.name,
        "seed": posed.seed,
        "size": size,
        "head": head,
        "encoder": posed.encoder,
        "rule": posed.rule,
        "ceiling": posed.ceiling,
        "n_train": int(counts.sum()),
        "imbalance": float(counts.max() / counts[counts > 0].min()),
        "settings": trained.settings,
        **{name: None if (found := getattr(judged, name)) is None else asdict(found) for name in MEASURES},
        "worst": asdict(judged.worst),
        "worst_tenth": judged.worst_tenth,
        "ece": judged.ece.value,
        "seconds": trained.seconds,
        "budget": trained.budget,
        "card": trained.card,
        "class_counts": counts.tolist(),
        "test_counts": judged.test_counts.tolist(),
        "correct": _packed(predictions == test.labels),
        "machine": machine.machine(),
        "load": machine.load(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "date": machine.today(),
    }
    over = None if reference is None or head == REFERENCE else gains([record], [reference])
    return {**record, "over_la": over}


def correct(record: Record) -> BoolArray:
    """Return (N,) bool: whether each test row, in order of its class, was predicted right."""
    bits = np.frombuffer(base64.b64decode(record["correct"]), np.uint8)
    return np.unpackbits(bits, count=sum(record["test_counts"])).astype(bool)


def gains(records: Sequence[Record], others: Sequence[Record]) -> dict[str, dict[str, float] | None]:
    """Return how much better records are than others on the same test rows, mean over pairs, by measure.

    Parameters
    ----------
    records, others : sequences of records of one problem, seed by seed

    Returns
    -------
    dict
        Of "overall", "balanced", "many", "medium", "few": value, low, high (95 %, rows resampled in pairs; the means
        over classes with the class sizes as they are), or None where a group is empty.
    """
    values: dict[str, list[DoubleArray]] = {name: [] for name in MEASURES}
    for one, other in zip(records, others, strict=True):
        if one["test_counts"] != other["test_counts"]:
            raise ValueError(f"records of {one['problem']} and {other['problem']} are of other test rows")
        difference = correct(one).astype(np.float64) - correct(other)
        for name, weights in _weights(one).items():
            if weights.any():
                values[name].append(weights * difference)
    found: dict[str, dict[str, float] | None] = dict.fromkeys(MEASURES)
    for name, columns in values.items():
        if columns:
            mean = np.mean(columns, axis=0)
            low, high = bootstrap_interval(mean)
            found[name] = {"value": float(mean.mean()), "low": low, "high": high}
    return found


def _weights(record: Record) -> dict[str, DoubleArray]:
    """Weights of the test rows whose mean of weight times value is each measure; zeros where a group is empty."""
    test_counts: IntArray = np.array(record["test_counts"], np.int64)
    labels = np.repeat(np.arange(len(test_counts)), test_counts)
    weights = {"overall": np.ones(len(labels))}
    groups = {"balanced": np.ones(len(test_counts), bool), **count_groups(record["class_counts"])}
    for name, members in groups.items():
        tested = members & (test_counts > 0)
        share = len(labels) / (max(int(tested.sum()), 1) * np.maximum(test_counts, 1))
        weights[name] = np.where(tested, share, 0.0)[labels]
    return weights


def _packed(right: BoolArray) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode()
