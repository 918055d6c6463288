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
        Heads of a grid, trials of a backtest or shares of an ensemble that were compared; 0 where nothing was searched.
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
        record, parts = model.record, list(_parts(model.record.get("settings", {})))
        searches = [part["auto_search"] for part in parts if part.get("auto_search")]
        earlier = sum(search["seconds"] for search in searches if search["reused"])
        seconds = record.get("train_seconds")
        return cls(
            seconds=None if seconds is None else seconds + earlier,
            n_passes=sum(
                part.get("n_passes", 0) + (part.get("refit") or {}).get("n_passes", 0) for part in parts
            ),
            n_trials=sum(search["n_trials"] for search in searches)
            + sum(
                len(part[kind]["trials"]) for part in parts for kind in ("grid", "ensemble") if part.get(kind)
            ),
            n_real=max((part["n_real"] for part in parts if "n_real" in part), default=_rows(model)),
            n_synthetic=sum(record.get("synthetic_counts") or ()),
            n_parameters=model.weight.size + model.bias.size,
            model_bytes=model.weight.nbytes + model.bias.nbytes + model.class_counts.nbytes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def _parts(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of a model and of all its members."""
    yield settings
    for member in settings.get("members", ()):
        yield from _parts(member)


def _rows(model: LinearModel) -> int:
    """Rows behind a closed form: all of its selection, none for text vectors."""
    return 0 if model.record.get("made_from", {}).get("class_text") else int(model.class_counts.sum())
