"""How heads stand over seeds, from one record for each seed and head: accuracy, gain over the reference, gap closed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltstore.metrics import MEASURES, Difference, Estimate, Evaluation, PairedAccuracy, paired_accuracy
from ltstore.types import IntArray
from ltstore.workflow.evaluation.judging import RESAMPLES, RESAMPLES_PER_MODEL
from ltstore.workflow.reproduction.baselines import ALL_ROWS, BASELINES, REFERENCE

_PREDICTIONS = np.dtype("<i4")
GAP_FROM = "ce"


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """One head of one seed, judged.

    Attributes
    ----------
    head : str
        Of `BASELINES`.
    seed : int
    evaluation : Evaluation
        Groups by the rows that were trained on, those of the cut for `all-rows` too.
    predictions : (N,) int64
    seconds : float
        Of training, a search and the class moments included where they were not kept already.
    provenance : mapping
        `ltstore.provenance.record` of the model.
    """

    head: str
    seed: int
    evaluation: Evaluation
    predictions: IntArray
    seconds: float
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `from_json` turns into an equal one."""
        packed = base64.b64encode(self.predictions.astype(_PREDICTIONS).tobytes()).decode()
        told = {"head": self.head, "seed": self.seed, "seconds": self.seconds, "provenance": self.provenance}
        return {**told, "evaluation": self.evaluation.to_json(), "predictions": packed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeadRecord:
        """Build a record from `to_json`'s dict; KeyError, TypeError or ValueError where it is none."""
        if data["head"] not in BASELINES:
            raise ValueError(f"unknown head {data['head']!r}")
        predictions = np.frombuffer(base64.b64decode(data["predictions"]), _PREDICTIONS)
        return cls(
            head=data["head"],
            seed=data["seed"],
            evaluation=Evaluation.from_json(data["evaluation"]),
            predictions=predictions.astype(np.int64),
            seconds=data["seconds"],
            provenance=data["provenance"],
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One head over its seeds.

    Attributes
    ----------
    head : str
    seeds : tuple of int
    accuracy : mapping of measure to Estimate or None
        Mean over seeds; the interval is over test rows. None for a group without test rows.
    deviation : mapping of measure to float or None
        Standard deviation over seeds (n - 1); None of one seed.
    over_reference : mapping of measure to Difference or None
        Mean minus that of the reference on the same rows, p-values adjusted over the heads; None for the reference.
    gap_closed : Estimate or None
        In balanced accuracy, from `ce` to `all-rows`; None where these are missing or there is no gap.
    worst, ece, seconds : float
        Means over seeds: accuracy of the worst class, calibration error, seconds of training.
    """

    head: str
    seeds: tuple[int, ...]
    accuracy: Mapping[str, Estimate | None]
    deviation: Mapping[str, float | None]
    over_reference: Mapping[str, Difference | None]
    gap_closed: Estimate | None
    worst: float
    ece: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def standings(records: Sequence[HeadRecord], labels: IntArray) -> tuple[Standing, ...]:
    """Return how the heads stand, in the order of `BASELINES`.

    Parameters
    ----------
    records : sequence of HeadRecord
        Of the same test rows, among them the reference; classes of every seed are of the same sizes.
    labels : (N,) int64
    """
    places = {
        head: found
        for head in BASELINES
        if (found := [place for place, record in enumerate(records) if record.head == head])
    }
    others = [head for head in places if head != REFERENCE]
    paired = paired_accuracy(
        labels,
        [record.predictions for record in records],
        records[0].evaluation.class_counts,
        n_bootstrap=max(RESAMPLES, RESAMPLES_PER_MODEL * len(others)),
    )
    gains = {
        measure: paired.differences(measure, [places[head] for head in others], places[REFERENCE])
        for measure in MEASURES
    }
    return tuple(
        Standing(
            head=head,
            seeds=tuple(records[place].seed for place in members),
            accuracy={measure: paired.mean(measure, members) for measure in MEASURES},
            deviation={measure: _deviation(paired, measure, members) for measure in MEASURES},
            over_reference={
                measure: None if found is None or head == REFERENCE else found[others.index(head)]
                for measure, found in gains.items()
            },
            gap_closed=None
            if not {GAP_FROM, ALL_ROWS} <= set(places)
            else paired.gap_closed("balanced", members, places[GAP_FROM], places[ALL_ROWS]),
            worst=float(np.mean([records[place].evaluation.worst.accuracy for place in members])),
            ece=float(np.mean([_ece(records[place].evaluation) for place in members])),
            seconds=float(np.mean([records[place].seconds for place in members])),
        )
        for head, members in places.items()
    )


def markdown(table: Sequence[Standing]) -> str:
    """Return the table in Markdown: percent and points; * where a gain is significant after Holm's correction."""
    over = [f"over {REFERENCE}: {measure}" for measure in ("overall", "few")]
    columns = ["head", "seeds", *MEASURES, *over, "worst", "ECE", "gap closed", "seconds"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for one in table:
        cells = [
            one.head,
            str(len(one.seeds)),
            *(_accuracy(one, measure) for measure in MEASURES),
            *(_gain(one.over_reference[measure]) for measure in ("overall", "few")),
            f"{100 * one.worst:.1f}",
            f"{100 * one.ece:.1f}",
            "" if one.gap_closed is None else f"{100 * one.gap_closed.value:.0f}",
            f"{one.seconds:.0f}" if one.seconds >= 10 else f"{one.seconds:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _accuracy(one: Standing, measure: str) -> str:
    """Return "55.0 ± 1.0 (0.4)": mean, half of the interval over test rows, deviation over seeds."""
    found, deviation = one.accuracy[measure], one.deviation[measure]
    if found is None or found.low is None or found.high is None:
        return "n/a"
    spread = "" if deviation is None else f" ({100 * deviation:.1f})"
    return f"{100 * found.value:.1f} ± {50 * (found.high - found.low):.1f}{spread}"


def _gain(found: Difference | None) -> str:
    if found is None:
        return ""
    mark = "*" if found.p_adjusted < 0.05 else ""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]{mark}"


def _deviation(paired: PairedAccuracy, measure: str, members: Sequence[int]) -> float | None:
    if measure not in paired.values or len(members) == 1:
        return None
    return float(np.std(paired.values[measure][list(members)], ddof=1))


def _ece(evaluation: Evaluation) -> float:
    assert evaluation.ece is not None  # `compare` asks for it
    return evaluation.ece.value
