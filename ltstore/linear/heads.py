"""From the parameters of a head to the weights that rows are multiplied by, and the gradient back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ltstore.types import DoubleArray

HEADS = ("linear", "cosine")
COSINE_SCALE = 25.0


class HeadForm(Protocol):
    """How a head's weights come from its parameters."""

    @property
    def has_bias(self) -> bool:
        """Whether a bias is trained, and rows are centred for it."""

    def weights(self, parameters: DoubleArray) -> DoubleArray:
        """(C, D) parameters to the (C, D) weights of the logits; may be the same array."""

    def pull_back(self, parameters: DoubleArray, gradient: DoubleArray) -> DoubleArray:
        """Gradient with respect to the weights to that with respect to the parameters."""


@dataclass(frozen=True)
class LinearForm:
    """Weights are the parameters: logits W x + b."""

    has_bias = True

    def weights(self, parameters: DoubleArray) -> DoubleArray:
        """Return the parameters."""
        return parameters

    def pull_back(self, parameters: DoubleArray, gradient: DoubleArray) -> DoubleArray:
        """Return the gradient."""
        return gradient


@dataclass(frozen=True)
class CosineForm:
    """Logits scale * cos(w, x), for rows of unit norm: weight c is scale * w_c / |w_c|, and there is no bias.

    A class whose parameters are all zero has weight and gradient zero.

    Attributes
    ----------
    scale : float

    References
    ----------
    Gidaris & Komodakis 2018, "Dynamic few-shot visual learning without forgetting", section 3.2.
    """

    scale: float
    has_bias = False

    def weights(self, parameters: DoubleArray) -> DoubleArray:
        """Return rows of norm `scale`."""
        return self.scale * parameters / _norms(parameters)

    def pull_back(self, parameters: DoubleArray, gradient: DoubleArray) -> DoubleArray:
        """Return (scale / |w|) (g - (g'u) u) with u = w / |w|: what is left across the direction."""
        norms = _norms(parameters)
        unit = parameters / norms
        along = np.einsum("cd,cd->c", gradient, unit)[:, None]
        back: DoubleArray = (gradient - along * unit) * (self.scale / norms)
        return back


def _norms(parameters: DoubleArray) -> DoubleArray:
    norms = np.linalg.norm(parameters, axis=1, keepdims=True)
    safe: DoubleArray = np.where(norms > 0, norms, 1.0)
    return safe
