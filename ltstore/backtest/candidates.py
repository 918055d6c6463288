"""What is tried: heads with and without synthetic rows, blends of them, and how far the bias leans to the tail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ltstore.errors import ConfigError
from ltstore.linear import TrainSettings
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.sampling import SAMPLERS

POSTHOC_TAUS = (0.0, 0.125, 0.25, 0.375, 0.5)
BROAD_SAMPLERS = ("neighbor-gauss", "residual-transfer", "kde")
"""Of the broad blend: they move means and spread the tail in three ways that err differently."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One head that is trained, or made in closed form.

    Attributes
    ----------
    head : {"linear", "ncm", "gda", "ridge"}
    sampler : str
        "none", or a sampler whose rows fill every class up to the largest.
    sampler_settings : mapping
    max_ratio : float, optional
        At most this many synthetic rows per real row of a class.
    loss : {"ce", "la"}
        Of a trained head.
    implicit : float
        Of a trained head, see `ltstore.linear.TrainSettings`.
    """

    head: str = "linear"
    sampler: str = "none"
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)
    max_ratio: float | None = None
    loss: str = "la"
    implicit: float = 0.0

    def __post_init__(self) -> None:
        if self.head not in ("linear", *CLOSED_FORMS):
            raise ConfigError(f"unknown head {self.head!r}; known: linear, {', '.join(CLOSED_FORMS)}")
        if self.sampler not in ("none", *SAMPLERS):
            raise ConfigError(f"unknown sampler {self.sampler!r}; known: none, {', '.join(SAMPLERS)}")
        if self.head != "linear" and self.sampler != "none":
            raise ConfigError(f"head {self.head!r} is a closed form of the moments and takes no synthetic rows")
        if self.sampler == "none" and (self.sampler_settings or self.max_ratio is not None):
            raise ConfigError("settings of a sampler would do nothing without one: name it, or leave them out")
        if self.head != "linear" and self.implicit:
            raise ConfigError(f"head {self.head!r} is a closed form and has no implicit rows")
        TrainSettings(loss=self.loss, implicit=self.implicit)

    @property
    def name(self) -> str:
        """The sampler, the closed form, or the loss, and settings: whatever tells it from others."""
        if self.head != "linear":
            return self.head
        told = {**self.sampler_settings, "max_ratio": self.max_ratio, "implicit": self.implicit or None}
        words = [f"{key} {value}" for key, value in told.items() if value is not None]
        if self.loss == "ce" and self.sampler != "none":
            words.append("ce")
        name = self.loss if self.sampler == "none" else self.sampler
        if words == [f"implicit {1.0}"] and name == "la":
            return "implicit"
        return f"{name} ({', '.join(words)})" if words else name

    @property
    def key(self) -> str:
        """Equal for members that would be trained alike."""
        return repr(sorted(asdict(self).items()))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A head to choose from: the mean of its members' logits, which is a linear head again.

    Attributes
    ----------
    members : tuple of Member
    posthoc_tau : float
        This times the log of each class's share of the real rows is taken from its logit at the end: above 0 leans to
        the tail.
    """

    members: tuple[Member, ...]
    posthoc_tau: float = 0.0

    @property
    def base(self) -> str:
        """Name without the lean."""
        return " + ".join(member.name for member in self.members)

    @property
    def name(self) -> str:
        """Name with the lean, where there is one."""
        return self.base if not self.posthoc_tau else f"{self.base}, lean {self.posthoc_tau:g}"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that `from_json` turns into an equal candidate."""
        return {"members": [asdict(member) for member in self.members], "posthoc_tau": self.posthoc_tau}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Return the candidate; ConfigError where a member is not known here."""
        try:
            members = tuple(Member(**member) for member in data["members"])
            return cls(members=members, posthoc_tau=float(data["posthoc_tau"]))
        except (KeyError, TypeError, ValueError) as err:
            raise ConfigError(f"not a candidate: {err}") from err


def default_candidates(samplers: Sequence[str] | None = None) -> tuple[Candidate, ...]:
    """Return what is compared unless told otherwise.

    Plain and logit-adjusted cross entropy, the latter with implicit rows too, the closed forms GDA and ridge, every
    sampler that needs no setting; blends of the adjusted head with GDA, with implicit rows, with each sampler, and with
    sampler and GDA; and the broad blend of adjusted head, implicit rows, three samplers and GDA. All but plain cross
    entropy come with leans of 0 to 0.5. Leans cost nothing and blends next to nothing: only the members are trained.

    Parameters
    ----------
    samplers : sequence of str, optional
        Only these.
    """
    names = tuple(samplers) if samplers is not None else tuple(name for name in SAMPLERS if name != "text")
    ce, la, implicit = Member(loss="ce"), Member(), Member(implicit=1.0)
    gda, ridge = Member(head="gda"), Member(head="ridge")
    drawn = {name: Member(sampler=name) for name in names}
    broad = (la, implicit, *(drawn[name] for name in BROAD_SAMPLERS if name in drawn), gda)
    bases: list[tuple[Member, ...]] = [
        (la,),
        (implicit,),
        (gda,),
        (ridge,),
        *((each,) for each in drawn.values()),
    ]
    bases += [(la, gda), (la, implicit)]
    bases += [blend for each in drawn.values() for blend in ((la, each), (la, each, gda))]
    return (
        Candidate(members=(ce,)),
        *(Candidate(members=members, posthoc_tau=tau) for members in (*bases, broad) for tau in POSTHOC_TAUS),
    )
