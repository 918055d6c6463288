"""A picture of donors: what each tail class borrows, from whom, and how near the lender is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltstore.atomic import write_bytes
from ltstore.errors import ConfigError
from ltstore.report.text import shown

FORMATS = ("svg", "png", "pdf")
_NAMED_WEIGHT = 0.12


def plot_donors(path: Path, classes: Sequence[Mapping[str, Any]]) -> None:
    """Draw one bar for each borrowing class: parts are donors, as wide as what they lend, as dark as they are near.

    Parameters
    ----------
    path : Path
        .svg, .png or .pdf; replaced if it is there.
    classes : sequence of mapping
        "class", "rows" and "donors" (each "class", "weight", "similarity"), smallest class first.

    Raises
    ------
    ConfigError
        Another suffix, or no class borrows.
    StoreWriteError
    """
    from matplotlib import colormaps, rc_context
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in FORMATS:
        raise ConfigError(f"a picture of donors is .{', .'.join(FORMATS)}, found {path}")
    if not classes:
        raise ConfigError("no class borrows, there is nothing to draw: no class is much larger than another")
    near = [donor["similarity"] for one in classes for donor in one["donors"]]
    shades = ScalarMappable(Normalize(min(near), max(near)), colormaps["Blues"])
    with rc_context({"text.parse_math": False, "svg.hashsalt": "donors"}):
        figure = Figure(figsize=(10, 1.6 + 0.32 * len(classes)), layout="constrained")
        axes = figure.subplots()
        for y, one in enumerate(classes):
            left = 0.0
            for donor in one["donors"]:
                color = shades.to_rgba(donor["similarity"])
                axes.barh(y, donor["weight"], left=left, color=color, edgecolor="white")
                if donor["weight"] >= _NAMED_WEIGHT:
                    dark = sum(color[:3]) < 1.5
                    text = shown(donor["class"], int(90 * donor["weight"]))
                    middle = left + donor["weight"] / 2
                    axes.text(
                        middle, y, text, ha="center", va="center", size=8, color="white" if dark else "black"
                    )
                left += donor["weight"]
        names = [f"{shown(one['class'], 30)} ({one['rows']:,})" for one in classes]
        axes.set_yticks(range(len(classes)), names)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share lent by each donor class")
        figure.colorbar(shades, ax=axes, label="similarity of donor and class")
        buffer = io.BytesIO()
        dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
        figure.savefig(buffer, format=suffix, dpi=150, metadata=dateless)
    write_bytes(Path(path), buffer.getvalue())
