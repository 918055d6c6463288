"""Rows on their way into training: blocks for the solver of this library, minibatches for a loop of one's own.

The one rule: which rows come in which block or batch is decided in `plan` and `batch_plan` (pure, no data);
`loader`, `shuffling`, `batches` and `torch_dataset` only carry it out. Start reading at `TrainingStream` (real rows,
then synthetic rows, the same ones at every pass; shuffled by `iter_shuffled`) or at `iter_batches`. `EmbeddingDataset`
is loaded when it is first used, because it imports torch.
"""

from typing import TYPE_CHECKING, Any

from ltstore.stream.batch_plan import BatchPlan
from ltstore.stream.batches import Batch, iter_batches, read_batches
from ltstore.stream.combined import CombinedRows
from ltstore.stream.loader import Block, TrainingStream
from ltstore.stream.plan import RealBlock, SyntheticBlock, SyntheticPiece, plan_real, plan_synthetic
from ltstore.stream.shuffling import iter_shuffled

if TYPE_CHECKING:
    from ltstore.stream.torch_dataset import EmbeddingDataset

__all__ = [
    "Batch",
    "BatchPlan",
    "Block",
    "CombinedRows",
    "EmbeddingDataset",
    "RealBlock",
    "SyntheticBlock",
    "SyntheticPiece",
    "TrainingStream",
    "iter_batches",
    "iter_shuffled",
    "plan_real",
    "plan_synthetic",
    "read_batches",
]


def __getattr__(name: str) -> Any:
    if name != "EmbeddingDataset":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ltstore.stream.torch_dataset import EmbeddingDataset

    return EmbeddingDataset
