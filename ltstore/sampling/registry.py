"""Samplers by name."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from ltstore.errors import ConfigError
from ltstore.sampling.base import BaseSampler
from ltstore.sampling.distribution_calibration import DistributionCalibrationSampler
from ltstore.sampling.duplicate import DuplicateSampler
from ltstore.sampling.kde import KdeSampler
from ltstore.sampling.neighbor_gauss import NeighborGaussSampler
from ltstore.sampling.residual_transfer import ResidualTransferSampler
from ltstore.sampling.smote import SmoteSampler
from ltstore.sampling.text import TextSampler
from ltstore.sampling.vmf import VmfSampler

SAMPLERS: dict[str, type[BaseSampler]] = {
    sampler.name: sampler
    for sampler in (
        NeighborGaussSampler,
        VmfSampler,
        KdeSampler,
        SmoteSampler,
        DistributionCalibrationSampler,
        ResidualTransferSampler,
        TextSampler,
        DuplicateSampler,
    )
}


def make_sampler(name: str, **settings: Any) -> BaseSampler:
    """Return an unfitted sampler by name.

    Parameters
    ----------
    name : str
        A key of `SAMPLERS`.
    **settings
        Of its settings dataclass; the rest keeps its defaults.

    Raises
    ------
    ConfigError
        The name or a setting is unknown (the message names the nearest), or a value is out of range.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"unknown sampler {name!r}{_hint(name, SAMPLERS)}; known: {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    known = [f.name for f in fields(sampler.settings_type)]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"sampler {name} has no setting {key!r}{_hint(key, known)}; known: {', '.join(known) or 'none'}"
            )
    return sampler(sampler.settings_type(**settings))


def _hint(word: str, known: Any) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
