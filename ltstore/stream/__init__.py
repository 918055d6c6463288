"""The training stream: real rows, then synthetic rows, in blocks, the same ones at every pass.

The one rule: which rows come in which block is decided in `plan` (pure, no data); `loader` only carries it
out. Start reading at `TrainingStream`.
"""

from ltstore.stream.loader import TrainingStream
from ltstore.stream.plan import RealBlock, SyntheticBlock, SyntheticPiece, plan_real, plan_synthetic

__all__ = [
    "RealBlock",
    "SyntheticBlock",
    "SyntheticPiece",
    "TrainingStream",
    "plan_real",
    "plan_synthetic",
]
