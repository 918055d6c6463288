"""What a model cost to make and costs to keep, as its record tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ltstore.linear import LinearModel


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model cost.

    Attributes
    ----------
    seconds : float or None
        Of training, the search before it included; None where the record does not tell.
    n_passes : int
        Over the rows, of the solver, all members of a blend together; 0 for a closed form.
    n_trials : int
        Heads of a grid that were compared, or trials of the backtest that chose; 0 where nothing was searched.
    n_real, n_synthetic : int
        Rows that were trained on, those of all members of a blend together where they are synthetic.
    n_parameters : int
        C (D + 1).
    model_bytes : int
        Of the arrays: the size of the model's file but for its header.
    """

    seconds: float | None
    n_passes: int
    n_trials: int
    n_real: int
    n_synthetic: int
    n_parameters: int
    model_bytes: int

    @classmethod
    def of(cls, model: LinearModel) -> Cost:
        """Return what the record of a model tells."""
        record, settings = model.record, model.record.get("settings", {})
        parts = list(_trained(settings))
        search = settings.get("auto_search", {})
        seconds = record.get("train_seconds")
        if seconds is not None and search.get("reused"):
            seconds += search["seconds"]
        refits = [part["refit"]["n_passes"] for part in parts if part.get("refit")]
        grids = [len(part["grid"]["trials"]) for part in parts if part.get("grid")]
        return cls(
            seconds=seconds,
            n_passes=sum(part.get("n_passes", 0) for part in parts) + sum(refits),
            n_trials=sum(grids) + search.get("n_trials", 0),
            n_real=max((part["n_real"] for part in parts if "n_real" in part), default=_rows(model)),
            n_synthetic=sum(record.get("synthetic_counts") or ()),
            n_parameters=model.weight.size + model.bias.size,
            model_bytes=model.weight.nbytes + model.bias.nbytes + model.class_counts.nbytes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def _trained(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of every head that was trained for a model: of a blend those of its members."""
    members = settings.get("members")
    if not members:
        yield settings
    for member in members or ():
        yield from _trained(member)


def _rows(model: LinearModel) -> int:
    """Rows behind a closed form: all of its selection, none for text vectors."""
    return 0 if model.record.get("made_from", {}).get("class_text") else int(model.class_counts.sum())
