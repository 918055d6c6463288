"""Choosing how to treat the tail without the test split: head classes are cut down to tail size and judged.

Its one rule: it is given the rows to train on and nothing else, so no test row can reach a choice.

Start reading at `plan` (pure: which rows are hidden), then `candidates`, `trial` and `card` (what is chosen, and why).
"""

from ltstore.backtest.candidates import Candidate, Member, default_candidates
from ltstore.backtest.card import RULE, Card, Result
from ltstore.backtest.plan import Trial, plan_trials
from ltstore.backtest.trial import BLEND_ROWS, blend_heads, run_backtest

__all__ = [
    "BLEND_ROWS",
    "RULE",
    "Candidate",
    "Card",
    "Member",
    "Result",
    "Trial",
    "blend_heads",
    "default_candidates",
    "plan_trials",
    "run_backtest",
]
