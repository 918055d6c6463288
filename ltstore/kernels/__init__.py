"""Numeric kernels: arrays in, arrays out.

The one rule: every backend computes what its definition says and is tested against the naive form of it: the softmax
of `contract` against `reference` (float64), the rows of `rows` against NumPy's one-liners. A kernel knows nothing of
stores or settings. Start reading at `contract`.
"""

from ltstore.kernels.contract import SoftmaxTerms
from ltstore.kernels.dispatch import BACKENDS, resolve_backend, softmax_gradient

__all__ = ["BACKENDS", "SoftmaxTerms", "resolve_backend", "softmax_gradient"]
