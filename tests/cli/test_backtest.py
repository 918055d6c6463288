"""ltstore backtest and train --sampler auto, from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltstore.linear import load_model
from support.shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a long-tailed cut."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source
    from ltstore.workflow import make_subset

    path = tmp_path_factory.mktemp("backtest") / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), path, split)
    make_subset(path, "lt", rule="exp", imbalance=50)
    return path


def test_a_card_is_made_kept_and_used(shell: Shell, store: Path, tmp_path: Path) -> None:
    first = shell.ok("backtest", store, "--subset", "lt", "--json").json
    assert not first["reused"]
    names = [each["name"] for each in first["results"]]
    assert {"ce", "la", "gda", "neighbor-gauss"} <= set(names)
    assert names[first["chosen"]] == first["choice"]
    second = shell.ok("backtest", store, "--subset", "lt", "--json").json
    assert second["reused"]
    assert second["results"] == first["results"]
    shown = shell.ok("backtest", store, "--subset", "lt", "--limit", "3")
    assert "->" in shown.out
    assert first["choice"] in shown.out
    assert not shell.ok("backtest", store, "--subset", "lt", "--force", "--json").json["reused"]
    made = shell.ok("train", store, "--subset", "lt", "--sampler", "auto", "--out", tmp_path / "auto")
    assert f"auto: {first['choice']}" in made.err
    model = load_model(tmp_path / "auto")
    assert model.record["settings"]["auto_name"] == first["choice"]
    assert len(model.record["settings"]["members"]) == len(
        first["results"][first["chosen"]]["candidate"]["members"]
    )
    asked = first["results"][first["chosen"]]["candidate"]["members"]
    for member, done in zip(asked, model.record["settings"]["members"], strict=True):
        assert done.get("implicit", 0.0) == member["implicit"]
        assert done["sampler"] == member["sampler"]
    result = shell.ok("evaluate", tmp_path / "auto", "--store", store, "--json").json
    assert result["models"][0]["overall"]["value"] > 0.85


def test_the_choice_does_not_see_the_test_split(shell: Shell, store: Path, tmp_path: Path) -> None:
    """The test split is taken away: the choice is the same."""
    import shutil

    copy = tmp_path / "d.zarr"
    shutil.copytree(store, copy)
    shutil.rmtree(copy / "test")
    before = shell.ok("backtest", store, "--subset", "lt", "--force", "--json").json
    after = shell.ok("backtest", copy, "--subset", "lt", "--force", "--json").json
    assert after["results"] == before["results"]


def test_a_damaged_card_is_made_anew(shell: Shell, store: Path) -> None:
    path = Path(shell.ok("backtest", store, "--subset", "lt", "--json").json["path"])
    path.write_text("{")
    assert not shell.ok("backtest", store, "--subset", "lt", "--json").json["reused"]
    document = json.loads(path.read_text())
    document["settings"]["rule"] -= 1
    path.write_text(json.dumps(document))
    assert not shell.ok("backtest", store, "--subset", "lt", "--json").json["reused"]
    document = json.loads(path.read_text())
    document["made_from"]["rows"] = "sha256:other"
    path.write_text(json.dumps(document))
    assert not shell.ok("backtest", store, "--subset", "lt", "--json").json["reused"]


def test_where_no_backtest_is_possible_auto_says_so(shell: Shell, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((60, 4)).astype(np.float32))
    np.save(tmp_path / "y.npy", np.repeat(np.arange(3), 20))
    store = tmp_path / "b.zarr"
    shell.ok("import", tmp_path / "x.npy", store, "--labels", tmp_path / "y.npy")
    refused = shell("backtest", store)
    assert refused.code == 1
    assert "needs a long tail" in refused.err
    made = shell.ok("train", store, "--sampler", "auto", "--out", tmp_path / "m")
    assert "auto: la, no backtest was possible" in made.err
    mixed = shell("train", store, "--sampler", "auto", "--per-class", "3", "--out", tmp_path / "n")
    assert "auto" in mixed.err
    assert mixed.code == 1


def test_a_lean_can_be_given_by_hand(shell: Shell, store: Path, tmp_path: Path) -> None:
    for name, lean in (("a", "0"), ("b", "0.5")):
        shell.ok("train", store, "--subset", "lt", "--posthoc-tau", lean, "--out", tmp_path / name)
    a, b = load_model(tmp_path / "a"), load_model(tmp_path / "b")
    np.testing.assert_array_equal(a.weight, b.weight)
    shares = a.class_counts / a.class_counts.sum()
    np.testing.assert_allclose(b.bias - a.bias, -0.5 * np.log(shares), atol=1e-5)
    assert shell("train", store, "--posthoc-tau", "-1", "--out", tmp_path / "c").code == 1


def test_auto_trains_what_was_chosen(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and implicit rows of a member reach its training."""
    from types import SimpleNamespace

    from ltstore.backtest import Candidate, Member
    from ltstore.workflow import train

    members = (Member(implicit=2.0), Member(sampler="kde", max_ratio=1.0), Member(loss="ce"))
    choice = SimpleNamespace(candidate=Candidate(members=members))
    card = SimpleNamespace(choice=choice, reason="told", n_trials=4, seconds=0.5)
    monkeypatch.setattr(
        "ltstore.workflow.training.fitted.backtest", lambda *a, **k: SimpleNamespace(card=card, reused=False)
    )
    outcome = train(store, subset="lt", sampler="auto")
    done = outcome.model.record["settings"]["members"]
    assert [each["implicit"] for each in done] == [2.0, 0.0, 0.0]
    assert [each["loss"] for each in done] == ["la", "la", "ce"]
    counts = outcome.model.class_counts
    np.testing.assert_array_equal(outcome.targets, np.minimum(counts.max() - counts, counts))
