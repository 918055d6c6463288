"""`residual-transfer`: a donor row's offset from its own class mean, put on the tail class's mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ltstore.sampling.affine import AffineSampler, Combination
from ltstore.sampling.base import DrawKey, slot_of
from ltstore.sampling.bounds import check_flag, check_number
from ltstore.sampling.covariance import borrowed_variance, total_scatter
from ltstore.sampling.lending import Lending
from ltstore.sampling.mean_pull import pull_to_donors
from ltstore.types import Donors, DoubleArray, Moments


@dataclass(frozen=True, kw_only=True)
class ResidualTransferSettings:
    """Settings of `residual-transfer`.

    Attributes
    ----------
    scale : float
        >= 0: factor on the donor row's offset.
    match_variance : bool
        Also scale by the ratio of standard deviations of class and donor, see `ResidualTransferSampler`.
    nu : float
        > 0: how many rows the borrowed variance counts for; with `match_variance` only.
    pull : float
        gamma in [0, 1]: the farthest, as a share of the way, that a mean moves toward its donors' mean.
    pull_rows : float or None
        kappa >= 0: how many rows the pull counts for; None estimates it.
    """

    scale: float = 1.0
    match_variance: bool = False
    nu: float = 20.0
    pull: float = 1.0
    pull_rows: float | None = None

    def __post_init__(self) -> None:
        check_number("residual-transfer", "scale", self.scale)
        check_flag("residual-transfer", "match_variance", self.match_variance)
        check_number("residual-transfer", "nu", self.nu, open_low=True)
        check_number("residual-transfer", "pull", self.pull, high=1.0)
        check_number("residual-transfer", "pull_rows", self.pull_rows, optional=True)


class ResidualTransferSampler(AffineSampler):
    """Draws ``x = mu' + s (x_j - mu_h)``: h a donor class drawn by its weight, x_j a random row of it.

    mu' is the class mean after the pull of `ltstore.sampling.mean_pull`: around the raw mean of a few rows, the
    many drawn ones would carry its error with great weight. So the mean of the rows is mu' and their covariance
    ``s^2 sum_h weight_h S_h / n_h``, with every higher moment that the donors' rows have: no Gaussian is
    assumed.

    s is the setting `scale`; `match_variance` multiplies it by ``sqrt(v / v_h)`` for each donor, with
    ``v_h = tr S_h / (n_h - 1)`` and ``v = (tr S + nu T) / (n - 1 + nu)``, T the mean of the donors' v_h: 1 on average
    for one row, and the ratio of the classes' own standard deviations for many.

    A class without donors lends to itself, ``x = mu + s (x_j - mu)``, with donor ids of -1. The parent is the
    row whose offset it is: a row of the donor class.

    References
    ----------
    Hariharan and Girshick (2017) "Low-shot visual recognition by shrinking and hallucinating features", ICCV, and
    Yin et al. (2019) "Feature transfer learning for face recognition with under-represented data", CVPR: offsets of
    well-sampled classes carried over to others.
    """

    name: ClassVar[str] = "residual-transfer"
    settings_type: ClassVar[type] = ResidualTransferSettings
    _settings: ResidualTransferSettings

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        lending = Lending.of(donors)
        pooled = float(np.trace(moments.pooled))
        pulled = pull_to_donors(
            self._counts, moments.means, pooled, lending, pull=s.pull, pull_rows=s.pull_rows
        )
        self._resolved = {"pull_rows": pulled.pull_rows}
        self._both_means = np.concatenate([pulled.means, moments.means])
        own = np.arange(len(self._counts))[:, None]
        # Slot 0 of a class without donors is the class itself, with all of the weight.
        alone = ~lending.borrows[:, None] & (np.arange(lending.ids.shape[1]) == 0)
        self._lenders = np.where(alone, own, lending.ids)
        self._weights = np.where(alone, 1.0, lending.weights)
        self._donor_ids = lending.donor_ids
        self._scale = np.full(self._weights.shape, float(s.scale))
        if s.match_variance:
            scatter = total_scatter(moments)
            variance = borrowed_variance(self._counts, scatter, pooled, lending, nu=s.nu, donor_share=1.0)
            lent = (scatter / np.maximum(self._counts - 1, 1))[self._lenders]
            ratio = np.divide(variance[:, None], lent, out=np.ones_like(lent), where=lent > 0)
            self._scale *= np.where(alone, 1.0, np.sqrt(ratio))

    @property
    def vectors(self) -> DoubleArray:
        """(2 C, D) the means mu', then the means mu."""
        return self._both_means

    def _combine(self, class_id: int, key: DrawKey) -> Combination:
        u = key.uniforms(2, "donor")
        slot = slot_of(u[:, 0], self._weights[class_id])
        lender = self._lenders[class_id, slot]
        positions = self._pick(lender, u[:, 1])[:, None]
        scale = self._scale[class_id, slot]
        return Combination(
            positions=positions,
            row_factors=scale[:, None],
            vectors=np.stack([np.full(len(u), class_id), len(self._counts) + lender], axis=1),
            vector_factors=np.stack([np.ones(len(u)), -scale], axis=1),
            parent_ids=self.rows.row_ids[positions],
            donor_ids=self._donor_ids[class_id, slot][:, None],
        )
