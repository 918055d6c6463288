"""Class by class, a CSV file that a spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltstore.atomic import write_bytes
from ltstore.metrics import Evaluation, count_groups
from ltstore.types import DoubleArray

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_class_table(
    path: Path | str, evaluations: Mapping[str, Evaluation], class_names: Sequence[str], baseline: str
) -> None:
    """Write training rows, group, test rows, accuracy and gain of every class.

    Columns: class_id, class, training_rows, group, test_rows, then "accuracy NAME" of every model, then "gain NAME"
    over the baseline of every other. Shares are in 0..1, empty where a class has no test rows. UTF-8, lines end in LF.

    Parameters
    ----------
    path : path
        Replaced if it is there; it is there whole or not at all.
    evaluations : mapping of model name to Evaluation
        Of the same rows.
    class_names : C strings
        Those that begin with = + - @, tab or CR, which a spreadsheet would compute, get an apostrophe before them.
    baseline : str
        One of the names.

    Raises
    ------
    StoreWriteError
    """
    first = evaluations[baseline]
    groups = count_groups(first.class_counts)
    accuracy = {f"accuracy {name}": one.class_accuracy for name, one in evaluations.items()}
    gain = {
        f"gain {name}": one.class_accuracy - first.class_accuracy
        for name, one in evaluations.items()
        if name != baseline
    }
    measured: dict[str, DoubleArray] = accuracy | gain
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class_id", "class", "training_rows", "group", "test_rows", *measured))
    for c, name in enumerate(class_names):
        shares = ("" if np.isnan(column[c]) else f"{column[c]:.6f}" for column in measured.values())
        group = next(group for group, members in groups.items() if members[c])
        writer.writerow((c, _harmless(name), first.class_counts[c], group, first.test_counts[c], *shares))
    write_bytes(Path(path), text.getvalue().encode())


def _harmless(name: str) -> str:
    """Keep a spreadsheet from taking a name for a formula (OWASP, "CSV Injection")."""
    return f"'{name}" if name.startswith(_FORMULA) else name
