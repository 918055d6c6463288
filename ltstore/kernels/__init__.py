"""Numeric kernels: arrays in, arrays out.

The one rule: every backend computes what `contract` defines and is tested against `reference` (float64).
A kernel knows nothing of rows, stores or settings. Start reading at `contract`.
"""

from ltstore.kernels.dispatch import BACKENDS, resolve_backend, softmax_gradient

__all__ = ["BACKENDS", "resolve_backend", "softmax_gradient"]
