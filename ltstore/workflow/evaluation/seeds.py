"""Models that were trained alike but for the seed, taken together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ltstore.linear import LinearModel, TrainSettings
from ltstore.metrics import MEASURES, Difference, Estimate, PairedAccuracy

# How a head is trained, whatever the machine; the rest of a record's settings is what came of it.
_ASKED = {f.name for f in fields(TrainSettings)} - {"seed", "device", "backend"}
_ASKED |= {"sampler", "sampler_options", "per_class", "max_ratio", "donors_by"}
_ASKED |= {"synthetic", "synthetic_digest", "row_weights"}
_SEED_IN_NAME = re.compile(r"([-_./ ]+(s|seed)?)?[-_./ ]*\d*$")


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """Accuracy over seeds.

    Attributes
    ----------
    mean : Estimate
        The interval is over test rows: how far the mean would move with another test set.
    deviation : float
        Standard deviation over seeds (of a sample: divided by n - 1): how far one training is from another.
    """

    mean: Estimate
    deviation: float


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Models of one training with several seeds.

    Attributes
    ----------
    name : str
        What their names have in common, without the number at their end.
    models : tuple of str
    seeds : tuple of int
        Beside `models`, no two alike.
    accuracy : mapping of measure to SeedSpread or None
    differences : mapping of measure to Difference or None
        Mean accuracy minus that of the baseline, or of the group that it belongs to; None for that one itself.
    """

    name: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: Mapping[str, SeedSpread | None]
    differences: Mapping[str, Difference | None]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def group_seeds(models: Mapping[str, LinearModel]) -> list[tuple[str, ...]]:
    """Return the names of models that differ by nothing but their seed: two or more each, a seed's first model only.

    Alike are models of the same rows and the same settings as they were asked for: what a grid or a backtest chose, or
    a holdout that was drawn by the seed, may differ.
    """
    found: dict[str, dict[int, str]] = {}
    for name, model in models.items():
        seed = model.record.get("seed")
        if seed is not None:
            found.setdefault(_key(model), {}).setdefault(seed, name)
    return [tuple(by_seed.values()) for by_seed in found.values() if len(by_seed) > 1]


def seed_groups(
    models: Mapping[str, LinearModel], baseline: str, paired: PairedAccuracy
) -> tuple[SeedGroup, ...]:
    """Return the groups of models, `paired` having them in the order of `models`."""
    places = {name: place for place, name in enumerate(models)}
    grouped = group_seeds(models)
    members = {names: [places[name] for name in names] for names in grouped}
    reference = next((names for names in grouped if baseline in names), (baseline,))
    others = [names for names in grouped if names != reference]
    compared = {
        measure: paired.differences(
            measure, [members[names] for names in others], [places[name] for name in reference]
        )
        for measure in MEASURES
    }
    return tuple(
        SeedGroup(
            name=_stem(names),
            models=names,
            seeds=tuple(int(models[name].record["seed"]) for name in names),
            accuracy={measure: _spread(paired, measure, members[names]) for measure in MEASURES},
            differences={
                measure: None if found is None or names == reference else found[others.index(names)]
                for measure, found in compared.items()
            },
        )
        for names in grouped
    )


def _key(model: LinearModel) -> str:
    """Return equal text for models that were asked for alike, and are of the same rows."""
    record: Mapping[str, Any] = model.record
    settings, made_from = record.get("settings", {}), record.get("made_from", {})
    counts = None if "auto_settings" in settings else record.get("synthetic_counts")
    return json.dumps(
        [_asked(settings), counts, made_from.get("rows"), made_from.get("class_text")], sort_keys=True
    )


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the seed and what came of it."""
    asked: dict[str, Any] = {key: settings.get(key) for key in _ASKED}
    if "auto_settings" in settings:  # members are what the backtest chose
        asked |= {key: value for key, value in settings["auto_settings"].items() if key in _ASKED}
    else:
        asked["members"] = [_asked(member) for member in settings.get("members", ())]
    asked |= settings.get("grid", {}).get("axes", {})
    asked["accept"] = (settings.get("sampler_settings") or {}).get("accept")
    asked["holdout"] = settings.get("holdout_rows", {}).get("from")
    asked["refit"] = "refit" in settings
    mixed = settings.get("ensemble", {})
    asked["share"] = [mixed.get("asked"), mixed.get("holdout")]
    return asked


def _stem(names: Sequence[str]) -> str:
    """Return "ng" for "ng-s0" and "ng-s1"; the first name where there is nothing like that."""
    stems = {_SEED_IN_NAME.sub("", name) for name in names}
    return stems.pop() or names[0] if len(stems) == 1 else names[0]


def _spread(paired: PairedAccuracy, measure: str, members: Sequence[int]) -> SeedSpread | None:
    mean = paired.mean(measure, members)
    if mean is None:
        return None
    return SeedSpread(mean=mean, deviation=float(np.std(paired.values[measure][list(members)], ddof=1)))
