"""scikit-learn's `random_state` as a seed of the seed tree."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state

_N_SEEDS = 2**31 - 1


def seed_of(random_state: int | RandomState | None) -> int:
    """Return an integer as it is; of a RandomState, or of NumPy's for None, the next seed that it draws."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(_N_SEEDS))
