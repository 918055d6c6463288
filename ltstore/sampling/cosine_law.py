"""The cosine between a von Mises-Fisher row and its mean direction, drawn by inverting its distribution function."""

from __future__ import annotations

import numpy as np

from ltstore.types import DoubleArray

_CELLS = 512
_REACH = 14.0  # widths on either side of the mode: less than 1e-20 of the mass is outside
_NEWTON_STEPS = 4
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


class CosineLaw:
    """Angle theta of density ``g(theta) = exp(kappa cos theta) sin(theta)^(D - 2)`` on [0, pi], up to a constant.

    One uniform a row gives the angle ``F^-1(u)``, so a row uses a fixed number of random words; rejection (Wood
    1994) uses a random number of them. F is tabulated by Gauss-Legendre quadrature over the cells of a grid;
    inside a cell the same quadrature and Newton's method solve F(theta) = u to about 1e-12 of the width of the
    law. For D = 1 the sphere is two points: theta = 0 with probability 1 / (1 + exp(-2 kappa)), else pi.

    Parameters
    ----------
    kappa : float
        Concentration, in [0, inf]; inf has theta = 0 always.
    n_features : int
        D, at least 1.

    Notes
    -----
    2,048 values of g for the table (0.1 ms), 20 a row (1 us).

    References
    ----------
    Wood (1994) "Simulation of the von Mises Fisher distribution", Communications in Statistics 23: the law of the
    cosine. Kang and Oh (2024) "Novel sampling method for the von Mises-Fisher distribution", Statistics and
    Computing 34: tables in place of rejection, there of a mixture of beta laws; here of the distribution function.
    """

    def __init__(self, kappa: float, n_features: int) -> None:
        self._kappa = kappa
        self._power = n_features - 2
        if np.isinf(kappa) or n_features == 1:
            return
        mode, width = self._mode_and_width()
        self._peak = float(self._log_density(np.array([mode]))[0]) if mode > 0 else 0.0
        low, high = max(mode - _REACH * width, 0.0), min(mode + _REACH * width, np.pi)
        self._edges = np.linspace(low, high, _CELLS + 1)
        self._mass = self._integral(self._edges[:-1], self._edges[1:])
        cumulative = np.concatenate([[0.0], np.cumsum(self._mass)])
        self._total = float(cumulative[-1])
        self._cumulative = cumulative

    def angles(self, uniforms: DoubleArray) -> DoubleArray:
        """Return F^-1 of each uniform: (n,) radians, new; larger uniforms give larger angles.

        Parameters
        ----------
        uniforms : (n,) float64, in (0, 1)
        """
        if self._power == -1:
            far = uniforms > 1.0 / (1.0 + np.exp(-2.0 * self._kappa))
            return np.where(far, np.pi, 0.0)
        if np.isinf(self._kappa):
            return np.zeros_like(uniforms)
        wanted = uniforms * self._total
        cell = np.clip(np.searchsorted(self._cumulative, wanted, side="right") - 1, 0, _CELLS - 1)
        left, right, mass = self._edges[cell], self._edges[cell + 1], self._mass[cell]
        rest = wanted - self._cumulative[cell]
        share = np.divide(rest, mass, out=np.full_like(rest, 0.5), where=mass > 0)
        share = np.clip(share, 0.0, 1.0)
        # At a pole g is a power: the law of the distance to it starts Newton near the solution there.
        root = 1.0 / (self._power + 1)
        share = np.where(left == 0, share**root, np.where(right == np.pi, 1 - (1 - share) ** root, share))
        theta: DoubleArray = left + (right - left) * share
        for _ in range(_NEWTON_STEPS):
            density = self._density(theta)
            missing = rest - self._integral(left, theta)
            step = np.divide(missing, density, out=np.zeros_like(rest), where=density > 0)
            theta = np.clip(theta + step, left, right)
        return theta

    def _mode_and_width(self) -> tuple[float, float]:
        """Where log g is largest, and 1 / sqrt of minus its second derivative there."""
        kappa, power = self._kappa, float(self._power)
        if power == 0:
            return 0.0, 1.0 / np.sqrt(kappa) if kappa > 0 else np.inf
        # kappa sin^2 = power cos: a quadratic in the cosine, its root written so that nothing cancels.
        cosine = 2 * kappa / (power + np.hypot(power, 2 * kappa))
        square_sine = power * cosine / kappa if kappa > 0 else 1.0
        curvature = kappa * cosine + power / square_sine
        return float(np.arctan2(np.sqrt(square_sine), cosine)), float(1.0 / np.sqrt(curvature))

    def _log_density(self, theta: DoubleArray) -> DoubleArray:
        half = np.sin(0.5 * theta)
        log_density: DoubleArray = -2.0 * self._kappa * half * half
        if self._power:
            sine = np.maximum(np.sin(theta), np.finfo(np.float64).tiny)
            log_density += self._power * np.log(sine)
        return log_density

    def _density(self, theta: DoubleArray) -> DoubleArray:
        density: DoubleArray = np.exp(self._log_density(theta) - self._peak)
        return density

    def _integral(self, left: DoubleArray, right: DoubleArray) -> DoubleArray:
        """Return the integral of g over each [left, right], within one cell."""
        half, middle = 0.5 * (right - left), 0.5 * (right + left)
        total = np.zeros_like(half)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            total += weight * self._density(middle + node * half)
        return half * total
