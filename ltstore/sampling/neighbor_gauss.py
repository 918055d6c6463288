"""`neighbor-gauss`: a Gaussian per class, its mean and covariance shrunk toward those of its donor classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.sampling.anchored_gauss import NOISES, AnchoredGaussSampler
from ltstore.sampling.bounds import check_choice, check_count, check_number
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.sampling.mean_pull import pull_to_donors
from ltstore.types import Donors, Moments


@dataclass(frozen=True, kw_only=True)
class NeighborGaussSettings:
    """Settings of `neighbor-gauss`; the defaults are argued in docs/methods.md.

    Attributes
    ----------
    anchor : float
        a in [0, 1]: how much of a real row's offset from its class mean a synthetic row keeps. 0 draws from
        the Gaussian alone, 1 around real rows.
    nu : float
        > 0: how many rows the borrowed covariance counts for.
    donor_share : float
        w in [0, 1]: share of the donors' covariance in the borrowed one; the rest is the pooled covariance.
    pull : float
        gamma in [0, 1]: the farthest, as a share of the way, that a mean moves toward its donors' mean.
    pull_rows : float or None
        kappa >= 0: how many rows the pull counts for; at n_c = kappa it is gamma / 2. None estimates it from
        the rows (see `NeighborGaussSampler`); the sampler's settings give the estimate once it has been fitted.
    spread : float
        >= 0: factor on the standard deviation of the noise; 1 keeps the law below.
    noise : {"gauss", "residuals"}
        Gaussian, or made of offsets of real rows, see `AnchoredGaussSampler`.
    terms : int
        At least 1: offsets in a row's noise.
    """

    anchor: float = 0.5
    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None
    spread: float = 1.0
    noise: str = "gauss"
    terms: int = 4

    def __post_init__(self) -> None:
        for name in ("anchor", "donor_share", "pull"):
            check_number("neighbor-gauss", name, getattr(self, name), high=1.0)
        check_number("neighbor-gauss", "nu", self.nu, open_low=True)
        check_number("neighbor-gauss", "pull_rows", self.pull_rows, optional=True)
        check_number("neighbor-gauss", "spread", self.spread)
        check_choice("neighbor-gauss", "noise", self.noise, NOISES)
        check_count("neighbor-gauss", "terms", self.terms)


class NeighborGaussSampler(AnchoredGaussSampler):
    """Draws ``x = mu' + a (x_j - mu) + sqrt(1 - a^2 (n - 1) / n) (U L e_r + sqrt(d) * e_D)``.

    x_j is a random real row of the class (the parent), mu its mean, n its count, a the setting `anchor`, and

    - ``mu' = mu + gamma kappa / (kappa + n) (m - mu)``, m the donors' weighted mean;
    - ``S' = (S + nu T) / (n - 1 + nu)`` = U L L' U' + diag(d), S the scatter of the class;
    - ``T = w sum_h weight_h S_h / (n_h - 1) + (1 - w) pooled``.

    All covariances are low rank + diagonal in the basis of the moments. A class without donors has T = pooled
    and mu' = mu. The factor of the noise makes the expected covariance S' for every n: the anchors bring
    a^2 S / n, which is (n - 1) / n of a^2 times the class covariance on average. So n = 1 draws from the
    borrowed Gaussian, and n -> infinity from the class's own.

    `pull_rows` = None estimates kappa by empirical Bayes, see `ltstore.sampling.mean_pull.pull_to_prior`.

    Notes
    -----
    Fit: C small eigendecompositions. Memory and the cost of a row: `AnchoredGaussSampler`.

    References
    ----------
    Mean: Efron and Morris (1973) "Stein's estimation rule and its competitors: an empirical Bayes approach".
    Covariance: posterior mean of an inverse-Wishart prior, Murphy (2012) "Machine Learning", section 4.6.2.
    Borrowing the statistics of near classes: Yang, Liu, Xu (2021) "Free lunch for few-shot learning:
    distribution calibration"; Vigneswaran et al. (2021) "Feature generation for long-tail classification"
    (TailCalib). Sampling in the latent space of a frozen model: Sharma (2025), arXiv 2509.15859.
    """

    name: ClassVar[str] = "neighbor-gauss"
    settings_type: ClassVar[type] = NeighborGaussSettings
    _settings: NeighborGaussSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        lending = Lending.of(donors)
        variance = float(np.trace(moments.pooled))
        pulled = pull_to_donors(
            moments.counts, moments.means, variance, lending, pull=s.pull, pull_rows=s.pull_rows
        )
        self._resolved = {"pull_rows": pulled.pull_rows}
        self._keep(
            moments,
            pulled.means,
            borrowed_covariance(moments, lending, nu=s.nu, donor_share=s.donor_share),
            anchor=np.full(len(moments.counts), s.anchor),
            spread=s.spread,
            noise=s.noise,
            terms=s.terms,
        )
