"""Synthetic rows that are sums of real rows: the trainer without them equals the trainer with them."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.linear import TrainSettings, train_linear
from ltstore.linear.objective import evaluate_together
from ltstore.linear.problem import Problem
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import balance_targets
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from ltstore.stream import combined as module
from support.samplers import AFFINE, ready

COUNTS = (90, 60, 40, 7, 2, 1)
D = 12


def made_rows(normalize: bool, unlabelled: int = 9) -> ArrayRows:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(len(COUNTS)), COUNTS), np.full(unlabelled, -1)])
    order = rng.permutation(len(labels))
    X = rng.normal(size=(len(COUNTS) + 1, D))[labels] + 0.7 * rng.normal(size=(len(labels), D)) + 0.5
    return ArrayRows(X[order], labels[order], class_names="abcdef", normalize=normalize)


def streams(name: str, normalize: bool, **options: object) -> tuple[TrainingStream, TrainingStream, object]:
    """The stream that may combine, the one that may not, and the moments."""
    rows = made_rows(normalize)
    moments = class_moments(rows, rank=3)
    sampler = ready(name, rows).fit(rows, moments, class_donors(moments.means, moments.counts))
    targets = balance_targets(moments.counts)
    both = [
        TrainingStream(
            rows, sampler=sampler, targets=targets, seed=3, block_rows=64, combine=combine, **options
        )
        for combine in (True, False)
    ]
    return both[0], both[1], moments


def compare(name: str, normalize: bool, settings: TrainSettings, **options: object) -> None:
    combining, making, moments = streams(name, normalize, **options)
    assert combining.combined(len(COUNTS)) is not None
    assert making.combined(len(COUNTS)) is None
    a, b = (Problem(stream, settings, moments).objective for stream in (combining, making))
    rng = np.random.default_rng(1)
    for spread in (0.0, 1.0, 5.0):
        weight, bias = spread * rng.normal(size=(len(COUNTS), D)), rng.normal(size=len(COUNTS))
        found, expected = a.evaluate(weight, bias), b.evaluate(weight, bias)
        assert found.value == pytest.approx(expected.value, rel=2e-6)
        assert found.loss == pytest.approx(expected.loss, rel=2e-6)
        scale = np.abs(expected.grad_weight).max()
        np.testing.assert_allclose(found.grad_weight, expected.grad_weight, atol=5e-6 * max(scale, 1))
        np.testing.assert_allclose(found.grad_bias, expected.grad_bias, atol=5e-6)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0], ids=["in memory", "streamed"])
def test_value_and_gradient_are_those_of_the_made_rows(name: str, normalize: bool, cache_bytes: int) -> None:
    compare(name, normalize, TrainSettings(), cache_bytes=cache_bytes)


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(loss="ce", implicit=0.5),
        TrainSettings(smoothing=0.1, margin=0.3),
        TrainSettings(class_weights="balanced", penalty="whitened"),
        TrainSettings(head="cosine"),
    ],
    ids=["implicit", "smoothing and margins", "class weights", "cosine"],
)
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0], ids=["in memory", "streamed"])
def test_with_every_term_of_the_objective(settings: TrainSettings, cache_bytes: int) -> None:
    weights = np.random.default_rng(2).uniform(0, 2, sum(COUNTS) + 9).astype(np.float32)
    compare("neighbor-gauss of residuals", True, settings, cache_bytes=cache_bytes, weights=weights)


def test_several_heads_share_a_pass() -> None:
    combining, _, moments = streams("smote", True)
    objectives = [Problem(combining, TrainSettings(tau=tau), moments).objective for tau in (0.0, 1.0)]
    rng = np.random.default_rng(1)
    points = [(rng.normal(size=(6, D)), rng.normal(size=6)) for _ in objectives]
    for together, objective, point in zip(
        evaluate_together(objectives, points), objectives, points, strict=True
    ):
        alone = objective.evaluate(*point)
        assert together.value == pytest.approx(alone.value, rel=1e-6)
        np.testing.assert_allclose(together.grad_weight, alone.grad_weight, atol=1e-6)


@pytest.mark.parametrize("name", ["smote", "residual-transfer", "neighbor-gauss of residuals"])
def test_training_ends_at_the_same_head_and_the_record_says_how(name: str) -> None:
    combining, making, moments = streams(name, True)
    settings = TrainSettings(tolerance=1e-6)
    a, b = (train_linear(stream, settings, moments) for stream in (combining, making))
    assert a.model.record["settings"]["synthesis"] == "in the step, as sums of real rows"
    assert b.model.record["settings"]["synthesis"] == "rows are made: asked for"
    X = combining.rows.read(0, 100)
    difference = X @ a.model.weight.T + a.model.bias - X @ b.model.weight.T - b.model.bias
    assert np.abs(difference).max() < 0.02


def test_what_cannot_be_combined_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    combining, _, _ = streams("smote", True)
    assert combining.why_not_combined(6) == ""
    assert "would take" in combining.why_not_combined(10**9)
    rows = made_rows(True)
    other = TrainingStream(rows, sampler=combining._sampler, targets=combining._targets)
    assert other.why_not_combined(6) == "the sampler was fitted on other rows"
    assert TrainingStream(rows).why_not_combined(6) == ""
    moments = class_moments(rows, rank=3)
    gauss = ready("kde", rows).fit(rows, moments, class_donors(moments.means, moments.counts))
    stream = TrainingStream(rows, sampler=gauss, targets=balance_targets(moments.counts))
    assert stream.why_not_combined(6) == "they are no sums of real rows"
    monkeypatch.setattr(module, "_ROWS", 7)
    again, _, _ = streams("smote", True)
    a, b = combining.combined(6), again.combined(6)
    assert a is not None
    assert b is not None
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.factors, b.factors)
