"""ltstore evaluate: gains and their significance, seeds, the gap to a ceiling, cost, and the file of classes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.linear import load_model
from support.shell import Result, Shell


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a long-tailed cut, and models: ce, gda, of all rows, and one training with three seeds."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.linear import TrainSettings
    from ltstore.sources import open_source
    from ltstore.workflow import make_subset, train

    home = tmp_path_factory.mktemp("evaluate")
    store = home / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), store, split)
    make_subset(store, "lt", rule="exp", imbalance=50)
    train(store, subset="lt", settings=TrainSettings(loss="ce"), out=home / "ce")
    train(store, subset="lt", head="gda", out=home / "gda")
    train(store, settings=TrainSettings(loss="ce"), out=home / "all")
    how = {"subset": "lt", "sampler": "smote", "holdout": 0.2, "grid": {"l2": [1e-3, 1e-2]}}
    for seed in range(3):
        train(store, settings=TrainSettings(seed=seed), out=home / f"smote-s{seed}", **how)
    return home


def evaluate(shell: Shell, home: Path, *names: str, **options: str) -> Any:
    """What `evaluate --json` says of models; options name a model each."""
    words = [word for key, name in options.items() for word in (f"--{key}", home / name)]
    models = [home / name for name in names]
    found = shell.ok("evaluate", *models, *words, "--store", home / "digits.zarr", "--json").json
    assert [one["name"] for one in found["models"]] == list(names)
    return found


def tables(shell: Shell, home: Path, *names: str, **options: str) -> Result:
    """The same for a person; no line is wider than 130 columns."""
    words = [word for key, name in options.items() for word in (f"--{key}", home / name)]
    shown = shell.ok("evaluate", *[home / name for name in names], *words, "--store", home / "digits.zarr")
    assert max(map(len, shown.out.splitlines())) <= 130
    return shown


def test_gains_of_every_measure_are_judged(shell: Shell, home: Path) -> None:
    found = evaluate(shell, home, "ce", "gda", "smote-s0", "smote-s1")
    ce, gda, *_ = found["models"]
    assert set(ce["differences"].values()) == {None}
    for measure in ("overall", "balanced", "few"):
        gain = gda["differences"][measure]
        assert gain["value"] == pytest.approx(gda[measure]["value"] - ce[measure]["value"])
        assert 0 < gain["low"] < gain["value"] < gain["high"]
        assert gain["p_value"] <= gain["p_adjusted"] < 0.05
    assert gda["gain_over_baseline"]["value"] == gda["differences"]["overall"]["value"]
    assert found["ceiling"] is None
    assert "gap_closed" not in gda
    assert sum(gda["reliability"]["counts"]) == gda["n_rows"]
    shown = tables(shell, home, "ce", "gda")
    assert "gain over ce" in shown.out
    assert "≤ 0.002" in shown.out
    assert "Holm" not in shown.err  # one model, nothing to correct for


def test_seeds_are_taken_together(shell: Shell, home: Path) -> None:
    models = ("smote-s0", "ce", "smote-s2", "smote-s1")
    found = evaluate(shell, home, *models)
    (group,) = found["seeds"]
    assert (group["name"], group["models"]) == ("smote", ["smote-s0", "smote-s2", "smote-s1"])
    assert group["seeds"] == [0, 2, 1]
    values = [one["balanced"]["value"] for one in found["models"] if one["name"] != "ce"]
    spread = group["accuracy"]["balanced"]
    assert spread["mean"]["value"] == pytest.approx(np.mean(values))
    assert spread["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert spread["mean"]["low"] < spread["mean"]["value"] < spread["mean"]["high"]
    assert set(group["differences"].values()) == {None}  # the baseline is one of them
    against = evaluate(shell, home, *models, baseline="ce")
    gain = against["seeds"][0]["differences"]["balanced"]
    ce = against["models"][1]["balanced"]["value"]
    assert gain["value"] == pytest.approx(np.mean(values) - ce)
    assert "over seeds" in tables(shell, home, *models, baseline="ce").out


def test_other_settings_or_rows_are_no_seeds(home: Path) -> None:
    from ltstore.workflow.evaluation.seeds import group_seeds

    one, two = (load_model(home / f"smote-s{seed}") for seed in range(2))
    assert group_seeds({"a": one, "b": two}) == [("a", "b")]
    assert group_seeds({"a": one, "b": one}) == []  # the same seed
    record = two.record
    for settings in ({"tau": 0.5}, {"sampler_options": {"k": 3}}, {"grid": {"axes": {"l2": [1e-3]}}}):
        other = replace(two, record={**record, "settings": {**record["settings"], **settings}})
        assert group_seeds({"a": one, "b": other}) == [], settings
    elsewhere = replace(two, record={**record, "made_from": {**record["made_from"], "rows": "sha256:0"}})
    assert group_seeds({"a": one, "b": elsewhere}) == []
    chosen = replace(two, record={**record, "settings": {**record["settings"], "l2": 0.5}})  # by the grid
    assert group_seeds({"a": one, "b": chosen}) == [("a", "b")]
    assert group_seeds({"a": load_model(home / "gda"), "b": load_model(home / "gda")}) == []


def test_share_of_the_gap(shell: Shell, home: Path) -> None:
    models = ("ce", "gda", "all")
    found = evaluate(shell, home, *models, ceiling="all")
    ce, gda, ceiling = found["models"]
    assert found["ceiling"] == "all"
    share = gda["gap_closed"]["balanced"]
    low, value, high = ce["balanced"]["value"], gda["balanced"]["value"], ceiling["balanced"]["value"]
    assert share["value"] == pytest.approx((value - low) / (high - low))
    assert 0 < share["low"] < share["value"] < share["high"] < 1
    assert gda["gap_closed"]["many"] is None  # all are right there
    assert "gap closed" in tables(shell, home, *models, ceiling="all").out
    below = tables(shell, home, *models, ceiling="ce", baseline="all")
    assert "n/a, ce is not surely above all" in below.err
    refused = shell("evaluate", home / "ce", "--store", home / "digits.zarr", "--ceiling", home / "all")
    assert refused.code == 1
    assert "the ceiling" in refused.err
    assert "is not among the models" in refused.err


def test_cost_tells_rows_passes_and_searches(shell: Shell, home: Path) -> None:
    found = evaluate(shell, home, "ce", "gda", "smote-s0")
    ce, gda, smote = (one["cost"] for one in found["models"])
    n_rows = int(load_model(home / "ce").class_counts.sum())
    assert (ce["n_real"], ce["n_synthetic"], ce["n_trials"]) == (n_rows, 0, 0)
    assert ce["n_passes"] == load_model(home / "ce").record["settings"]["n_passes"] > 0
    assert ce["n_parameters"] == 10 * 65
    file = (home / "ce" / "model.safetensors").stat().st_size
    assert ce["model_bytes"] < file < ce["model_bytes"] + 500
    assert ce["seconds"] > 0
    assert (gda["n_real"], gda["n_passes"]) == (n_rows, 0)
    assert smote["n_trials"] == 2
    assert smote["n_real"] < n_rows  # a share is held out
    assert smote["n_synthetic"] > 0


def test_cost_of_what_a_backtest_chose(home: Path) -> None:
    from ltstore.workflow import train
    from ltstore.workflow.evaluation.cost import Cost

    made = train(home / "digits.zarr", subset="lt", sampler="auto")
    again = train(home / "digits.zarr", subset="lt", sampler="auto")  # the backtest is not made twice
    first, second = Cost.of(made.model), Cost.of(again.model)
    search = again.model.record["settings"]["auto_search"]
    assert first.n_trials == second.n_trials == search["n_trials"] == 4
    assert search["reused"]
    assert second.seconds == pytest.approx(again.seconds + search["seconds"])
    assert first.seconds == made.seconds
    members = made.model.record["settings"]["members"]
    assert first.n_passes == sum(member.get("n_passes", 0) for member in members) == made.n_passes
    assert first.n_real == int(made.model.class_counts.sum())


def test_file_of_classes(shell: Shell, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "classes.csv"
    words = ["evaluate", home / "ce", home / "gda", "--store", home / "digits.zarr"]
    told = shell.ok(*words, "--per-class", file, "--json")
    assert str(file) in told.err
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        *("class_id", "class", "training_rows", "group", "test_rows"),
        *("accuracy ce", "accuracy gda", "gain gda"),
    ]
    ce, gda = told.json["models"]
    for c, row in enumerate(rows):
        assert (row["class_id"], row["class"]) == (str(c), str(c))
        assert int(row["training_rows"]) == ce["class_counts"][c]
        assert int(row["test_rows"]) == ce["test_counts"][c]
        assert float(row["accuracy gda"]) == pytest.approx(gda["class_accuracy"][c], abs=1e-6)
        gain = gda["class_accuracy"][c] - ce["class_accuracy"][c]
        assert float(row["gain gda"]) == pytest.approx(gain, abs=2e-6)
    assert [row["group"] for row in rows] == ["many"] + 4 * ["medium"] + 5 * ["few"]
    refused = shell(*words, "--per-class", tmp_path)
    assert refused.code == 1
    assert f"cannot write {tmp_path}" in refused.err
