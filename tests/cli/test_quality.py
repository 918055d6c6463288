"""ltstore sample with measures and a judge, train with a judge, and both in the report, from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltstore.linear import load_model
from ltstore.store import open_store
from ltstore.workflow import repair
from support.shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a long-tailed cut."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source
    from ltstore.workflow import make_subset

    path = tmp_path_factory.mktemp("quality") / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), path, split)
    make_subset(path, "lt", rule="exp", imbalance=20)
    return path


def kept(store: Path) -> list[Path]:
    return sorted((store / "stats" / "train" / "subset-lt" / "quality").glob("*.json"))


def test_quality_is_printed_kept_and_used_again(shell: Shell, store: Path) -> None:
    made = shell.ok("sample", store, "--subset", "lt", "--name", "a", "--json").json
    quality = made["quality"]
    assert made["acceptance"] is None
    assert quality["held_out"]["n_classes"] >= 4
    assert set(quality["made"]["averages"]) == {"purity", "intrusion", "nearest", "closer", "copies"}
    assert quality["n_measured"] == min(made["n_rows"], 2000)
    (path,) = kept(store)
    before = path.stat().st_mtime_ns
    again = shell.ok("sample", store, "--subset", "lt", "--name", "b", "--json").json
    assert again["quality"] == quality
    assert path.stat().st_mtime_ns == before
    path.write_text("{")
    shown = shell.ok("sample", store, "--subset", "lt", "--name", "c").out
    assert "held out" in shown
    assert "purity" in shown
    document = json.loads(path.read_text())
    for name, values in quality["made"]["values"].items():
        assert document["quality"]["made"]["values"][name] == values
    other = shell.ok(
        "sample", store, "--subset", "lt", "--name", "d", "--seed", "1", "--no-quality", "--json"
    ).json
    assert other["quality"] is None
    assert len(kept(store)) == 1


def test_a_set_without_a_tail_is_measured_as_far_as_it_can_be(shell: Shell, store: Path) -> None:
    made = shell.ok("sample", store, "--name", "flat", "--per-class", "20", "--json").json
    assert made["quality"]["held_out"] is None
    assert "long tail" in made["quality"]["reason"]
    assert made["quality"]["n_measured"] == 200


@pytest.mark.parametrize("judge", ["gda", "nearest"])
def test_a_judge_is_asked_recorded_and_held_to(shell: Shell, store: Path, judge: str, tmp_path: Path) -> None:
    how = ("--subset", "lt", "--sampler", "vmf", "--no-quality", "--json")
    made = shell.ok("sample", store, "--name", judge, *how, "--accept", judge).json
    everyone = made["acceptance"]["groups"]["all"]
    assert 0 < everyone["accepted_first"] < everyone["accepted"] <= 1
    assert sum(each["kept_rejected"] for each in made["acceptance"]["classes"]) == everyone["kept_rejected"]
    split = open_store(store).synthetic(judge)
    assert split.settings["sampler_settings"]["accept"]["judge"] == judge
    shell.ok("sample", store, "--name", f"{judge}-plain", *how)
    rows, plain = (open_store(store).synthetic(name).rows() for name in (judge, f"{judge}-plain"))
    same = (rows.read(0, rows.n_samples) == plain.read(0, plain.n_samples)).all(axis=1).mean()
    assert 0.1 < same < 1
    shell.ok("train", store, "--subset", "lt", "--synthetic", judge, "--out", tmp_path / "m")


def test_another_judge_is_another_plan(shell: Shell, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed is not finished with other rows."""
    from ltstore.workflow import sample, sampling

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "materialize", killed)
        with pytest.raises(KeyboardInterrupt):
            sample(store, name="half", sampler="kde", subset="lt", accept="gda")
    refused = shell("sample", store, "--name", "half", "--sampler", "kde", "--subset", "lt", "--no-quality")
    assert refused.code == 1
    assert "half" in refused.err
    shell.ok(
        "sample",
        store,
        "--name",
        "half",
        "--sampler",
        "kde",
        "--subset",
        "lt",
        "--accept",
        "gda",
        "--no-quality",
    )


def test_rows_that_a_judge_chose_are_repaired(shell: Shell, store: Path) -> None:
    how = ("--sampler", "kde", "--subset", "lt", "--accept", "gda", "--no-quality")
    shell.ok("sample", store, "--name", "mend", *how)
    before = open_store(store).synthetic("mend").rows()
    X = before.read(0, before.n_samples)
    shard = next(path for path in sorted((store / "synthetic" / "mend").rglob("c/*")) if path.is_file())
    shard.unlink()
    assert repair(store).ok
    after = open_store(store).synthetic("mend").rows()
    np.testing.assert_array_equal(after.read(0, after.n_samples), X)


def test_unknown_judges_and_judges_of_nothing_are_refused(shell: Shell, store: Path, tmp_path: Path) -> None:
    refused = shell("sample", store, "--name", "x", "--accept", "oracle")
    assert refused.code == 1
    assert "none, gda or nearest, found 'oracle'" in refused.err
    nothing = shell("train", store, "--accept", "gda", "--out", tmp_path / "x")
    assert nothing.code == 1
    assert "accept would do nothing without a sampler" in nothing.err


def test_the_report_shows_quality_and_the_backtest(shell: Shell, store: Path, tmp_path: Path) -> None:
    on = ("--subset", "lt")
    shell.ok("train", store, *on, "--out", tmp_path / "la")
    shell.ok("train", store, *on, "--sampler", "kde", "--accept", "gda", "--out", tmp_path / "kde")
    groups = load_model(tmp_path / "kde").record["settings"]["acceptance"]
    assert 0 < groups["all"]["accepted_first"] <= 1

    def report(*models: str) -> str:
        path = tmp_path / "r.html"
        shell.ok("evaluate", *[tmp_path / name for name in models], "--store", store, "--report", path)
        return path.read_text("utf-8")

    page = report("la", "kde")
    assert 'id="quality"' in page
    assert "large classes are cut down" in page
    assert 'id="backtest"' not in page
    files = kept(store)
    assert any(path.name.startswith("kde-") for path in files)
    assert 'id="quality"' not in report("la")
    shell.ok("train", store, *on, "--sampler", "auto", "--out", tmp_path / "auto")
    page = report("la", "auto")
    assert "This model is what was chosen" in page
    assert 'id="backtest"' in report("la")
    shell.ok("sample", store, *on, "--name", "set", "--sampler", "smote")
    n_files = len(kept(store))
    shell.ok("train", store, *on, "--synthetic", "set", "--out", tmp_path / "set")
    assert 'id="quality"' in report("la", "set")
    assert len(kept(store)) == n_files  # what `sample` kept is used
