"""The CSV file of classes: awkward names, classes without test rows."""

from __future__ import annotations

import csv
from pathlib import Path

from ltstore.metrics import evaluate_predictions
from ltstore.workflow.evaluation.class_table import write_class_table

NAMES = ["=1+1", "+x", "-x", "@x", "\tx", 'a,"b"', "été", "two\nlines"]


def test_names_come_back_and_none_is_a_formula(tmp_path: Path) -> None:
    labels = list(range(7))  # the last class has no test rows
    one = evaluate_predictions(labels, labels, class_counts=[1] * 8, class_names=NAMES, n_bootstrap=0)
    two = evaluate_predictions(labels, [0] * 7, class_counts=[1] * 8, class_names=NAMES, n_bootstrap=0)
    write_class_table(tmp_path / "c.csv", {"one": one, "two": two}, NAMES, "one")
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["class"] for row in rows] == [
        "'=1+1",
        "'+x",
        "'-x",
        "'@x",
        "'\tx",
        'a,"b"',
        "été",
        "two\nlines",
    ]
    assert [row["gain two"] for row in rows] == ["0.000000"] + ["-1.000000"] * 6 + [""]
    assert rows[7]["accuracy one"] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["c.csv"]
