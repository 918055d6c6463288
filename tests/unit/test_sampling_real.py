"""neighbor-gauss on real rows: MobileNetV2 embeddings of CIFAR-100-LT, every fifth feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows, normalize_rows
from ltstore.sampling import make_sampler
from ltstore.stats import class_moments


def test_drawn_rows_are_closer_to_unseen_rows_than_the_few_seen_ones(real_data: Path) -> None:
    """Rows of the imbalance-10 cut that the imbalance-100 cut leaves out are the unseen ones."""
    with np.load(real_data / "cifar100" / "mobilenetv2_embeddings_u8.npz") as data:
        X = normalize_rows(np.ascontiguousarray(data["train_q"][:, ::5], np.float32))
        labels, index = data["train_y"].astype(np.int64), data["train_index"]
    seen = np.isin(index, np.load(real_data / "longtail" / "cifar100_lt_if100_seed0_ldam_order.npy"))
    rows = ArrayRows(X[seen], labels[seen], normalize=True)
    moments = class_moments(rows)
    donors = class_donors(moments.means, moments.counts)
    sampler = make_sampler("neighbor-gauss").fit(rows, moments, donors)
    pull_rows = sampler.settings["pull_rows"]
    assert 2 < pull_rows < 50

    few = np.flatnonzero(moments.counts < 20)
    errors, spreads = [], []
    for c in few:
        made = sampler.sample(int(c), 0, 400, seed=0).X.astype(np.float64)
        unseen = X[~seen & (labels == c)].astype(np.float64)
        truth = unseen.mean(axis=0)
        errors.append([((made.mean(axis=0) - truth) ** 2).sum(), ((moments.means[c] - truth) ** 2).sum()])
        spreads.append(made.var(axis=0).sum() / unseen.var(axis=0).sum())
    drawn, raw = np.mean(errors, axis=0)
    assert drawn < 0.75 * raw
    # As wide as real rows: neither duplicates of the few seen ones nor noise.
    assert 0.8 < np.mean(spreads) < 1.3
