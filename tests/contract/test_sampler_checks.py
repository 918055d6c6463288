"""imbalanced-learn's checks of its own over-samplers pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ltstore.estimators import LatentSampler, TextOverSampler
from support.samplers import text_vectors

BaseOverSampler = pytest.importorskip("imblearn.over_sampling.base").BaseOverSampler
checks = pytest.importorskip("imblearn.utils.estimator_checks")

BaseOverSampler.register(LatentSampler)  # some checks look only at what is one
SAMPLERS = [one(random_state=0) for one in LatentSampler.__subclasses__() if one is not TextOverSampler]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [one for sampler in SAMPLERS for one in checks.estimator_checks_generator(sampler)],
    ids=lambda one: getattr(getattr(one, "func", one), "__name__", repr(one)),
)
def test_sampler(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_text_fills_up_every_class() -> None:
    """The checks have data of several widths, the vectors one."""
    from sklearn.datasets import make_blobs

    X, y = make_blobs(n_samples=[30, 20, 10], n_features=4, random_state=0)
    sampler = TextOverSampler(vectors=str(text_vectors(3, 4)), random_state=0)
    assert sampler.fit_resample(X, y)[1].tolist().count(2) == 30
