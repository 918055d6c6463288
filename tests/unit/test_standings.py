"""The table over seeds, by hand on a few rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltstore.metrics import evaluate_predictions
from ltstore.workflow.reproduction.standings import HeadRecord, markdown, standings

COUNTS = (200, 50, 5)
LABELS = np.repeat([0, 1, 2], 40)


def made(head: str, seed: int, right: tuple[int, int, int]) -> HeadRecord:
    """A record of a head that is right on the first rows of each class."""
    hit = np.concatenate([np.arange(40) < n for n in right])
    predictions = np.where(hit, LABELS, (LABELS + 1) % 3)
    evaluation = evaluate_predictions(
        LABELS,
        predictions,
        class_counts=COUNTS,
        class_names=["a", "b", "c"],
        confidence=np.full(len(LABELS), 0.5),
    )
    return HeadRecord(
        head=head,
        seed=seed,
        evaluation=evaluation,
        predictions=predictions,
        seconds=2.0 + seed,
        provenance={"created": "2026-01-01"},
    )


RECORDS = [
    made("la", 0, (32, 24, 16)),
    made("ce", 0, (40, 20, 0)),
    made("la", 1, (32, 24, 20)),
    made("ce", 1, (40, 20, 4)),
    made("all-rows", 0, (40, 40, 32)),
]


def test_means_gains_and_the_gap_are_over_seeds() -> None:
    table = {one.head: one for one in standings(RECORDS, LABELS)}
    assert list(table) == ["la", "ce", "all-rows"]
    la, ce, everything = table.values()
    assert la.seeds == (0, 1)
    few = la.accuracy["few"]
    assert few is not None
    assert few.value == pytest.approx((16 + 20) / 80)
    assert la.deviation["few"] == pytest.approx(np.std([0.4, 0.5], ddof=1))
    assert everything.deviation["few"] is None
    assert la.over_reference["few"] is None
    found = ce.over_reference["few"]
    assert found is not None
    assert found.value == pytest.approx((0 + 4) / 80 - 36 / 80)
    assert found.high < 0
    assert la.gap_closed is not None
    assert la.gap_closed.value == pytest.approx(((32 + 24 + 18) - 62) / (112 - 62))
    assert (la.seconds, la.worst) == (2.5, pytest.approx(few.value))
    no_ceiling = {one.head: one for one in standings(RECORDS[:4], LABELS)}
    assert no_ceiling["la"].gap_closed is None


def test_the_page_marks_what_is_significant() -> None:
    text = markdown(standings(RECORDS, LABELS))
    la, ce, everything = text.splitlines()[2:]
    assert la.startswith("| la | 2 | 61.7 ± ")
    assert "(7.1) |  |  |" in la
    assert "| -40.0 [" in ce
    assert "]* |" in ce
    assert everything.split(" | ")[-2] == "100"
    assert "(" not in everything


def test_a_record_comes_back_from_json() -> None:
    record = RECORDS[1]
    again = HeadRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert again.to_json() == record.to_json()
    np.testing.assert_array_equal(again.predictions, record.predictions)
    with pytest.raises(ValueError, match="unknown head 'forest'"):
        HeadRecord.from_json(record.to_json() | {"head": "forest"})
