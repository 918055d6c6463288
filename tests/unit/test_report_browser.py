"""The page in a browser: no wider than a phone, whatever classes are called."""

from __future__ import annotations

import html as markup
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ltstore.report import ModelResult, ReportData, render_report
from support.reports import full_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = [
    "<script>alert(1)</script>",
    "x" * 300,
    "\u202eright to left \u05d0\u05d1\u05d2",
    "\N{FAMILY}" * 80,
    "\"quoted\" & 'so'",
    "a_very_long_name_with_underscores_and_no_space_at_all_in_it",
]


def width_in_browser(page: str, width: int, scratch: Path) -> int:
    """Return how wide the page wants to be in a frame of so many pixels: it may run no script of its own."""
    outer = scratch / "outer.html"
    outer.write_text(
        f'<iframe width="{width}" height="800" srcdoc="{markup.escape(page)}" '
        "onload=\"document.title='width ' + this.contentDocument.documentElement.scrollWidth\"></iframe>",
        "utf-8",
    )
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch / 'profile'}"]
    done = subprocess.run(
        [str(CHROMIUM), *quiet, "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>width (\d+)</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    return int(found[1])


@pytest.fixture(scope="module")
def page() -> str:
    models = full_report(class_names=NAMES).models
    long = [ModelResult(name=f"{i} {NAMES[i]}", evaluation=model.evaluation) for i, model in enumerate(models)]
    data: ReportData = full_report(
        class_names=NAMES, models=long, chosen=long[2].name, baseline=long[1].name, title=NAMES[1]
    )
    return render_report(data)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_name_makes_the_page_wider_than_the_screen(page: str, width: int, tmp_path: Path) -> None:
    assert width_in_browser(page, width, tmp_path) <= width
    wide = page.replace("<main>", '<main><div style="width: 2000px">x</div>')
    assert width_in_browser(wide, width, tmp_path) > width  # it would be noticed
