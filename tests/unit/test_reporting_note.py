"""What the report calls a model, in a few words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltstore.linear import LinearModel
from ltstore.types import EncoderIdentity
from ltstore.workflow.evaluation.reporting import _note

MIXED = {"head": "ensemble", "ensemble": {"members": ["text", "la"], "share": 0.7}}


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"head": "linear", "tau": 1.0}, "logit-adjusted, tau 1"),
        ({"head": "linear", "tau": 0.0}, "plain cross entropy"),
        ({"head": "cosine", "tau": 0.5, "sampler": "kde"}, "logit-adjusted, tau 0.5, kde, 30 synthetic rows"),
        ({"head": "linear", "auto_name": "la + kde"}, "chosen by a backtest: la + kde"),
        ({"head": "gda"}, "closed form, no training"),
        ({"head": "zero-shot"}, "text of the class names, no training"),
        (MIXED, "mixture of text and la, 70 % of the second"),
    ],
)
def test_every_kind_of_head_has_its_own(settings: dict[str, Any], note: str) -> None:
    model = LinearModel(
        weight=np.zeros((2, 3), np.float32),
        bias=np.zeros(2, np.float32),
        class_names=("a", "b"),
        encoder=EncoderIdentity(encoder="import", model="made", n_features=3),
        encoder_spec="",
        normalized=True,
        class_counts=np.array([40, 10]),
        record={"settings": settings, "synthetic_counts": [0, 30]},
    )
    assert _note(model) == note
