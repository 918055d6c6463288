from __future__ import annotations

import dataclasses
import json

import pytest

from ltstore.errors import ConfigError
from ltstore.linear import TrainSettings


def test_tau_is_one_for_logit_adjustment_and_none_for_cross_entropy():
    assert TrainSettings(loss="la").resolved_tau == 1.0
    assert TrainSettings(loss="la", tau=0.25).resolved_tau == 0.25
    assert TrainSettings(loss="ce").resolved_tau == 0.0


@pytest.mark.parametrize("settings", [TrainSettings(), TrainSettings(loss="ce", l2=1.0, max_passes=3)])
def test_round_trip_through_json(settings):
    again = TrainSettings.from_mapping(json.loads(json.dumps(settings.to_mapping())))
    assert again.to_mapping() == settings.to_mapping()
    assert again == dataclasses.replace(settings, tau=settings.resolved_tau)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'max_passes'"):
        TrainSettings.from_mapping({"max_pases": 3})
    with pytest.raises(ConfigError, match="valid ones: loss, tau"):
        TrainSettings.from_mapping({"zzz": 3})


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
    ],
)
def test_values_out_of_range(values):
    with pytest.raises(ConfigError, match=list(values)[-1]):
        TrainSettings(**values)
