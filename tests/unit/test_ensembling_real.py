"""CLIP's text vectors and a head of four rows a class, on ImageNet: together better than either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.heads import HEADS, ZERO_SHOT, Workbench
from bench.accuracy.problems import problem
from ltstore.linear.temperature import scaled
from ltstore.provenance import record
from ltstore.rows import ArrayRows
from ltstore.workflow import EvaluateResult, compare, ensemble, train


@pytest.fixture
def judged(request: pytest.FixtureRequest, real_data: Path, tmp_path: Path) -> EvaluateResult:
    """Text vectors, a Gaussian discriminant and their mixture; every so-manieth class has no training rows."""
    found = problem("imagenet-fewshot", real_data, 0)
    kept = found.train.y % request.param > 0 if request.param else np.full(len(found.train.y), True)
    bench = Workbench(replace(found, train=found.train.select(np.flatnonzero(kept))), tmp_path)
    made = record("model", settings={"head": ZERO_SHOT}, made_from={"class_text": "sha256:0"})
    text = replace(HEADS[ZERO_SHOT](bench).model, record=made)
    text.save(tmp_path / "text")
    gda = train(bench.selection, head="gda", out=tmp_path / "gda").model
    both = ensemble(tmp_path / "text", tmp_path / "gda", store=bench.selection.store).model
    X, y = found.test.X, found.test.y
    rows = ArrayRows(X, y, class_names=text.class_names, encoder=text.encoder, normalize=True)
    return compare({"text": text, "gda": gda, "both": both}, rows)


@pytest.mark.parametrize("judged", [0], indirect=True)
def test_a_mixture_beats_both(judged: EvaluateResult) -> None:
    text, gda, both = (one.evaluation.balanced.value for one in judged.models)
    assert text == pytest.approx(0.611, abs=0.005)
    assert gda == pytest.approx(0.547, abs=0.01)
    assert both == pytest.approx(0.658, abs=0.01)
    gain = judged.models[2].differences["balanced"]
    assert gain is not None
    assert gain.low > 0.02
    assert gain.p_adjusted < 0.05


@pytest.mark.parametrize("judged", [10], indirect=True)
def test_classes_without_rows_are_foretold_by_text(judged: EvaluateResult) -> None:
    without = judged.labels % 10 == 0
    text, gda, both = (
        [float((one.predictions == judged.labels)[rows].mean()) for rows in (without, ~without)]
        for one in judged.models
    )
    assert gda[0] == 0
    assert both[0] == pytest.approx(0.49, abs=0.03)  # of 0.64 by text alone
    assert both[1] == pytest.approx(0.66, abs=0.01)
    assert text[1] == pytest.approx(0.61, abs=0.01)


def test_a_mixture_is_as_sure_as_it_is_right(real_data: Path, tmp_path: Path) -> None:
    """Caltech-101: probabilities of the mixture are those of its twin on held-out rows, and hold on test rows."""
    found = problem("caltech101", real_data, 0)
    bench = Workbench(found, tmp_path)
    for name, how in {"gda": {"head": "gda"}, "la": {}}.items():
        train(bench.selection, **how, out=tmp_path / name)
    made = ensemble(tmp_path / "gda", tmp_path / "la", store=bench.selection.store)
    weight, bias = scaled(*made.model.arrays, 1 / made.calibration)
    before = replace(made.model, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    rows = ArrayRows(
        found.test.X,
        found.test.y,
        class_names=made.model.class_names,
        encoder=made.model.encoder,
        normalize=True,
    )
    unscaled, calibrated = compare({"before": before, "after": made.model}, rows).models
    np.testing.assert_array_equal(unscaled.predictions, calibrated.predictions)
    assert unscaled.evaluation.ece is not None
    assert calibrated.evaluation.ece is not None
    assert unscaled.evaluation.ece.value > 0.025
    assert calibrated.evaluation.ece.value < 0.02
