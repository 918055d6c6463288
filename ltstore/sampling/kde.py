"""`kde`: the smoothed bootstrap that keeps the variance: Gaussian kernels around the class's real rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.sampling.anchored_gauss import NOISES, AnchoredGaussSampler
from ltstore.sampling.bounds import check_choice, check_count, check_number
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.types import Donors, DoubleArray, IntArray, Moments


@dataclass(frozen=True, kw_only=True)
class KdeSettings:
    """Settings of `kde`.

    Attributes
    ----------
    bandwidth : float or None
        h >= 0, in standard deviations of the class. None takes the rule in `KdeSampler`. 0 leaves the least
        noise that keeps the variance, of covariance S' / n.
    nu : float
        > 0: how many rows the borrowed covariance counts for.
    donor_share : float
        w in [0, 1]: share of the donors' covariance in the borrowed one; the rest is the pooled covariance.
    noise : {"gauss", "residuals"}
        Gaussian, or made of offsets of real rows, see `AnchoredGaussSampler`.
    terms : int
        At least 1: offsets in a row's noise.
    """

    bandwidth: float | None = None
    nu: float = 20.0
    donor_share: float = 0.5
    noise: str = "gauss"
    terms: int = 4

    def __post_init__(self) -> None:
        check_number("kde", "bandwidth", self.bandwidth, optional=True)
        check_number("kde", "nu", self.nu, open_low=True)
        check_number("kde", "donor_share", self.donor_share, high=1.0)
        check_choice("kde", "noise", self.noise, NOISES)
        check_count("kde", "terms", self.terms)


class KdeSampler(AnchoredGaussSampler):
    """Draws ``x = mu + a (x_j - mu) + sqrt(1 - a^2 (n - 1) / n) e``, ``a = 1 / sqrt(1 + h^2)``, e of covariance S'.

    Silverman's smoothed bootstrap with the variance kept: a kernel of covariance h^2 S' around a real row x_j, the
    whole shrunk by 1 / sqrt(1 + h^2) toward the class mean mu, because a plain kernel estimate is 1 + h^2 times too
    wide. S' is the covariance of neighbor-gauss, borrowed where rows are few; the factor of the noise (1 - a^2 =
    a^2 h^2 for many rows) makes the expected covariance S' for every n, so that one row gives the borrowed Gaussian
    around it. The mean is the
    class's own.

    The bandwidth is the normal-reference rule ``h = (4 / ((d + 2) n))^(1 / (d + 4))`` with d the number of
    dimensions that the pooled covariance P has, ``(tr P)^2 / tr(P^2)``: D where all eigenvalues are equal, 1
    where there is only one.

    References
    ----------
    Silverman (1986) "Density Estimation for Statistics and Data Analysis", section 6.4.1 for the sampling and
    equation 4.14 for the rule.
    """

    name: ClassVar[str] = "kde"
    settings_type: ClassVar[type] = KdeSettings
    _settings: KdeSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        lending = Lending.of(donors)
        if s.bandwidth is None:
            h = normal_bandwidth(moments.counts, effective_dimensions(moments.pooled))
        else:
            h = np.full(len(moments.counts), float(s.bandwidth))
        self._keep(
            moments,
            moments.means,
            borrowed_covariance(moments, lending, nu=s.nu, donor_share=s.donor_share),
            anchor=1.0 / np.sqrt(1.0 + h * h),
            noise=s.noise,
            terms=s.terms,
        )


def normal_bandwidth(counts: IntArray, dimensions: float) -> DoubleArray:
    """Return (C,) ``h = (4 / ((d + 2) n))^(1 / (d + 4))``, with n at least 1."""
    n = np.maximum(counts, 1).astype(np.float64)
    bandwidth: DoubleArray = (4.0 / ((dimensions + 2.0) * n)) ** (1.0 / (dimensions + 4.0))
    return bandwidth


def effective_dimensions(covariance: DoubleArray) -> float:
    """Return ``(tr P)^2 / tr(P^2)``, between 1 and D; 1 for a covariance of 0."""
    trace = float(np.trace(covariance))
    return trace**2 / float(np.vdot(covariance, covariance)) if trace > 0 else 1.0
