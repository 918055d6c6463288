"""The drawings made by hand: maps of rows, and who lends to whom."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ltstore.report import RowMap, render_report
from ltstore.report.borrowing import MAX_CLASSES, MAX_DRAWN, MAX_LINES, donors_section
from ltstore.report.maps import SIZE, map_section
from ltstore.types import Donors
from support.reports import COUNTS, NAMES, full_html, full_report
from support.words import section_text


def test_a_map_draws_every_row_inside_and_says_who_is_who() -> None:
    data = full_report()
    first, _ = map_section(data)
    rows = data.row_maps[4]
    assert first["class_id"] == 4
    assert len(first["real"]) == (~rows.synthetic & (rows.class_ids == 4)).sum()
    assert len(first["made"]) == rows.synthetic.sum()
    assert data.labels is not None
    for other in first["others"]:
        assert other["path"].count("h0") == (~rows.synthetic & (rows.class_ids == other["class_id"])).sum()
        assert other["n_taken"] == ((data.labels == 4) & (data.predictions == other["class_id"])).sum()
        assert other["lends"]  # yew borrows from elm and oak
    drawn = np.array([*first["real"], *first["made"]])
    dots = re.findall(r"M([\d.]+) ([\d.]+)h0", "".join(other["path"] for other in first["others"]))
    drawn = np.vstack([drawn, np.array(dots, float)])
    np.testing.assert_allclose(drawn.min(axis=0), 14)
    np.testing.assert_allclose(drawn.max(axis=0), np.array(SIZE) - 14)
    assert "takes" in section_text(full_html(), "maps")


def test_up_is_up_and_rows_in_one_place_are_in_the_middle() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    rows = RowMap(
        points=points, class_ids=np.array([4, 4, 0]), synthetic=np.zeros(3, bool), method="any", n_rows=3
    )
    ((low, high),) = [one["real"] for one in map_section(full_report(row_maps={4: rows}))]
    assert low[0] < high[0]
    assert low[1] > high[1]  # y grows downwards in SVG
    same = RowMap(points=0 * points, class_ids=rows.class_ids, synthetic=rows.synthetic, method="any", n_rows=3)
    (one,) = map_section(full_report(row_maps={4: same}))
    assert one["real"][0] == [SIZE[0] / 2, SIZE[1] / 2]


def test_the_picker_needs_no_script_and_shows_one_map_at_a_time() -> None:
    html = full_html()
    assert html.count('type="radio"') == 2
    assert re.findall(r'id="map-(\d)" checked', html) == ["4"]
    for c in (4, 5):
        assert f"#maps:has(#map-{c}:checked) #rows-{c} {{ display: block; }}" in html


def test_a_line_for_each_loan_and_a_count_for_each_donor() -> None:
    data = full_report()
    found = donors_section(data)
    assert found is not None
    graph = found["graph"]
    assert [c for c, _ in graph["borrowers"]] == [5, 4, 3, 2]  # the smallest first
    assert len(graph["lines"]) == 8
    assert {c: n for c, _, n in graph["lenders"]} == {0: 4, 1: 4}
    assert sum(line["weight"] for line in graph["lines"]) == pytest.approx(4)
    assert found["rows"][0]["donors"] == [(1, 0.5, 0.5), (0, 0.5, 0.5)]


def test_of_many_classes_the_smallest_are_drawn_and_all_are_counted() -> None:
    n_classes, k = 60, 5
    counts = np.arange(n_classes, 0, -1)
    ids = np.tile(np.arange(k), (n_classes, 1))
    weights = np.tile(np.arange(k, 0, -1) / 15, (n_classes, 1))
    head = np.arange(n_classes) < k
    weights[head] = 0
    donors = Donors(class_ids=ids, weights=weights, similarity=weights, head=head)

    class Data:
        class_counts = counts

    Data.donors = donors  # type: ignore[attr-defined]
    found = donors_section(Data)  # type: ignore[arg-type]
    assert found is not None
    assert found["total"] == n_classes - k
    assert len(found["rows"]) == MAX_CLASSES
    graph = found["graph"]
    assert len(graph["borrowers"]) == MAX_DRAWN
    assert len(graph["lines"]) == MAX_DRAWN * MAX_LINES
    assert {n for _, _, n in graph["lenders"]} == {n_classes - k}
    assert graph["borrowers"][0][0] == n_classes - 1


def test_nobody_borrows_nothing_is_drawn() -> None:
    alone = Donors(
        class_ids=np.full((6, 2), -1),
        weights=np.zeros((6, 2)),
        similarity=np.full((6, 2), np.nan),
        head=COUNTS > 100,
    )
    assert donors_section(full_report(donors=alone)) is None
    assert donors_section(full_report(donors=None)) is None
    assert NAMES[0] in render_report(full_report(donors=alone))
