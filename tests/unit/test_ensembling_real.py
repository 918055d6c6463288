"""CLIP's text vectors and a head of four rows a class, on ImageNet: together better than either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.accuracy.heads import HEADS, ZERO_SHOT, Workbench
from bench.accuracy.problems import problem
from ltstore.provenance import record
from ltstore.rows import ArrayRows
from ltstore.workflow import compare, ensemble, train


def test_a_mixture_beats_both(real_data: Path, tmp_path: Path) -> None:
    found = problem("imagenet-fewshot", real_data, 0)
    bench = Workbench(found, tmp_path)
    text = HEADS[ZERO_SHOT](bench).model
    text = replace(
        text, record=record("model", settings={"head": ZERO_SHOT}, made_from={"class_text": "sha256:0"})
    )
    text.save(tmp_path / "text")
    trained = train(bench.selection, head="gda", out=tmp_path / "gda").model
    both = ensemble(tmp_path / "text", tmp_path / "gda", store=bench.selection.store)
    test = ArrayRows(
        found.test.X, found.test.y, class_names=text.class_names, encoder=text.encoder, normalize=True
    )
    models = {"text": text, "gda": trained, "both": both.model}
    result = compare(models, test)
    balanced = {one.name: one.evaluation.balanced.value for one in result.models}
    assert balanced["both"] > balanced["text"] + 0.03 > balanced["gda"] + 0.08  # 65.8, 61.1 and 54.7 %
    gain = result.models[2].differences["balanced"]
    assert gain is not None
    assert gain.low > 0.02
    best = max(both.trials, key=lambda trial: trial.balanced)
    assert both.share == best.share
    assert np.isclose(both.trials[0].balanced, 0.61, atol=0.02)
