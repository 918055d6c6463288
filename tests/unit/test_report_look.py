"""What to look at first: in words, from the figures, with images."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ltstore.report import render_report
from ltstore.report.look import MAX_IMAGES, N_CARDS, look_section
from ltstore.report.neighbors import ClassSimilarity, worst_classes
from ltstore.report.thumbnail import thumbnail
from support.reports import NAMES, example, full_html, full_report
from support.words import section_text


def test_the_worst_classes_come_first_with_rows_and_takers() -> None:
    data = full_report()
    worst = worst_classes(data.chosen_model.evaluation, N_CARDS)
    found = look_section(data, ClassSimilarity(data))
    assert [card["story"].class_id for card in found["cards"]] == worst
    text = section_text(full_html(), "look")
    assert data.labels is not None
    for c in worst:
        taken = np.asarray(data.predictions)[(data.labels == c) & (data.predictions != c)]
        most = np.bincount(taken).argmax()
        assert f"{NAMES[c]} {100 * data.chosen_model.evaluation.class_accuracy[c]:.0f}% right" in text
        assert f"{(taken == most).sum()} of its 60 test rows" in text
    assert text.index(NAMES[worst[0]]) < text.index(NAMES[worst[1]])


def test_sentences_say_the_gap_and_what_changed() -> None:
    data = full_report(without_synthesis="closed form")
    chosen, plain = data.models[2].evaluation, data.models[0].evaluation
    assert chosen.few is not None
    assert plain.few is not None
    gap, against, synthetic, *_ = look_section(data, ClassSimilarity(data))["findings"]
    assert f"are right {100 * chosen.few.value:.0f}\N{NO-BREAK SPACE}% of the time" in gap
    assert against.startswith("Against plain: many ")
    assert f"few {100 * (chosen.few.value - plain.few.value):+.1f} points" in against.replace(
        "\N{MINUS SIGN}", "-"
    )
    assert synthetic.startswith("Its synthetic rows, against closed form without them: ")
    alone = full_report(baseline=None)
    assert len(look_section(alone, ClassSimilarity(alone))["findings"]) == 1


def test_noise_is_called_noise() -> None:
    data = full_report(without_synthesis="closed form")
    same = replace(data.models[1], evaluation=data.models[2].evaluation)
    data = full_report(without_synthesis="closed form", models=[data.models[0], same, data.models[2]])
    assert "on few no more than noise" in look_section(data, ClassSimilarity(data))["findings"][2]


def test_images_say_what_they_are() -> None:
    worst = worst_classes(full_report().chosen_model.evaluation, 1)[0]
    other = (worst + 1) % len(NAMES)
    examples = {worst: [example(worst), example(worst, predicted=other), example(other)]}
    html = render_report(full_report(examples=examples))
    assert f'alt="{NAMES[worst]}, training row 7"' in html
    assert f'alt="{NAMES[worst]}, test row 7, taken for {NAMES[other]}"' in html
    assert f"{NAMES[other]} in training, to compare" in section_text(html, "look")


def test_images_that_are_not_there_are_said() -> None:
    text = section_text(render_report(full_report(examples={}, no_examples="they <moved>")), "look")
    assert "No examples: they &lt;moved&gt;" in text


def test_a_card_of_images_is_bounded() -> None:
    worst = worst_classes(full_report().chosen_model.evaluation, N_CARDS)
    noise = [example(1, predicted=0, size=(900, 700))] * 50
    with_noise = render_report(full_report(examples=dict.fromkeys(range(len(NAMES)), noise)))
    assert with_noise.count("<img") == MAX_IMAGES * len(worst)
    assert len(with_noise) - len(render_report(full_report(examples={}))) < N_CARDS * 200_000


@pytest.mark.parametrize(("size", "kind", "shown"), [((8, 8), "png", (8, 8)), ((400, 200), "jpeg", (120, 60))])
def test_small_images_are_kept_exactly_and_large_ones_scaled(
    size: tuple[int, int], kind: str, shown: tuple[int, int]
) -> None:
    image = example(0, size=size).image
    head, body = thumbnail(image, 120).split(",")
    assert head == f"data:image/{kind};base64"
    read = Image.open(io.BytesIO(base64.b64decode(body)))
    assert read.size == shown
    if kind == "png":
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))
