"""The trainer with scikit-learn's face and the samplers with imbalanced-learn's.

The one rule: nothing is computed here. Arrays and labels become the rows that other rooms work on, so that a model or a
set of synthetic rows is that of the command line. Start reading at `LongTailClassifier`, then `LatentSampler`.
"""

from ltstore.estimators.classifier import LongTailClassifier

__all__ = ["LongTailClassifier"]
