"""Samplers on real rows: MobileNetV2 embeddings of CIFAR-100-LT (every fifth feature), CLIP's of ImageNet with text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows, normalize_rows
from ltstore.sampling import TextSampler, TextSettings, make_sampler
from ltstore.stats import class_moments
from ltstore.types import FloatArray


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


def test_text_brings_single_rows_closer_to_unseen_rows(real_data: Path, tmp_path: Path) -> None:
    """CLIP ViT-B/32 rows of ImageNet: half of the classes with four rows, half with one and three that are not seen."""
    with np.load(real_data / "clip_vitb32" / "imagenet.npz") as data:
        X, labels = data["shots4_x"].astype(np.float32), data["shots4_y"].astype(np.int64)
    with np.load(real_data / "clip_vitb32" / "imagenet_text.npz") as data:
        text = data["text2"].astype(np.float32)
    order = np.argsort(labels, kind="stable")
    X, labels = normalize_rows(X[order]), labels[order]
    few = labels % 2 == 1
    seen = ~few | (np.arange(len(labels)) % 4 == 0)
    rows = ArrayRows(X[seen], labels[seen], normalize=True)
    moments = class_moments(rows)
    donors = class_donors(moments.means, moments.counts)
    unseen = X[~seen].astype(np.float64)

    def judge(vectors: FloatArray, pull: float) -> tuple[float, float]:
        """Squared distance of tail means to the means of unseen rows, and how many of these are nearest to theirs."""
        np.save(tmp_path / "text.npy", vectors)
        sampler = TextSampler(TextSettings(vectors=str(tmp_path / "text.npy"), pull=pull))
        means = sampler.fit(rows, moments, donors).means[1::2]
        error = np.square(means - unseen.reshape(500, 3, -1).mean(axis=1)).sum(axis=1).mean()
        distance = np.square(means).sum(axis=1) - 2 * unseen @ means.T
        return float(error), float((distance.argmin(axis=1) == np.repeat(np.arange(500), 3)).mean())

    own, right, wrong = judge(text, 0.0), judge(text, 1.0), judge(np.roll(text, 1, axis=0), 1.0)
    assert right[0] < min(0.6 * own[0], wrong[0])
    assert right[1] > own[1] + 0.15
    # Text of other classes does little harm: it is not believed.
    assert wrong[0] < own[0]
    assert wrong[1] > own[1] - 0.05
