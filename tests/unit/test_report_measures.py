"""The sections on the quality of synthetic rows and on the backtest say what is in the data, and cap what is long."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.quality import ClassTable
from ltstore.report import measures, plots, render_report
from support.reports import COUNTS, N_CLASSES, full_html, full_report, made_card, made_quality
from support.words import section_text


def test_the_table_gives_means_over_the_classes_of_a_group_beside_real_rows() -> None:
    found = measures.quality_section(full_report())
    assert found is not None
    lines = {line["name"]: line["cells"] for table in found["tables"] for line in table["rows"]}
    np.testing.assert_allclose(lines["purity"], [(0.8, 0.4), (0.5, 0.25), (0.2, 0.1), (0.5, 0.25)])
    assert lines["precision"] == [(None, None), (0.5, 1.0), (0.25, 0.5), (0.375, 0.75)]
    assert all(line["meaning"] for table in found["tables"] for line in table["rows"])


def test_the_text_says_what_was_looked_at() -> None:
    text = section_text(full_html(), "quality")
    assert "200 of 3,000 synthetic rows were looked at" in text
    assert "2 large classes are cut down" in text
    assert "(1 more have too few)" in text
    assert "Not measured against" not in text


def test_without_held_out_rows_the_reason_is_said() -> None:
    text = section_text(
        render_report(full_report(quality=made_quality(held_out=None, reason="no <tail>"))), "quality"
    )
    assert "Not measured against held-out rows: no &lt;tail&gt;" in text
    assert "Against held-out rows:" not in text


def test_intruders_are_those_beyond_their_real_rows() -> None:
    found = measures.quality_section(full_report())
    assert found is not None
    assert [(each["class_id"], each["on"]) for each in found["intruders"]] == [(4, 2), (3, 1), (2, 0), (1, 0)]
    assert "Classes whose synthetic rows" in section_text(full_html(), "quality")


def test_nothing_measured_shows_nothing() -> None:
    empty = ClassTable(counts=COUNTS, n_rows=np.zeros(N_CLASSES, np.int64), values={}, real={})
    data = full_report(quality=made_quality(made=empty, held_out=None))
    assert measures.quality_section(data) is None
    assert measures.quality_section(full_report(quality=None)) is None
    assert measures.backtest_section(full_report(card=None)) is None
    assert 'id="quality"' not in render_report(data)


def test_quality_of_other_classes_is_refused() -> None:
    with pytest.raises(DataError, match="quality must have one entry for each of 6 classes, found 5"):
        full_report(quality=made_quality(intruded=np.zeros(5, np.int64)))


@pytest.mark.parametrize("chosen", [0, 1, 25])
def test_long_lists_are_capped_and_keep_the_chosen_and_the_reference(chosen: int) -> None:
    data = full_report(card=made_card(40, chosen))
    found = measures.backtest_section(data)
    assert found is not None
    assert found["n_shown"] == measures.MAX_CANDIDATES
    html = render_report(data)
    drawn = set(re.findall(r"<text[^>]*>([^<]*)</text>", html))
    assert {data.card.choice.candidate.name, "la"} <= drawn
    assert "16 are shown" in section_text(html, "backtest")
    assert "are shown" not in section_text(full_html(), "backtest")


def test_the_backtest_is_told_in_words() -> None:
    text = section_text(full_html(), "backtest")
    assert "Chosen: gda, lean 0.125, the best tail among 3 whose scores cannot be told apart." in text
    assert "Foreseen gain over la: +3.0 points (95 % interval +2.5 to +3.5)" in text
    assert "3 of 5 candidates cannot be told from the best" in text
    assert "This model is what was chosen" in section_text(
        render_report(full_report(card_used=True)), "backtest"
    )


def test_ratios_are_of_real_rows_and_kept_inside_the_plot() -> None:
    """A measure forty times that of real rows is at the edge; what real rows have none of is not drawn."""
    values = {"a": np.full(N_CLASSES, 40.0), "b": np.ones(N_CLASSES), "c": np.zeros(N_CLASSES)}
    real = {"a": np.ones(N_CLASSES), "b": np.zeros(N_CLASSES), "c": np.full(N_CLASSES, np.nan)}
    table = ClassTable(counts=COUNTS, n_rows=COUNTS, values=values, real=real)
    svg = plots.against_real([("one", table)], "alt")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    points = [
        float(x) for x in re.findall(r'<use xlink:href="#\w+" x="([\d.]+)"[^>]*fill: var\(--c[013]\)', svg)
    ]
    assert len(points) >= 3  # "a" in three groups; "b" and "c" nowhere
    assert max(points) <= width
    assert "nan" not in svg.lower()


def test_confidence_is_told_beside_what_is_right() -> None:
    data = full_report()
    found = measures.reliability_section(data)
    assert found is not None
    assert found["sure"] == pytest.approx((100 * 0.2 + 100 * 0.7 + 200 * 0.95) / 400)
    assert found["right"] == pytest.approx((100 * 0.1 + 100 * 0.6 + 200 * 0.9) / 400)
    text = section_text(render_report(data), "reliability")
    assert "70 % sure and right 62 % of the time: overconfident" in text
    unknown = [replace(model, evaluation=replace(model.evaluation, reliability=None)) for model in data.models]
    assert measures.reliability_section(full_report(models=unknown)) is None
    one = [*unknown[:2], data.models[2]]  # a baseline without confidences is left out of the drawing
    assert "with synthesis" in (measures.reliability_section(full_report(models=one)) or {})["svg"]
