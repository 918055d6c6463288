"""Synthetic rows of rare classes, drawn from what their own rows and their donor classes say.

The one rule: row i of a class is a pure function of (seed, sampler, settings, class, epoch, i), so that
workers, batches and resumed runs agree. Start reading at `base`, then `neighbor_gauss`; what samplers share is in
`lending` (donors), `mean_pull`, `covariance` and `anchored_gauss`; `acceptance` draws again what `judges` reject.
"""

from ltstore.sampling.acceptance import AcceptingSampler, Judge, acceptance_rates
from ltstore.sampling.affine import AffineSampler, Combination
from ltstore.sampling.base import BaseSampler
from ltstore.sampling.distribution_calibration import (
    DistributionCalibrationSampler,
    DistributionCalibrationSettings,
)
from ltstore.sampling.duplicate import DuplicateSampler, DuplicateSettings
from ltstore.sampling.judges import LinearJudge, NearestJudge
from ltstore.sampling.kde import KdeSampler, KdeSettings
from ltstore.sampling.materialize import ShardWriter, materialize, read_synthetic, synthetic_blocks
from ltstore.sampling.neighbor_gauss import NeighborGaussSampler, NeighborGaussSettings
from ltstore.sampling.registry import SAMPLERS, make_sampler
from ltstore.sampling.residual_transfer import ResidualTransferSampler, ResidualTransferSettings
from ltstore.sampling.smote import SmoteSampler, SmoteSettings
from ltstore.sampling.targets import balance_targets, bounded_targets
from ltstore.sampling.text import TextSampler, TextSettings
from ltstore.sampling.vmf import VmfSampler, VmfSettings

__all__ = [
    "SAMPLERS",
    "AcceptingSampler",
    "AffineSampler",
    "BaseSampler",
    "Combination",
    "DistributionCalibrationSampler",
    "DistributionCalibrationSettings",
    "DuplicateSampler",
    "DuplicateSettings",
    "Judge",
    "KdeSampler",
    "KdeSettings",
    "LinearJudge",
    "NearestJudge",
    "NeighborGaussSampler",
    "NeighborGaussSettings",
    "ResidualTransferSampler",
    "ResidualTransferSettings",
    "ShardWriter",
    "SmoteSampler",
    "SmoteSettings",
    "TextSampler",
    "TextSettings",
    "VmfSampler",
    "VmfSettings",
    "acceptance_rates",
    "balance_targets",
    "bounded_targets",
    "make_sampler",
    "materialize",
    "read_synthetic",
    "synthetic_blocks",
]
