"""The report itself: what goes into each section, and the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import write_bytes
from ltstore.metrics import Estimate, count_groups, paired_bootstrap
from ltstore.metrics.accuracy import GROUPS
from ltstore.report import plots
from ltstore.report.borrowing import donors_section
from ltstore.report.data import ModelResult, ReportData
from ltstore.report.look import look_section
from ltstore.report.maps import map_section
from ltstore.report.measures import backtest_section, quality_section, reliability_section
from ltstore.report.neighbors import ClassSimilarity, confused_classes, errors_to_neighbors, most_confused
from ltstore.report.text import points, shown
from ltstore.types import UNLABELLED

MAX_CONFUSED_CLASSES = 12
_NTH = ("nearest", "2nd nearest", "3rd nearest", "4th nearest", "5th nearest")
_COLUMNS = ("overall", "balanced", *GROUPS)


def write_report(path: Path, data: ReportData) -> None:
    """Write one self-contained HTML file: no request leaves it, and it is there whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    data : ReportData
        Sections without data are left out.

    Raises
    ------
    StoreWriteError
        The file cannot be written.

    Notes
    -----
    About 2 s and 350 kB for 100 classes, 2.5 s and 600 kB for 8,142 on one core: long tables are capped and say
    so. Matplotlib's settings are changed meanwhile, so one thread at a time.
    """
    write_bytes(Path(path), render_report(data).encode("utf-8"))


def render_report(data: ReportData) -> str:
    """Return the HTML text of `write_report`; equal data gives equal text."""
    import jinja2

    here = files("ltstore.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "interval": _interval,
        "duration": _duration,
        "points": points,
        "shown": shown,
        "thousands": "{:,}".format,
        "nth": lambda rank: _NTH[rank - 1],
    }
    template = environment.from_string(here.joinpath("report.html.j2").read_text("utf-8"))
    html: str = template.render(css=here.joinpath("report.css").read_text("utf-8"), **_sections(data))
    return html


def _sections(data: ReportData) -> dict[str, Any]:
    names = [shown(name) for name in data.class_names]
    similarity = ClassSimilarity(data)
    return {
        "title": shown(data.title, 200),
        "facts": [(shown(label), shown(value, 200)) for label, value in data.facts],
        "evaluation": data.chosen_model.evaluation,
        "chosen": shown(data.chosen_model.name),
        "chosen_note": shown(data.chosen_model.note, 160),
        "baseline": shown(data.baseline_model.name) if data.baseline_model is not None else None,
        "names": names,
        "counts": data.class_counts,
        "summary": _summary(data),
        "models": _headline(data),
        "columns": _columns(data),
        "sizes": _sizes(data),
        "synthesis": _synthesis(data),
        "donors": donors_section(data),
        "confusion": _confusion(data, similarity),
        "look": look_section(data, similarity),
        "maps": map_section(data),
        "quality": quality_section(data),
        "backtest": backtest_section(data),
        "reliability": reliability_section(data),
        "provenance": _provenance(data),
    }


def _percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{100 * value:.{digits}f}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _summary(data: ReportData) -> dict[str, Any]:
    """The four numbers at the top, and the difference from the baseline with its interval where rows are paired."""
    chosen, baseline = data.chosen_model.evaluation, data.baseline_model
    tiles = []
    for label, get in (
        ("Overall", lambda e: e.overall),
        ("Balanced", lambda e: e.balanced),
        ("Few-shot classes", lambda e: e.few),
        ("Worst tenth of classes", lambda e: Estimate(value=e.worst_tenth)),
    ):
        estimate: Estimate | None = get(chosen)
        other: Estimate | None = get(baseline.evaluation) if baseline is not None else None
        if estimate is None:
            continue
        difference = estimate.value - other.value if other is not None else None
        tiles.append({"label": label, "estimate": estimate, "difference": difference})
    paired = None
    if data.labels is not None and data.predictions is not None and data.baseline_predictions is not None:
        known = data.labels != UNLABELLED
        paired = paired_bootstrap(
            (data.predictions == data.labels)[known], (data.baseline_predictions == data.labels)[known]
        )
    return {"tiles": tiles, "paired": paired if baseline is not None else None}


def _columns(data: ReportData) -> list[str]:
    """The estimates of the headline table; top-5 only where some model has it."""
    with_top5 = any(model.evaluation.top5 is not None for model in data.models)
    return [*_COLUMNS[:1], *(["top5"] if with_top5 else []), *_COLUMNS[1:]]


def _headline(data: ReportData) -> list[dict[str, Any]]:
    ties = {column: _ties([getattr(m.evaluation, column) for m in data.models]) for column in _COLUMNS}
    ties["top5"] = _ties([m.evaluation.top5 for m in data.models])
    ties["ece"] = _ties([m.evaluation.ece for m in data.models], largest=False)
    tenths = [m.evaluation.worst_tenth for m in data.models]
    return [
        {
            "name": shown(model.name),
            "role": _role(data, model),
            "note": shown(model.note, 160),
            "seconds": model.seconds,
            "evaluation": model.evaluation,
            "best": {column: marks[place] for column, marks in ties.items()},
            "best_tenth": len(tenths) > 1 and model.evaluation.worst_tenth == max(tenths),
        }
        for place, model in enumerate(data.models)
    ]


def _role(data: ReportData, model: ModelResult) -> str:
    if model is data.chosen_model:
        return "chosen"
    return "baseline" if model is data.baseline_model else ""


def _ties(estimates: Sequence[Estimate | None], *, largest: bool = True) -> list[bool]:
    """Mark the best and whatever cannot be told from it: its 95 % interval reaches the best value."""
    known = [e.value for e in estimates if e is not None]
    if len(known) < 2:
        return [False] * len(estimates)
    best = max(known) if largest else min(known)
    marks = []
    for e in estimates:
        end = None if e is None else (e.high if largest else e.low)
        reaches = end is not None and (end >= best if largest else end <= best)
        marks.append(e is not None and (e.value == best or reaches))
    return marks


def _sizes(data: ReportData) -> dict[str, Any]:
    alt = (
        f"Accuracy of {data.n_classes} classes ordered by training rows, from {data.class_counts.max(initial=0)} to "
        f"{data.class_counts.min(initial=0)}, for {_compared(data)}; below, the number of rows of each class."
    )
    blocks = data.n_classes > plots.MAX_POINTS
    size = data.n_classes // plots.N_BLOCKS
    points = f"Means of about {size:,} classes each, with 95 % intervals" if blocks else "Every class"
    return {
        "svg": plots.both(plots.size_and_accuracy, data, shown(alt, 500)),
        "points": points,
        "blocks": blocks,
        "smooth": data.n_classes > plots.NAMED_CLASSES,
    }


def _compared(data: ReportData) -> str:
    baseline = data.baseline_model
    return data.chosen_model.name + (f" and {baseline.name}" if baseline is not None else "")


def _synthesis(data: ReportData) -> dict[str, Any] | None:
    reference = data.reference_model
    if reference is None:
        return None
    gain = data.chosen_model.evaluation.class_accuracy - reference.evaluation.class_accuracy
    groups = []
    for name, mask in count_groups(data.class_counts).items():
        known = gain[mask & ~np.isnan(gain)]
        if not len(known):
            continue
        groups.append(
            {
                "name": name,
                "n_classes": int(mask.sum()),
                "real": int(data.class_counts[mask].sum()),
                "synthetic": None if data.synthetic_counts is None else int(data.synthetic_counts[mask].sum()),
                "gain": float(known.mean()),
                "better": int((known > 0).sum()),
                "worse": int((known < 0).sum()),
            }
        )
    alt = f"Gain in accuracy of each class, {data.chosen_model.name} over {reference.name}, by training rows."
    return {
        "svg": plots.both(plots.gain_by_size, data, shown(alt, 500)),
        "groups": groups,
        "reference": shown(reference.name),
        "alone": data.without_synthesis is not None,
    }


def _confusion(data: ReportData, similarity: ClassSimilarity) -> dict[str, Any] | None:
    """The classes that lose the largest share to one other class, and how far errors stay among neighbours."""
    if data.labels is None or data.predictions is None:
        return None
    most = most_confused(data, MAX_CONFUSED_CLASSES)
    classes = confused_classes(data, most, similarity)
    return {"classes": classes, "near": errors_to_neighbors(data, similarity)} if classes else None


def _provenance(data: ReportData) -> str:
    if not data.provenance:
        return ""
    return json.dumps(data.provenance, indent=2, ensure_ascii=True, sort_keys=True, default=str)
