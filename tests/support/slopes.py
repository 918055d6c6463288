"""The gradient that an objective gives, against differences of a naive value."""

from __future__ import annotations

import numpy as np
import pytest


def assert_slopes(evaluation, value, weight, bias, rng, *, tolerance):
    """Compare in five random directions of weight and bias."""
    step = 1e-5
    for _ in range(5):
        dw, db = rng.normal(size=weight.shape), rng.normal(size=bias.shape)
        rise = value(weight + step * dw, bias + step * db) - value(weight - step * dw, bias - step * db)
        along = np.vdot(evaluation.grad_weight, dw) + evaluation.grad_bias @ db
        assert along == pytest.approx(rise / (2 * step), rel=1e-4, abs=tolerance)
