"""Synthetic rows of rare classes, drawn from what their own rows and their donor classes say.

The one rule: row i of a class is a pure function of (seed, sampler, settings, class, epoch, i), so that
workers, batches and resumed runs agree. Start reading at `base`, then `neighbor_gauss`.
"""

from ltstore.sampling.base import BaseSampler
from ltstore.sampling.duplicate import DuplicateSampler, DuplicateSettings
from ltstore.sampling.materialize import ShardWriter, materialize, read_synthetic, synthetic_blocks
from ltstore.sampling.neighbor_gauss import NeighborGaussSampler, NeighborGaussSettings
from ltstore.sampling.registry import SAMPLERS, make_sampler
from ltstore.sampling.targets import balance_targets

__all__ = [
    "SAMPLERS",
    "BaseSampler",
    "DuplicateSampler",
    "DuplicateSettings",
    "NeighborGaussSampler",
    "NeighborGaussSettings",
    "ShardWriter",
    "balance_targets",
    "make_sampler",
    "materialize",
    "read_synthetic",
    "synthetic_blocks",
]
