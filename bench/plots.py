"""The plots of the pages of figures, as SVG: ratios beside their aims, and runs beside what was said of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.run import Record, met

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GOOD, _SHORT, _LINE = "#1b7f79", "#c2410c", "#8a8f98"
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "ltstore",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}
_STEPS = {"moments": "o", "train": "s", "evaluate": "^", "memory": "D", "disk": "v"}


def ratios(records: Sequence[Record]) -> str:
    """Return every ratio that has an aim, median and 20th to 80th percentile, as times the aim; right is better.

    What is to be small is turned over (aim / ratio), so that on one axis 1 is the aim for all.
    """
    found = [(record, reached) for record in records if (reached := met(record)) is not None]
    found.sort(key=lambda each: str(each[0]["case"]))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (record, reached) in enumerate(found):
            turned = 1 if record["kind"] == "speed" else -1
            low, middle, high = sorted(
                (record["ratio"][p] / record["aim"]) ** turned for p in ("p20", "p50", "p80")
            )
            color = _GOOD if reached else _SHORT
            axes.plot([low, high], [place, place], color=color, linewidth=1.5)
            axes.plot([middle], [place], "o" if reached else "D", color=color, markersize=4.5)
        axes.axvline(1, color=_LINE, linewidth=1)
        names = [f"{record['case']}: {record['variant']} / {record['candidate']}" for record, _ in found]
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(
            "times the aim: right of the line it is met (round, green), left of it missed (diamond, orange)"
        )
        axes.tick_params(axis="x", labeltop=True, top=True)
        axes.grid(axis="x", color=_LINE, alpha=0.25)

    return _drawn((8, 0.6 + 0.2 * len(found)), draw)


def scaling(found: Sequence[Record]) -> str:
    """Return what runs of growing shapes took against what was said of them at most: seconds, and bytes."""
    panels = (("seconds", ("moments", "train", "evaluate"), 1.0), ("GB", ("memory", "disk"), 1e9))

    def draw(figure: Figure) -> None:
        for number, (unit, steps, scale) in enumerate(panels, 1):
            axes = figure.add_subplot(1, 2, number)
            ends = []
            for step in steps:
                said = np.array([e["said"] for e in found if e["candidate"].startswith(step)]) / scale
                taken = np.array([e["ratio"]["p50"] for e in found if e["candidate"].startswith(step)]) * said
                axes.plot(said, taken, _STEPS[step], label=step, markersize=5, alpha=0.85)
                ends += [*said, *taken]
            if ends:
                edge = np.array([min(ends) / 1.5, max(ends) * 1.5])
                axes.plot(edge, edge, color=_LINE, linewidth=1)
                axes.text(edge[1], edge[1], "as said ", ha="right", va="bottom", color=_LINE)
                axes.legend(frameon=False)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xlabel(f"said at most, {unit}")
            axes.set_ylabel(f"taken, {unit}")

    return _drawn((8, 3.6), draw)


def _drawn(inches: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained", facecolor="white")
        draw(figure)
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
