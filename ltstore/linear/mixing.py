"""Two heads as one: a weighted mean of logits, which is a linear head again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ltstore.errors import ConfigError, DataError, EncoderMismatchError
from ltstore.linear.model import LinearModel
from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.types import BoolArray, DoubleArray


class HeadPair(NamedTuple):
    """Two heads of the same rows and classes, ((C, D), (C,)) float64 each."""

    first: tuple[DoubleArray, DoubleArray]
    second: tuple[DoubleArray, DoubleArray]

    def mixed(self, share: float) -> tuple[DoubleArray, DoubleArray]:
        """Return the head whose logits are (1 - share) times those of the first plus share times those of the second.

        It is also the mean of log-probabilities: those differ from logits by a number that all classes of a row share.

        Raises
        ------
        ConfigError
            share is outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of the second head must be between 0 and 1, found {share}")
        (first_weight, first_bias), (second_weight, second_bias) = self
        return (
            first_weight + share * (second_weight - first_weight),
            first_bias + share * (second_bias - first_bias),
        )


def pair_heads(first: LinearModel, second: LinearModel) -> HeadPair:
    """Return two heads, ready to be mixed.

    A class that one of them has seen no row of, and so never predicts, gets the logit that the other foretells:
    mean_1(x) + r (logit_2c(x) - mean_2(x)), the means over classes that both know, r the ratio of the norms of the
    weights around their mean. A class that neither knows stays empty.

    Raises
    ------
    EncoderMismatchError
        They are of other rows.
    DataError
        They have other classes.

    References
    ----------
    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (WiSE-FT: for heads on frozen features
    averaging weights is averaging outputs).
    """
    if first.encoder.digest != second.encoder.digest or first.normalized != second.normalized:
        differences = "; ".join(first.encoder.differences(second.encoder)) or "normalization"
        raise EncoderMismatchError(f"the models are of rows of other encoders (first / second): {differences}")
    if first.class_names != second.class_names:
        raise DataError("the models have other classes: mix models of one store")
    heads = (first.arrays, second.arrays)
    empty = [bias == EMPTY_CLASS_BIAS for _, bias in heads]
    known = ~(empty[0] | empty[1])
    if not known.any():
        raise DataError("no class is known to both models: there is nothing to mix")
    return HeadPair(
        _filled(*heads, empty[0] & ~empty[1], known), _filled(*heads[::-1], empty[1] & ~empty[0], known)
    )


def _filled(
    head: tuple[DoubleArray, DoubleArray],
    other: tuple[DoubleArray, DoubleArray],
    missing: BoolArray,
    known: BoolArray,
) -> tuple[DoubleArray, DoubleArray]:
    """Return the head with the classes in `missing` as the other head foretells them."""
    if not missing.any():
        return head
    (weight, bias), (other_weight, other_bias) = (head[0].copy(), head[1].copy()), other
    mean, other_mean = weight[known].mean(axis=0), other_weight[known].mean(axis=0)
    spread, other_spread = (
        np.linalg.norm(weight[known] - mean),
        np.linalg.norm(other_weight[known] - other_mean),
    )
    r = spread / other_spread if other_spread else 0.0
    weight[missing] = mean + r * (other_weight[missing] - other_mean)
    bias[missing] = bias[known].mean() + r * (other_bias[missing] - other_bias[known].mean())
    return weight, bias
