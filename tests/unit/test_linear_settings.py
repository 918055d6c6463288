from __future__ import annotations

import dataclasses
import json

import pytest

from ltstore.errors import ConfigError
from ltstore.linear import MinibatchSettings, TrainSettings


def test_tau_is_one_for_logit_adjustment_and_none_for_cross_entropy():
    assert TrainSettings(loss="la").resolved_tau == 1.0
    assert TrainSettings(loss="la", tau=0.25).resolved_tau == 0.25
    assert TrainSettings(loss="ce").resolved_tau == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(),
        TrainSettings(loss="ce", l2=1.0, max_passes=3),
        TrainSettings(head="cosine", scale=3.0, margin=0.2, class_weights="effective-number", beta=0.9),
        TrainSettings(solver="adam", minibatch=MinibatchSettings(epochs=3, learning_rate=0.5), keep="best"),
    ],
)
def test_round_trip_through_json(settings):
    again = TrainSettings.from_mapping(json.loads(json.dumps(settings.to_mapping())))
    assert again.to_mapping() == settings.to_mapping()
    assert again == dataclasses.replace(settings, tau=settings.resolved_tau)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'max_passes'"):
        TrainSettings.from_mapping({"max_pases": 3})
    with pytest.raises(ConfigError, match="valid ones: loss, tau"):
        TrainSettings.from_mapping({"zzz": 3})
    with pytest.raises(ConfigError, match="unknown minibatch setting 'epoch': did you mean 'epochs'"):
        TrainSettings.from_mapping({"solver": "sgd", "minibatch": {"epoch": 3}})


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "CE"},
        {"penalty": "l1"},
        {"tau": -1.0},
        {"tau": float("nan")},
        {"loss": "ce", "tau": 1.0},
        {"implicit": -0.5},
        {"implicit": "1"},
        {"l2": 0},
        {"l2": -1e-3},
        {"l2": "1"},
        {"l2": True},
        {"tolerance": float("inf")},
        {"max_passes": 0},
        {"max_passes": 2.5},
        {"seed": -1},
        {"backend": None},
        {"smoothing": 1.0},
        {"smoothing": -0.1},
        {"class_weights": "equal"},
        {"class_weights": "effective-number", "beta": 1.0},
        {"class_weights": "balanced", "beta": 0.9},
        {"margin": -1},
        {"head": "mlp"},
        {"scale": 20.0},
        {"head": "cosine", "scale": 0.0},
        {"init": "lda"},
        {"solver": "newton"},
        {"keep": "first"},
        {"minibatch": {"epochs": 3}},
    ],
)
def test_values_out_of_range(values):
    with pytest.raises(ConfigError, match=list(values)[-1]):
        TrainSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"schedule": "step"},
    ],
)
def test_minibatch_values_out_of_range(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        MinibatchSettings(**values)


@pytest.mark.parametrize(
    "values, word",
    [
        ({"head": "cosine", "l2": 0.1}, "penalty"),
        ({"head": "cosine", "penalty": "whitened"}, "penalty"),
        ({"head": "cosine", "init": "zero"}, "means, gda or ridge"),
        ({"minibatch": MinibatchSettings(epochs=2)}, "minibatch settings would do nothing"),
        ({"solver": "sgd", "max_passes": 3}, "would do nothing"),
        ({"solver": "adam", "tolerance": 0.1}, "would do nothing"),
    ],
)
def test_values_that_contradict_each_other(values, word):
    with pytest.raises(ConfigError, match=word):
        TrainSettings(**values)
