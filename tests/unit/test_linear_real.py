"""Figures on real rows that the defaults must keep: CIFAR-100-LT, imbalance 100, MobileNetV2 embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.linear import Origin, TrainSettings, predict_top, train_closed_form, train_linear
from ltstore.rows import ArrayRows
from ltstore.stream import TrainingStream
from support.made_moments import made_moments


@pytest.fixture(scope="module")
def cifar(real_data):
    with np.load(real_data / "cifar100" / "mobilenetv2_embeddings_u8.npz") as data:
        cut = np.sort(np.load(real_data / "longtail" / "cifar100_lt_if100_seed0_ldam_order.npy"))
        positions = np.searchsorted(data["train_index"], cut)
        train = ArrayRows(
            data["train_q"][positions] * data["scale"],
            data["train_y"][positions].astype(np.int64),
            row_ids=cut,
            normalize=True,
        )
        test = ArrayRows(data["test_q"] * data["scale"], data["test_y"].astype(np.int64), normalize=True)
    return train, test, made_moments(train.read(0, train.n_samples), train.labels, 100)


def accuracy(model, test):
    return 100 * float((predict_top(model, test).labels[:, 0] == test.labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, least",
    [({"loss": "la"}, 53.5), ({"loss": "ce"}, 43.0), ({"head": "cosine"}, 54.0), ({"smoothing": 0.1}, 53.5)],
    ids=["la", "ce", "cosine", "smoothing"],
)
def test_trained_heads(cifar, settings, least):
    train, test, moments = cifar
    result = train_linear(TrainingStream(train), TrainSettings(**settings), moments)
    assert result.converged
    assert accuracy(result.model, test) >= least


def test_closed_forms(cifar):
    train, test, moments = cifar

    def form(method, **options):
        result = train_closed_form(
            method, moments, class_names=train.class_names, origin=Origin.of(train), **options
        )
        return accuracy(result.model, test)

    shrunk = form("gda")
    assert shrunk >= 53.0
    assert shrunk >= form("gda", mean_shrinkage=0.0) + 3
    assert form("ncm") >= 47.0
    assert form("ridge") >= 52.0
