"""The plots, as inline SVG whose colours follow the page's (light, dark, print). The importer of matplotlib.

Matplotlib draws in stand-in colours, one a role, and each is replaced by the CSS variable of its role afterwards.
Up to 1,000 classes are drawn one by one; beyond that, means of classes of similar size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ltstore.backtest import Card
from ltstore.metrics import count_groups
from ltstore.quality import ClassTable
from ltstore.report.data import ModelResult, ReportData
from ltstore.report.text import shown
from ltstore.types import DoubleArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 1000
NAMED_CLASSES = 25
NAMED_GAINS = 6
N_BLOCKS = 40
MAX_RATIO = 2.5
_PHONE = 4.7  # inches: at the width of a phone, text is as large as the page's
_GROUP_MARKS = {"many": ("c0", "o"), "medium": ("c1", "s"), "few": ("c3", "^")}
_ROLES = [
    "ink",
    "muted",
    "line",
    "panel",
    "shade",
    "chosen",
    "baseline",
    "good",
    "bad",
    *(f"c{i}" for i in range(5)),
]
_COLOR = {role: f"#{0xA1B200 + i:06x}" for i, role in enumerate(_ROLES)}
_ROLE = {color: role for role, color in _COLOR.items()}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x$"
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": _COLOR["ink"],
    "axes.edgecolor": _COLOR["line"],
    "axes.labelcolor": _COLOR["muted"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _COLOR["line"],
    "grid.linewidth": 0.6,
    "xtick.color": _COLOR["line"],
    "ytick.color": _COLOR["line"],
    "xtick.labelcolor": _COLOR["muted"],
    "ytick.labelcolor": _COLOR["muted"],
    "legend.frameon": False,
}


def both(draw: Callable[..., str], *what: Any) -> str:
    """Return a plot drawn twice, for a page and for a phone: the style sheet shows one of them."""
    wide, narrow = (draw(*what, narrow=is_narrow) for is_narrow in (False, True))
    return f'<div class="on-wide">{wide}</div><div class="on-narrow">{narrow}</div>'


def size_and_accuracy(data: ReportData, alt: str, *, narrow: bool = False) -> str:
    """Return the SVG: accuracy of every class, largest first, over its real and synthetic rows."""
    order = np.argsort(-data.class_counts, kind="stable")
    x, line = np.arange(len(order)), _thinned(len(order))
    is_named = len(order) <= NAMED_CLASSES
    labels = [shown(data.class_names[c], 14) for c in order] if is_named else []
    upright = max(map(len, labels), default=0) * len(labels) > (40 if narrow else 80)
    with _canvas((_PHONE if narrow else 10, (4.4 if narrow else 5) + upright), alt) as (figure, out):
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
        _shade_groups(top, bottom, data.class_counts[order])
        drawn = [(data.chosen_model, "chosen", "o")]
        if data.baseline_model is not None:
            drawn.insert(0, (data.baseline_model, "baseline", "D"))
        for model, role, marker in drawn:
            accuracy = 100 * model.evaluation.class_accuracy[order]
            _scatter(top, x, accuracy, role, marker)
            trend, name = _smooth(accuracy), shown(model.name, 40)
            top.plot(x[line], trend[line], color=_COLOR[role], lw=1 if is_named else 2.4, label=name)
        top.set_ylim(-3, 112)
        top.set_yticks(range(0, 101, 20))
        top.set_ylabel("accuracy, %")
        top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1 if narrow else 2)
        edges = np.append(x[line] - 0.5, len(order) - 0.5)
        floor, real = 0.8, data.class_counts[order].astype(float)
        _steps(bottom, edges, np.full(len(line), floor), np.maximum(real, floor)[line], "muted", 1.0, "real")
        if data.synthetic_counts is not None and data.synthetic_counts.any():
            total = np.maximum(real + data.synthetic_counts[order], floor)
            _steps(bottom, edges, np.maximum(real, floor)[line], total[line], "chosen", 0.35, "synthetic")
            bottom.legend(loc="lower left", ncols=2, bbox_to_anchor=(0, 1))
        bottom.set_yscale("log")
        bottom.set_ylim(floor, None)
        _plain_log(bottom.yaxis, (1.0,))
        bottom.set_ylabel("training rows")
        bottom.set_xlim(-0.5, len(order) - 0.5)
        if is_named:
            bottom.set_xticks(x, labels, rotation=90 if upright else 0)
        else:
            bottom.set_xlabel("class, largest first")
    return out[0]


def gain_by_size(data: ReportData, alt: str, *, narrow: bool = False) -> str:
    """Return the SVG: gain in accuracy of the chosen model over the reference, class by class, against its rows."""
    reference = data.reference_model
    if reference is None:
        raise ValueError("a gain needs a model to compare with")
    gain = 100 * (data.chosen_model.evaluation.class_accuracy - reference.evaluation.class_accuracy)
    x = np.maximum(data.class_counts, 0.8).astype(float)
    with _canvas((_PHONE, 3.8) if narrow else (10, 4.2), alt) as (figure, out):
        axes = figure.subplots()
        axes.axhline(0, color=_COLOR["muted"], lw=1.2)
        if len(gain) <= MAX_POINTS:
            signs = (
                (gain > 0, "good", "^", "better"),
                (gain < 0, "bad", "v", "worse"),
                (gain == 0, "muted", "o", "equal"),
            )
            size = 9 if len(gain) <= NAMED_CLASSES else 5.5
            for which, role, marker, label in signs:
                text, color = f"{label} {int(which.sum())}", _COLOR[role]
                axes.plot(x[which], gain[which], marker, color=color, ms=size, alpha=0.8, mew=0, label=text)
        if len(gain) <= NAMED_CLASSES:
            axes.margins(y=0.16)
            largest = np.argsort(-np.abs(np.nan_to_num(gain)), kind="stable")[:NAMED_GAINS]
            for class_id in largest[np.abs(np.nan_to_num(gain[largest])) > 0]:
                name = shown(data.class_names[class_id], 16)
                _beside(axes, name, (x[class_id], gain[class_id]), (0, 7), ha="center", fontsize=9)
        order = np.argsort(x, kind="stable")
        if len(gain) > MAX_POINTS:
            _scatter(axes, x[order], gain[order], "chosen", "o")
        if len(gain) > NAMED_CLASSES:
            sizes, tied = np.unique(x, return_inverse=True)  # one value where classes are of one size
            trend = np.bincount(tied[order], _smooth(gain[order])) / np.bincount(tied)
            axes.plot(sizes, trend, color=_COLOR["ink"], lw=2, label="smoothed")
        for edge, group in ((19.5, "few"), (100.5, "medium")):
            if x.min() < edge < x.max():
                axes.axvline(edge, color=_COLOR["muted"], lw=1, ls=(0, (4, 3)))
                top = axes.get_xaxis_transform()
                _beside(
                    axes, group, (edge, 1), (4, -1), xycoords=top, va="top", color=_COLOR["muted"], fontsize=9.5
                )
        axes.set_xlabel("real training rows of the class, largest first")
        axes.set_ylabel("gain in accuracy, points")
        if x.max() > 10 * x.min():
            axes.set_xscale("log")
            _plain_log(axes.xaxis, (1.0, 2.0, 5.0))
        axes.invert_xaxis()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if narrow else 4)
    return out[0]


def against_real(tables: Sequence[tuple[str, ClassTable]], alt: str, *, narrow: bool = False) -> str:
    """Return the SVG: each measure of synthetic rows over that of real ones, group by group; 1 is as real rows are.

    Parameters
    ----------
    tables : sequence of (title, ClassTable)
        Side by side, on a phone below each other. A measure that is 0 for real rows has no ratio;
        ratios beyond 2.5 are drawn at the edge.
    """
    lengths = [len(table.values) for _, table in tables]
    size = (_PHONE, 0.9 * len(tables) + 0.36 * sum(lengths)) if narrow else (10, 1.6 + 0.36 * max(lengths))
    grid = (len(tables), 1) if narrow else (1, len(tables))
    with _canvas(size, alt) as (figure, out):
        panels = figure.subplots(*grid, squeeze=False, height_ratios=lengths if narrow else None).ravel()
        for axes, (title, table) in zip(panels, tables, strict=True):
            values, real = table.averages(), table.averages(real=True)
            names = list(values)
            axes.axvline(1, color=_COLOR["ink"], lw=1.2)
            for place, (group, (role, marker)) in enumerate(_GROUP_MARKS.items()):
                ratios = [_over(values[name][group], real[name][group]) for name in names]
                x = np.array(ratios, float)
                y = np.arange(len(names)) + 0.2 * (place - 1)
                if np.isfinite(x).any():
                    axes.plot(
                        np.minimum(x, MAX_RATIO),
                        y,
                        marker,
                        color=_COLOR[role],
                        ms=7,
                        mew=0,
                        label=group,
                        clip_on=False,
                    )
            axes.grid(visible=True, axis="x")
            axes.grid(visible=False, axis="y")
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(axis="y", length=0, labelcolor=_COLOR["ink"])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, MAX_RATIO)
            axes.set_xlabel("synthetic over real")
            axes.set_title(title, fontsize=10.5, color=_COLOR["muted"], loc="left")
        handles, labels = panels[-1].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return out[0]


def candidate_gains(
    card: Card, places: Sequence[int], reference: str, alt: str, *, narrow: bool = False
) -> str:
    """Return the SVG: gains of candidates with 95 % intervals, and beside them accuracy on kept and on cut classes.

    On a phone, names stand above their gains, and the accuracies are left out.

    Parameters
    ----------
    card : Card
    places : sequence of int
        Positions in its results, drawn from the top.
    reference : str
        Name of what gains are over.
    """
    size = (_PHONE, 1.3 + 0.44 * len(places)) if narrow else (10, 1.5 + 0.3 * len(places))
    with _canvas(size, alt) as (figure, out):
        left, *others = figure.subplots(1, 1 if narrow else 2, sharey=True, squeeze=False)[0]
        y = np.arange(len(places))
        results = [card.results[place] for place in places]
        left.axvline(0, color=_COLOR["baseline"], lw=1.2)
        drawn = set()
        for row, (place, result) in enumerate(zip(places, results, strict=True)):
            role, label = "muted", "behind the best"
            if place == card.chosen:
                role, label = "chosen", "chosen"
            elif result.equal:
                role, label = "ink", "cannot be told from the best"
            low, high = (100 * abs(result.gain - end) for end in (result.gain_low, result.gain_high))
            left.errorbar(
                100 * result.gain,
                row,
                xerr=[[low], [high]],
                fmt="D" if place == card.chosen else "o",
                color=_COLOR[role],
                ms=7.5 if place == card.chosen else 5.5,
                mew=1.2 if role == "ink" else 0,
                mfc=_COLOR["panel"] if role == "ink" else _COLOR[role],
                elinewidth=1.4,
                label=label if label not in drawn else None,
            )
            drawn.add(label)
        left.set_xlabel(f"gain over {shown(reference, 30)}, points")
        for right in others:
            for part, role, marker, label in (
                ("head", "c2", "o", "kept classes"),
                ("tail", "c4", "^", "cut classes"),
            ):
                accuracy = [100 * getattr(result, part) for result in results]
                right.plot(accuracy, y, marker, color=_COLOR[role], ms=6.5, mew=0, label=label)
            right.set_xlabel("accuracy, %")
        names = [shown(result.candidate.name, 46) for result in results]
        colors = [_COLOR["chosen" if place == card.chosen else "ink"] for place in places]
        left.set_yticks(y, [] if narrow else names)
        if narrow:
            for row, (name, color) in enumerate(zip(names, colors, strict=True)):
                edge = left.get_yaxis_transform()
                _beside(left, name, (0, row), (2, 5), xycoords=edge, color=color, fontsize=9)
        else:
            for tick, color in zip(left.get_yticklabels(), colors, strict=True):
                tick.set_color(color)
        left.set_ylim(len(places) - 0.4, -0.9)
        for axes, columns in ((left, 1 if narrow else 3), *((axes, 2) for axes in others)):
            axes.grid(visible=True, axis="x")
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize=9.5)
    return out[0]


def reliability(models: Sequence[ModelResult], alt: str) -> str:
    """Return the SVG: share of right rows against the confidence they were predicted with, and how many rows there are.

    Parameters
    ----------
    models : sequence of ModelResult
        Each with its reliability: the reported one, and before it what it is compared with, if anything.
    """
    with _canvas((_PHONE, 4.9), alt) as (figure, out):
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        top.plot([0, 100], [0, 100], color=_COLOR["muted"], lw=1, ls=(0, (4, 3)))
        looks = [("baseline", "D"), ("chosen", "o")][-len(models) :]
        for model, (role, marker) in zip(models, looks, strict=True):
            if (bins := model.evaluation.reliability) is None:
                raise ValueError(f"{model.name} has no reliability to draw")
            some = bins.counts > 0
            x, y = 100 * bins.confidence[some], 100 * bins.accuracy[some]
            top.plot(
                x, y, marker=marker, color=_COLOR[role], ms=5.5, lw=1.6, mew=0, label=shown(model.name, 24)
            )
            share = 100 * bins.counts / max(bins.counts.sum(), 1)
            bottom.stairs(share, 100 * bins.edges, color=_COLOR[role], lw=1.6, fill=False)
        top.set(xlim=(0, 100), ylim=(0, 100), ylabel="right, %")
        top.legend(loc="lower left", bbox_to_anchor=(0, 1))
        bottom.set(xlabel="confidence, %", ylabel="rows, %")
    return out[0]


def _over(value: float | None, real: float | None) -> float:
    return value / real if value is not None and real else float("nan")


@contextmanager
def _canvas(size: tuple[float, float], alt: str) -> Iterator[tuple[Figure, list[str]]]:
    """Give a figure to draw on; its SVG is in the list when the block ends. No pyplot, no global state kept."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{alt} {size}"}), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing", category=UserWarning
        )  # the browser has it
        figure = Figure(figsize=size, layout="constrained")
        yield figure, out
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
        out.append(_inline(buffer.getvalue(), alt))


def _inline(svg: str, alt: str) -> str:
    """Make a matplotlib SVG part of a page: no prologue, size or style sheet, and roles for colours."""
    body = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="[^"]+"', body)
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<[^>]*>", _restyle, body)  # tags only: what stands between them may be a class name
    label = escape(alt, quote=True)
    return f'<svg role="img" aria-label="{label}" {view_box[0] if view_box else ""}>{body}'


def _restyle(tag: re.Match[str]) -> str:
    """Leave ids that nothing refers to, fonts and needless digits out of a tag, and put the roles' variables in."""
    text = re.sub(r' id="[A-Za-z\d.]+_\d+"', "", tag[0])
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    text = re.sub(r" ?font-family: [^;\"]+;?", "", text)
    text = re.sub(r"(\d\.\d)\d+", r"\1", text) if text.startswith(("<path", "<use")) else text
    return re.sub(r"#a1b2[0-9a-f]{2}", lambda color: f"var(--{_ROLE[color[0]]})", text)


def _scatter(axes: Axes, x: Any, y: DoubleArray, role: str, marker: str) -> None:
    """Draw every class as a point or, where they are too many, means of neighbours in size with 95 % intervals."""
    kept = ~np.isnan(y)
    x, y = np.asarray(x, float)[kept], y[kept]
    if len(y) <= MAX_POINTS:
        large = len(y) <= NAMED_CLASSES
        axes.plot(x, y, marker, color=_COLOR[role], ms=7 if large else 4.2, alpha=0.9 if large else 0.45, mew=0)
        return
    blocks = np.array_split(np.arange(len(y)), N_BLOCKS)
    center = [x[block].mean() for block in blocks]
    mean = [y[block].mean() for block in blocks]
    half = [1.96 * y[block].std() / np.sqrt(len(block)) for block in blocks]
    axes.errorbar(center, mean, half, fmt=marker, color=_COLOR[role], ms=5, alpha=0.6, mew=0, elinewidth=1.2)


def _thinned(n: int) -> IntArray:
    """Return at most about a thousand positions of 0..n-1, both ends among them: lines need no more."""
    return np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(np.int64))


def _smooth(y: DoubleArray) -> DoubleArray:
    """Return a running Gaussian mean over neighbours in size (a twenty-fifth of the classes wide), NaN left out.

    Up to 25 classes stay as they are.
    """
    if len(y) <= NAMED_CLASSES:
        return y
    width = len(y) / 25
    reach = int(3 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    known = ~np.isnan(y)
    weight = np.convolve(known.astype(float), kernel, "full")[reach : reach + len(y)]
    total = np.convolve(np.where(known, y, 0.0), kernel, "full")[reach : reach + len(y)]
    smooth: DoubleArray = np.divide(total, weight, out=np.full(len(y), np.nan), where=weight > 1e-9)
    return smooth


def _shade_groups(top: Axes, bottom: Axes, counts: IntArray) -> None:
    """Mark where many ends and few begins; `counts` are in descending order."""
    start = 0
    for place, (name, mask) in enumerate(count_groups(counts).items()):
        size = int(mask.sum())
        if not size:
            continue
        if place % 2:
            for axes in (top, bottom):
                axes.axvspan(start - 0.5, start + size - 0.5, color=_COLOR["shade"], lw=0, zorder=0)
        middle = start + (size - 1) / 2
        top.text(middle, 110, f"{name} · {size:,}", ha="center", va="top", color=_COLOR["muted"], fontsize=9.5)
        start += size


def _beside(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **look: Any
) -> None:
    """Write a text so many points away from a point."""
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **look)


def _steps(
    axes: Axes, edges: DoubleArray, low: DoubleArray, high: DoubleArray, role: str, alpha: float, label: str
) -> None:
    """Fill between two step functions, one step a class."""
    low, high = np.append(low, low[-1:]), np.append(high, high[-1:])
    axes.fill_between(edges, low, high, step="post", color=_COLOR[role], alpha=alpha, lw=0, label=label)


def _plain_log(axis: Any, steps: tuple[float, ...]) -> None:
    """Label a logarithmic axis 1, 10, 100 instead of powers, at these multiples of each."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())
