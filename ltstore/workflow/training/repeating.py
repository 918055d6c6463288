"""The training of a model over again, on other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ltstore.backtest import Candidate
from ltstore.errors import ConfigError
from ltstore.linear import LinearModel, TrainSettings
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.workflow.selection import Selection
from ltstore.workflow.training.fitted import ZERO_SHOT, fit, fit_blend
from ltstore.workflow.training.synthesis import Synthesis

_NOT_REPEATED = {
    "synthetic": "it was trained with a set of synthetic rows, which was made from all of its rows",
    "row_weights": "its row weights are not kept",
    "ensemble": "it is an ensemble itself",
}


def repeat_training(model: LinearModel, selection: Selection) -> LinearModel:
    """Train a model of these rows as another was trained, by its record.

    What a grid or a backtest chose is taken as chosen, all rows are trained on, and donors are found by means.

    Raises
    ------
    ConfigError
        The record does not tell all that is needed.
    """
    settings: Mapping[str, Any] = model.record.get("settings", {})
    head = settings.get("head")
    if head == ZERO_SHOT:
        return model
    for key, why in _NOT_REPEATED.items():
        if settings.get(key) is not None:
            raise ConfigError(f"the model's training cannot be repeated on other rows: {why}")
    if "auto_settings" in settings:
        asked = TrainSettings.from_mapping(settings["auto_settings"])
        return fit_blend(selection, Candidate.from_json(settings["auto"]), asked).result.model
    if head in CLOSED_FORMS:
        return fit(selection, head=head, synthesis=Synthesis(), settings=TrainSettings()).result.model
    if head not in ("linear", "cosine") or "loss" not in settings:
        raise ConfigError(
            f"the model's training cannot be repeated on other rows: its record has head {head!r}"
        )
    synthesis = Synthesis()
    if settings.get("sampler", "none") != "none":
        judge = settings["sampler_settings"].get("accept")
        synthesis = Synthesis(
            sampler=settings["sampler"],
            settings=settings["sampler_options"] | ({"accept": judge} if judge else {}),
            per_class=settings.get("per_class"),
            max_ratio=settings.get("max_ratio"),
        )
    return fit(selection, head=head, synthesis=synthesis, settings=_train_settings(settings)).result.model


def _train_settings(recorded: Mapping[str, Any]) -> TrainSettings:
    """Return the settings that a record tells, for a training without a holdout."""
    known = {f.name for f in fields(TrainSettings)}
    resolved = {key: value for key, value in recorded.items() if key in known}
    if recorded["head"] == "cosine":
        resolved["l2"] = None
    return replace(TrainSettings.from_mapping(resolved), keep="last", device="auto", backend="auto")
