"""Writers of stores through the library, killed and resumed: a round of kill_stress."""

from __future__ import annotations

from collections import Counter

from support import kill_stress
from support.campaign.trial import Round

NAMES = {
    "killed": "killed",
    "refused as busy": "refused clearly",
    "stopped by an error": "refused clearly",
    "finished first": "finished all the same",
    "rounds": "resumed to the same",
}


def run(round_: Round) -> None:
    """Run the round of this number."""
    counts: Counter[str] = Counter()
    kill_stress.one_round(round_.seed, round_.number, round_.shop.scratch, counts)
    for theirs, ours in NAMES.items():
        round_.counts[ours] += counts[theirs]
