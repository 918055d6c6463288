"""The trainer with scikit-learn's face and the samplers with imbalanced-learn's.

The one rule: nothing is computed here. Arrays and labels become the rows that other rooms work on, so that a model or a
set of synthetic rows is that of the command line. Start reading at `LongTailClassifier`, then `LatentSampler`.
"""

from ltstore.estimators.classifier import LongTailClassifier
from ltstore.estimators.samplers import (
    DistributionCalibrationOverSampler,
    DuplicateOverSampler,
    KdeOverSampler,
    LatentSampler,
    NeighborGaussOverSampler,
    ResidualTransferOverSampler,
    SmoteOverSampler,
    TextOverSampler,
    VmfOverSampler,
)

__all__ = [
    "DistributionCalibrationOverSampler",
    "DuplicateOverSampler",
    "KdeOverSampler",
    "LatentSampler",
    "LongTailClassifier",
    "NeighborGaussOverSampler",
    "ResidualTransferOverSampler",
    "SmoteOverSampler",
    "TextOverSampler",
    "VmfOverSampler",
]
