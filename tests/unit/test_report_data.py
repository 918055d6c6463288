"""Data of a report must agree with itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from support.reports import full_report


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"models": []}, "at least one model"),
        ({"chosen": "best"}, "chosen model 'best' is not among"),
        ({"baseline": "worst"}, "baseline model 'worst' is not among"),
    ],
)
def test_models_must_be_there(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        full_report(**changes)


def test_two_models_of_one_name_are_refused() -> None:
    model = full_report().models[0]
    with pytest.raises(ConfigError, match="another name"):
        full_report(models=[model, model], chosen=model.name)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"class_counts": np.ones(5, np.int64)},
            "class_counts must have one entry for each of 6 classes, found 5",
        ),
        ({"synthetic_counts": np.ones(7, np.int64)}, "synthetic_counts"),
        ({"class_means": np.ones((2, 8))}, "class_means"),
        ({"predictions": np.zeros(3, np.int64)}, "predictions must be of the same rows"),
        ({"labels": None}, "found 360 and 0"),
    ],
)
def test_lengths_must_agree(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        full_report(**changes)


def test_a_map_of_other_classes_is_refused() -> None:
    rows = full_report().row_maps[5]
    with pytest.raises(DataError, match="the map of class 5 has class 15"):
        full_report(row_maps={5: replace(rows, class_ids=rows.class_ids + 10)})


def test_the_last_model_is_chosen_unless_told_and_no_model_is_its_own_baseline() -> None:
    assert full_report(chosen="").chosen_model.name == "with synthesis"
    assert full_report(chosen="plain", baseline="plain").baseline_model is None
    assert full_report(baseline=None).baseline_model is None
