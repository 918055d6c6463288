"""Which synthetic rows a head is trained with: a sampler's, or a materialised set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ltstore.errors import ConfigError
from ltstore.types import IntArray, Sampler
from ltstore.workflow.sampling import StoredSampler, fit_sampler, plan_targets, rates_of
from ltstore.workflow.selection import Selection


class Supply(NamedTuple):
    """A fitted sampler or None, the (C,) rows it is to give, and what a record says of them."""

    sampler: Sampler | None
    targets: IntArray
    source: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Synthetic rows as they are asked for; validated when made.

    Attributes
    ----------
    sampler : str
        "none", "auto", or a sampler.
    settings, per_class, max_ratio, donors_by, accept
        Of the sampler, as in `ltstore.workflow.sample`; refused without one.
    stored : str, optional
        The name of a materialised set, in place of a sampler.
    """

    sampler: str = "none"
    settings: Mapping[str, Any] | None = None
    per_class: int | None = None
    max_ratio: float | None = None
    donors_by: str = "means"
    accept: str = "none"
    stored: str | None = None

    def __post_init__(self) -> None:
        if self.sampler != "none" and self.stored is not None:
            raise ConfigError("a sampler and a materialised synthetic set cannot both be used: choose one")
        given = {
            "sampler settings": self.settings,
            "per_class": self.per_class,
            "max_ratio": self.max_ratio,
            "accept": None if self.accept == "none" else self.accept,
            "donors": None if self.donors_by == "means" else self.donors_by,
        }
        useless = [name for name, value in given.items() if value]
        if self.sampler == "none" and useless:
            raise ConfigError(
                f"{', '.join(useless)} would do nothing without a sampler: name one, or leave it out"
            )
        if self.sampler == "auto" and set(useless) - {"donors"}:
            raise ConfigError(
                "sampler 'auto' chooses head, sampler and counts by a backtest: leave the others out"
            )

    @property
    def asked_for(self) -> bool:
        """Whether there are to be any."""
        return self.sampler != "none" or self.stored is not None

    def supply(self, selection: Selection, seed: int) -> Supply:
        """Return the sampler, fitted to a selection.

        Raises
        ------
        ConfigError, DataError
            As `ltstore.workflow.sampling` says.
        """
        if self.stored is not None:
            stored = StoredSampler(selection, self.stored)
            return Supply(
                stored,
                stored.targets,
                {"synthetic": self.stored, "synthetic_digest": stored.digest, **_named(stored)},
            )
        if self.sampler == "none":
            return Supply(None, np.zeros(len(selection.counts), np.int64), {"sampler": "none"})
        fitted = fit_sampler(
            selection, self.sampler, self.settings, donors_by=self.donors_by, accept=self.accept
        )
        targets = plan_targets(selection, self.per_class, self.max_ratio)
        source = {
            "donors_by": self.donors_by,
            "sampler_options": dict(self.settings or {}),
            "per_class": self.per_class,
            "max_ratio": self.max_ratio,
            **_named(fitted),
        }
        rates = rates_of(fitted, selection, targets, seed)
        if rates is not None:
            source["acceptance"] = rates.to_json()["groups"]
        return Supply(fitted, targets, source)


def _named(sampler: Sampler) -> dict[str, Any]:
    return {"sampler": sampler.name, "sampler_settings": dict(sampler.settings)}
