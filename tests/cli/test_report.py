"""The report of models of a store of images: the worst classes with pictures, as long as the pictures are there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from support.shell import Shell
from support.words import section_text

SIZES = {"dark": 30, "dim": 12, "<b>pale": 4}


def test_the_worst_classes_are_shown_with_their_images(shell: Shell, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, store, page = tmp_path / "images", tmp_path / "s.zarr", tmp_path / "report.html"
    for split in ("train", "test"):
        for shade, (name, size) in enumerate(SIZES.items()):
            (images / split / name).mkdir(parents=True)
            for i in range(size if split == "train" else 10):
                pixels = (40 * shade + rng.integers(0, 120, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(images / split / name / f"{i}.png")
        shell.ok("ingest", images, store, "--split", split, "--encoder", "pixels:2x2")
    shell.ok("train", store, "--loss", "ce", "--out", tmp_path / "ce")
    evaluated = ("evaluate", tmp_path / "ce", "--store", store, "--report", page)
    shell.ok(*evaluated)
    html = page.read_text("utf-8")
    alts = re.findall(r'<img src="data:image/png;base64,[^"]+" class="coarse" alt="([^"]+)"', html)
    assert len(alts) == html.count("<img")
    assert any(re.fullmatch(r"&lt;b&gt;pale, training row \d+", alt) for alt in alts)
    assert any(re.fullmatch(r"&lt;b&gt;pale, test row \d+, taken for (dim|dark)", alt) for alt in alts)
    taken = [alt.split(", ") for alt in alts if "taken for" in alt]
    assert all(name != last.removeprefix("taken for ") for name, _, last in taken)
    assert "<b>pale" not in html
    assert "No examples" not in html
    shutil.rmtree(images)
    shell.ok(*evaluated)
    html = page.read_text("utf-8")
    assert "<img" not in html
    assert "No examples: these rows came without images, or the images have moved" in section_text(html, "look")
