"""The file: whole, self-contained, escaped, and without what there is no data for."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import StoreWriteError
from ltstore.metrics import Estimate, evaluate_predictions
from ltstore.report import ModelResult, ReportData, page, render_report, write_report
from support.reports import COUNTS, N_CLASSES, full_html, full_report

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and fails where tags are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    @property
    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


@pytest.fixture(scope="module")
def html() -> str:
    return full_html()


def table_row(html: str, name: str) -> str:
    row = re.search(rf'<tr[^>]*>\s*<th scope="row"><bdi>{name}</bdi>.*?</tr>', html, re.S)
    assert row is not None
    return row[0]


def test_every_section_is_there(html: str) -> None:
    found = Page(html)
    assert found.sections == [
        "look",
        "models",
        "sizes",
        "synthesis",
        "confusion",
        "donors",
        "maps",
        "quality",
        "backtest",
        "reliability",
        "provenance",
    ]
    drawings = [attrs for tag, attrs in found.tags if tag == "svg"]
    assert len(drawings) == 12  # four plots twice, for page and phone; donors, two maps, reliability
    assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 20 for attrs in drawings)


def test_sections_without_data_are_left_out() -> None:
    data = full_report()
    bare = ReportData(
        title="Trees", class_names=data.class_names, class_counts=data.class_counts, models=data.models[:1]
    )
    found = Page(render_report(bare))
    assert found.sections == ["look", "models", "sizes", "reliability"]
    assert "baseline" not in found.text


def test_no_request_leaves_the_file(html: str) -> None:
    found = Page(html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    for tag, attrs in found.tags:
        for key, value in attrs.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("href", "xlink:href", "src"):
                assert value is not None
                assert value.startswith("data:image/" if tag == "img" else "#"), (tag, key, value)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "default-src 'none'" in html


def test_ids_are_unique_and_what_is_referred_to_exists(html: str) -> None:
    ids = [attrs["id"] for _, attrs in Page(html).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert used
    assert used <= set(ids)
    assert {attrs["for"] for tag, attrs in Page(html).tags if tag == "label"} <= set(ids)


def test_tables_have_headers_and_what_scrolls_can_be_reached(html: str) -> None:
    found = Page(html)
    assert all(attrs.get("scope") for tag, attrs in found.tags if tag == "th")
    assert all(attrs.get("alt") for tag, attrs in found.tags if tag == "img")
    scrolls = [attrs for _, attrs in found.tags if attrs.get("class") == "scroll"]
    assert len(scrolls) == sum(tag == "table" for tag, _ in found.tags)
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in scrolls)


def test_plots_follow_the_colours_of_the_page(html: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        assert not re.search(r"(fill|stroke)(: |=\")#", svg), "a colour of its own does not turn dark"


def contrast(one: str, other: str) -> float:
    """WCAG 2.1: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""
    lights = []
    for color in (one, other):
        part = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


def test_text_stands_out_from_what_it_is_written_on(html: str) -> None:
    schemes = [
        dict(re.findall(r"--(\w+): (#[\da-f]{6})", block)) for block in re.findall(r":root {(.*?)}", html, re.S)
    ]
    light, dark, _ = schemes
    for scheme in (light, dark):
        for text in ("ink", "muted", "chosen", "good", "bad"):
            for ground in ("page", "panel", "shade"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></style></title><script>1</script>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\alpha$ & x",
    "' onmouseover='alert(1)",
]


def test_names_cannot_become_markup() -> None:
    data = full_report(class_names=HOSTILE)
    evil = HOSTILE[0]
    models = [
        ModelResult(name=evil + str(i), evaluation=model.evaluation, note=HOSTILE[1])
        for i, model in enumerate(data.models)
    ]
    html = render_report(
        full_report(
            class_names=HOSTILE,
            models=models,
            chosen=models[2].name,
            baseline=models[0].name,
            title=HOSTILE[2],
            facts=[(evil, HOSTILE[1])],
            provenance={evil: "</pre>" + evil},
        )
    )
    found = Page(html)
    tags = {tag for tag, _ in found.tags}
    assert "script" not in tags
    assert all((attrs["src"] or "").startswith("data:image/") for tag, attrs in found.tags if tag == "img")
    assert not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
    for name in HOSTILE:
        assert name in found.text  # shown as it is, as text
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", html)
    assert "$\\alpha$ &amp; x" in drawn  # a name is no formula
    assert "49" not in re.findall(r"<bdi[^>]*>(.*?)</bdi>", html)


def test_names_that_no_encoding_or_font_has_are_shown_all_the_same(tmp_path: Path) -> None:
    names = ["a\x00b", "\udc80surrogate", "漢字", "line\nbreak", "x" * 500, "\u202ereversed"]
    data = full_report(class_names=names)
    models = [ModelResult(name=f"\udcff{model.name}", evaluation=model.evaluation) for model in data.models]
    data = full_report(
        class_names=names, models=models, chosen=models[2].name, baseline=models[0].name, title="\udc80"
    )
    write_report(tmp_path / "r.html", data)
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "a\ufffdb" in text
    assert "\ufffdsurrogate" in text
    assert "漢字" in text
    assert "x" * 61 not in text


def test_equal_data_gives_equal_files(html: str) -> None:
    assert render_report(full_report()) == html


def test_the_old_report_stays_where_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StoreWriteError, match="No space left"):
        write_report(path, full_report())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match=r"file/r\.html"):
        write_report(tmp_path / "file" / "r.html", full_report())


def test_an_empty_group_prints_na_and_skipped_rows_are_said() -> None:
    labels = np.array([0, 1, 1, -1])
    found = evaluate_predictions(labels, np.array([0, 1, 0, 0]), class_counts=[5, 3], class_names=["a", "b"])
    html = render_report(
        ReportData(
            title="t",
            class_names=["a", "b"],
            class_counts=np.array([5, 3]),
            models=[ModelResult(name="m", evaluation=found)],
        )
    )
    assert table_row(html, "m").count("n/a") == 2
    assert "1 without a label left out" in html
    assert "NaN" not in html
    assert ">nan<" not in html


def test_bold_marks_the_best_and_what_cannot_be_told_from_it() -> None:
    def estimate(value: float, low: float, high: float) -> Estimate:
        return Estimate(value=value, low=low, high=high)

    best, near, far = estimate(0.7, 0.68, 0.72), estimate(0.69, 0.67, 0.71), estimate(0.5, 0.48, 0.52)
    assert page._ties([best, near, far, None]) == [True, True, False, False]
    assert page._ties([best, near, far], largest=False) == [False, False, True]
    assert page._ties([best]) == [False]  # nothing to be better than


def test_the_paired_difference_is_told_with_its_interval() -> None:
    data = full_report()
    assert data.labels is not None
    gain = 100 * (np.mean(data.predictions == data.labels) - np.mean(data.baseline_predictions == data.labels))
    assert f"Overall accuracy on the same test rows: +{gain:.1f} points" in Page(render_report(data)).text
    same = full_report(baseline_predictions=data.predictions)
    assert "no difference beyond noise" in render_report(same)


def test_mean_gain_of_each_group_is_that_of_its_classes() -> None:
    data = full_report()
    gain = data.models[2].evaluation.class_accuracy - data.models[0].evaluation.class_accuracy
    groups = page._synthesis(data)
    assert groups is not None
    assert [g["gain"] for g in groups["groups"]] == pytest.approx(
        [gain[:2].mean(), gain[2:4].mean(), gain[4:].mean()]
    )
    assert [g["synthetic"] for g in groups["groups"]] == [0, 110, 193]
    assert [g["real"] for g in groups["groups"]] == [550, 90, 7]


def test_many_classes_make_neither_a_large_file_nor_a_long_wait() -> None:
    import time

    n_classes = 8142
    rng = np.random.default_rng(0)
    labels = np.arange(2 * n_classes) % n_classes
    counts = np.sort(rng.integers(2, 1000, n_classes))[::-1].copy()
    names = [f"species {i}" for i in range(n_classes)]
    models, predicted = [], labels
    for i in range(2):
        predicted = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(0, n_classes, len(labels)))
        evaluation = evaluate_predictions(
            labels, predicted, class_counts=counts, class_names=names, n_bootstrap=20
        )
        models.append(ModelResult(name=str(i), evaluation=evaluation))
    data = ReportData(
        title="many",
        class_names=names,
        class_counts=counts,
        models=models,
        baseline="0",
        labels=labels,
        predictions=predicted,
        class_means=rng.normal(size=(n_classes, 16)),
    )
    start = time.perf_counter()
    html = render_report(data)
    assert time.perf_counter() - start < 20
    assert len(html) < 1_000_000
    assert "The next 9 of 8,142 classes" in html
    assert "Means of about 203 classes" in html


def test_importing_the_room_loads_no_plotting() -> None:
    heavy = ("matplotlib", "jinja2", "sklearn", "torch")
    code = f"import sys, ltstore.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fixture_has_all_three_groups() -> None:
    assert len(COUNTS) == N_CLASSES
    assert all(
        getattr(full_report().models[0].evaluation, group) is not None for group in ("many", "medium", "few")
    )
