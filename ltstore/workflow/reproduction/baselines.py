"""The heads that a method is compared with, each as `ltstore.workflow.train` is asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ltstore.linear import TrainSettings
from ltstore.workflow.training.fitted import ZERO_SHOT
from ltstore.workflow.training.head import UNTRAINED

REFERENCE = "la"
"""The head whose accuracy the others' gains are counted from."""
ALL_ROWS = "all-rows"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One head.

    Attributes
    ----------
    head : str
        As in `ltstore.workflow.train`.
    settings : mapping
        Of `TrainSettings`, where they are not the defaults.
    sampler : str
    sampler_settings : mapping
    needs_text : bool
        Whether it takes text vectors of the class names.
    all_rows : bool
        Whether it is trained on the rows before a tail was cut.
    """

    head: str = "linear"
    settings: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "none"
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)
    needs_text: bool = False
    all_rows: bool = False

    @property
    def draws(self) -> bool:
        """Whether training draws from the seed, so that two seeds give two heads of the same rows."""
        return self.sampler != "none"

    def words(self, seed: int) -> dict[str, Any]:
        """Return what `ltstore.workflow.train` is called with, besides rows and places."""
        if self.head in UNTRAINED:
            return {"head": self.head}
        return {
            "settings": TrainSettings(seed=seed, **self.settings),
            "sampler": self.sampler,
            "sampler_settings": self.sampler_settings,
        }


SAMPLERS: dict[str, Baseline] = {
    "duplicate": Baseline(sampler="duplicate"),
    "smote": Baseline(sampler="smote"),
    "smote-spherical": Baseline(sampler="smote", sampler_settings={"spherical": True}),
    "kde": Baseline(sampler="kde"),
    "vmf": Baseline(sampler="vmf"),
    "distribution-calibration": Baseline(sampler="distribution-calibration"),
    "residual-transfer": Baseline(sampler="residual-transfer"),
    "neighbor-gauss": Baseline(sampler="neighbor-gauss"),
    "text": Baseline(sampler="text", needs_text=True),
}
BASELINES: dict[str, Baseline] = {
    REFERENCE: Baseline(),
    "ce": Baseline(settings={"loss": "ce"}),
    "gda": Baseline(head="gda"),
    "ridge": Baseline(head="ridge"),
    "ncm": Baseline(head="ncm"),
    "auto": Baseline(sampler="auto"),
    **SAMPLERS,
    "implicit": Baseline(settings={"implicit": 1.0}),
    ALL_ROWS: Baseline(settings={"loss": "ce"}, all_rows=True),
    ZERO_SHOT: Baseline(head=ZERO_SHOT, needs_text=True),
}
"""By name, the reference first."""
QUICK = (REFERENCE, "ce", "gda", "ridge", "ncm", "neighbor-gauss")
"""A first look: what takes seconds, and the default sampler."""
