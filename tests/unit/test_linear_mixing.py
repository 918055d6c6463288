"""Two heads as one: exact in logits, and what becomes of classes that one head has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError, EncoderMismatchError
from ltstore.linear import LinearModel
from ltstore.linear.mixing import pair_heads
from ltstore.linear.objective import EMPTY_CLASS_BIAS
from support.stores import identity

N_CLASSES, N_FEATURES = 6, 5


def head(seed: int, empty: tuple[int, ...] = (), scale: float = 1.0) -> LinearModel:
    rng = np.random.default_rng(seed)
    weight = (scale * rng.standard_normal((N_CLASSES, N_FEATURES))).astype(np.float32)
    bias = (scale * rng.standard_normal(N_CLASSES)).astype(np.float32)
    weight[list(empty)], bias[list(empty)] = 0, EMPTY_CLASS_BIAS
    return LinearModel(
        weight=weight,
        bias=bias,
        class_names=tuple("abcdef"),
        encoder=identity(N_FEATURES),
        encoder_spec="",
        normalized=True,
        class_counts=np.ones(N_CLASSES, np.int64),
    )


def rows(n: int = 50) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((n, N_FEATURES)).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_logits_and_log_probabilities_are_means(share: float) -> None:
    first, second = head(1), head(2, scale=7)
    weight, bias = pair_heads(first, second).mixed(share)
    X = rows()
    logits = X @ weight.T + bias
    expected = (1 - share) * first.decision_function(X) + share * second.decision_function(X)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    mixed = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    pooled = first.predict_proba(X) ** (1 - share) * second.predict_proba(X) ** share
    np.testing.assert_allclose(mixed, pooled / pooled.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6)


def test_a_class_that_one_has_not_seen_is_foretold_by_the_other() -> None:
    known = head(1)
    # The other is the known one, twice as sure and moved: what it would say of the classes it lacks is known.
    direction = np.arange(N_FEATURES, dtype=np.float32)
    twin = replace(known, weight=2 * known.weight + direction, bias=2 * known.bias + 3)
    lacking_weight, lacking_bias = twin.weight.copy(), twin.bias.copy()
    lacking_weight[[1, 4]], lacking_bias[[1, 4]] = 0, EMPTY_CLASS_BIAS
    lacking = replace(twin, weight=lacking_weight, bias=lacking_bias)
    for pair, share in ((pair_heads(known, lacking), 1.0), (pair_heads(lacking, known), 0.0)):
        weight, bias = pair.mixed(share)
        np.testing.assert_allclose(weight, twin.weight, atol=1e-5)
        np.testing.assert_allclose(bias, twin.bias, atol=1e-5)


def test_a_class_that_neither_has_seen_is_never_predicted() -> None:
    weight, bias = pair_heads(head(1, empty=(2,)), head(2, empty=(2, 3))).mixed(0.5)
    assert bias[2] == EMPTY_CLASS_BIAS
    assert not weight[2].any()
    predicted = set((rows(2000) @ weight.T + bias).argmax(axis=1))
    assert 2 not in predicted
    assert 3 in predicted


def test_what_cannot_be_mixed_is_refused() -> None:
    first = head(1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        pair_heads(first, first).mixed(1.5)
    with pytest.raises(DataError, match="other classes"):
        pair_heads(first, replace(first, class_names=tuple("abcdeg")))
    with pytest.raises(EncoderMismatchError, match="model"):
        pair_heads(first, replace(first, encoder=replace(first.encoder, model="another")))
    with pytest.raises(EncoderMismatchError, match="normalization"):
        pair_heads(first, replace(first, normalized=False))
    with pytest.raises(DataError, match="no class is known to both"):
        pair_heads(head(1, empty=(0, 1, 2)), head(2, empty=(3, 4, 5)))
