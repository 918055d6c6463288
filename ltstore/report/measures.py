"""What the sections on the quality of synthetic rows, on confidence and on the backtest say."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltstore.backtest.card import REFERENCE
from ltstore.quality import ClassTable
from ltstore.report import plots
from ltstore.report.data import ReportData
from ltstore.report.text import shown

MAX_CANDIDATES = 16
MAX_INTRUDERS = 8
_GROUPS = ("many", "medium", "few", "all")
_MEANING = {
    "precision": "lie among real rows",
    "recall": "real rows that lie among synthetic ones",
    "density": "how many real balls hold one; 1 expected",
    "coverage": "real rows with a synthetic one near",
    "spectrum": "variance falls off alike",
    "subspace": "main directions are the same",
    "variance": "total variance over the real",
    "purity": "nearest real rows of the same class",
    "intrusion": "nearest real row of another class",
    "nearest": "distance to the nearest real row, in spacings of the class",
    "closer": "nearer to a real row than rows usually are",
    "copies": "practically a real row",
}


def quality_section(data: ReportData) -> dict[str, Any] | None:
    """Return what the section on quality shows, None without data."""
    quality = data.quality
    if quality is None:
        return None
    titles = {"held_out": "against held-out rows", "made": "among the training rows"}
    tables = [
        (titles[name], table)
        for name, table in (("held_out", quality.held_out), ("made", quality.made))
        if table is not None and table.n_classes
    ]
    if not tables:
        return None
    alt = (
        f"Measures of synthetic rows of {data.chosen_model.name} as multiples of those of real rows, by group."
    )
    return {
        "svg": plots.both(plots.against_real, tables, shown(alt, 500)),
        "tables": [{"title": title, "rows": _lines(table)} for title, table in tables],
        "groups": _GROUPS,
        "n_measured": quality.n_measured,
        "n_synthetic": quality.n_synthetic,
        "k": quality.k,
        "n_held_out": 0 if quality.held_out is None else quality.held_out.n_classes,
        "n_skipped": 0 if quality.held_out is None else quality.held_out.n_skipped,
        "reason": shown(quality.reason, 200),
        "intruders": _intruders(data),
    }


def _lines(table: ClassTable) -> list[dict[str, Any]]:
    values, real = table.averages(), table.averages(real=True)
    return [
        {
            "name": name,
            "meaning": _MEANING.get(name, ""),
            "cells": [(values[name][group], real[name][group]) for group in _GROUPS],
        }
        for name in values
    ]


def _intruders(data: ReportData) -> list[dict[str, Any]]:
    """The classes whose synthetic rows most often lie nearest to another class: beyond what their real rows do."""
    quality = data.quality
    if quality is None:
        return []
    share, real = quality.made.values["intrusion"], quality.made.real["intrusion"]
    beyond = np.where(np.isfinite(share) & (quality.intruded >= 0), share - np.nan_to_num(real), -np.inf)
    order = [int(c) for c in np.argsort(-beyond, kind="stable")[:MAX_INTRUDERS] if beyond[c] > 0]
    return [
        {
            "class_id": c,
            "share": float(share[c]),
            "real": None if np.isnan(real[c]) else float(real[c]),
            "purity": float(quality.made.values["purity"][c]),
            "on": int(quality.intruded[c]),
        }
        for c in order
    ]


def reliability_section(data: ReportData) -> dict[str, Any] | None:
    """Return what the section on confidence shows, None where the reported model was judged without."""
    chosen = data.chosen_model
    if (bins := chosen.evaluation.reliability) is None:
        return None
    models = [
        m for m in (data.baseline_model, chosen) if m is not None and m.evaluation.reliability is not None
    ]
    alt = f"Share of right rows against confidence, for {' and '.join(m.name for m in models)}."
    return {
        "svg": plots.reliability(models, shown(alt, 500)),
        "sure": float(np.nansum(bins.counts * bins.confidence) / bins.counts.sum()),
        "right": float(np.nansum(bins.counts * bins.accuracy) / bins.counts.sum()),
    }


def backtest_section(data: ReportData) -> dict[str, Any] | None:
    """Return what the section on the backtest shows, None without a card."""
    card = data.card
    if card is None:
        return None
    names = [result.candidate.name for result in card.results]
    reference = REFERENCE if REFERENCE in names else names[0]
    always = {card.chosen, names.index(reference)}
    room = MAX_CANDIDATES - len(always)
    first = [place for place in range(len(names)) if place not in always][:room]
    places = sorted({*first, *always})
    chosen = card.choice
    alt = (
        f"Gain in expected balanced accuracy over {reference} of {len(places)} candidates; chosen is "
        f"{chosen.candidate.name}."
    )
    return {
        "svg": plots.both(plots.candidate_gains, card, places, reference, shown(alt, 500)),
        "chosen": shown(chosen.candidate.name),
        "reason": shown(card.reason, 200),
        "used": data.card_used,
        "reference": shown(reference),
        "result": chosen,
        "n_shown": len(places),
        "n_candidates": len(names),
        "n_equal": sum(result.equal for result in card.results),
        "n_trials": card.n_trials,
        "n_head": card.n_head,
        "n_tail": card.n_tail,
    }
