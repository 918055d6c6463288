"""ltstore ensemble: the share that is chosen, what it is chosen on, and that the mixture is a model like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.linear import load_model
from ltstore.workflow import select
from support.shell import Shell


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a long-tailed cut, and a trained head and a closed form of it."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source
    from ltstore.workflow import make_subset, train

    home = tmp_path_factory.mktemp("ensemble")
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), home / "digits.zarr", split)
    make_subset(home / "digits.zarr", "lt", rule="exp", imbalance=50)
    train(home / "digits.zarr", subset="lt", sampler="smote", max_ratio=2.0, out=home / "smote")
    train(home / "digits.zarr", subset="lt", head="gda", out=home / "gda")
    return home


def rows_of(home: Path) -> tuple[str, Path, str, str]:
    return ("--store", home / "digits.zarr", "--subset", "lt")


def test_a_chosen_share(shell: Shell, home: Path, tmp_path: Path) -> None:
    made = shell.ok(
        "ensemble", home / "gda", home / "smote", *rows_of(home), "--out", tmp_path / "both", "--json"
    ).json
    assert made["members"] == ["gda", "smote"]
    by_share = {trial["share"]: trial["balanced"] for trial in made["trials"]}
    assert len(by_share) == 21
    assert by_share[made["share"]] == max(by_share.values())
    gda, smote, both = (load_model(path) for path in (home / "gda", home / "smote", tmp_path / "both"))
    share = made["share"]
    factor = made["calibration"]
    np.testing.assert_allclose(
        both.weight, factor * ((1 - share) * gda.weight + share * smote.weight), rtol=1e-4, atol=1e-4
    )
    assert both.record["settings"]["ensemble"]["calibration"] == factor
    assert both.record["settings"]["head"] == "ensemble"
    assert both.record["made_from"] == smote.record["made_from"]
    found = shell.ok(
        "evaluate", home / "gda", tmp_path / "both", "--store", home / "digits.zarr", "--json"
    ).json
    cost = found["models"][1]["cost"]
    assert cost["n_trials"] == 21
    assert cost["n_passes"] == smote.record["settings"]["n_passes"]
    assert cost["n_synthetic"] == sum(smote.record["synthetic_counts"])
    shown = shell.ok(
        "ensemble", home / "gda", home / "smote", *rows_of(home), "--out", tmp_path / "both", "--force"
    )
    assert f"{share:.3g} smote" in shown.out
    assert f"logits times {factor:.3g}" in shown.out
    page = tmp_path / "report.html"
    shell.ok("evaluate", home / "gda", tmp_path / "both", "--store", home / "digits.zarr", "--report", page)
    assert page.stat().st_size > 10_000


def test_the_share_is_chosen_on_rows_that_no_member_has_seen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltstore.workflow import ensemble
    from ltstore.workflow.training import ensembling

    seen = {}
    repeat, tried = ensembling.repeat_training, ensembling.try_shares

    def repeating(model, selection):  # type: ignore[no-untyped-def]
        twin = repeat(model, selection)
        seen[twin.record["settings"]["head"]] = (selection.rows.row_ids, twin)
        return twin

    def trying(pair, rows):  # type: ignore[no-untyped-def]
        seen["held out"] = (rows.row_ids, None)
        return tried(pair, rows)

    monkeypatch.setattr(ensembling, "repeat_training", repeating)
    monkeypatch.setattr(ensembling, "try_shares", trying)
    ensemble(home / "gda", home / "smote", store=home / "digits.zarr", subset="lt", holdout=0.3)
    everything = select(home / "digits.zarr", "train", "lt").rows.row_ids
    for head in ("gda", "linear"):
        assert not np.isin(seen[head][0], seen["held out"][0]).any()
        assert np.array_equal(
            np.sort(np.concatenate([seen[head][0], seen["held out"][0]])), np.sort(everything)
        )
    twin, model = seen["linear"][1], load_model(home / "smote")
    for key in ("loss", "l2", "tau", "sampler", "max_ratio", "solver", "seed"):
        assert twin.record["settings"].get(key, model.record["settings"][key]) == model.record["settings"][key]
    made = twin.record["settings"]["n_synthetic"]
    assert 0 < made <= 2 * twin.record["settings"]["n_real"]  # as max_ratio has it


def test_a_share_that_is_given_needs_no_store(shell: Shell, home: Path, tmp_path: Path) -> None:
    shell.ok("ensemble", home / "gda", home / "smote", "--share", "0.25", "--out", tmp_path / "m")
    gda, smote, both = (load_model(path) for path in (home / "gda", home / "smote", tmp_path / "m"))
    np.testing.assert_allclose(both.bias, 0.75 * gda.bias + 0.25 * smote.bias, rtol=1e-4, atol=1e-5)
    twice = shell("ensemble", home / "gda", home / "smote", "--share", "0.25", "--out", tmp_path / "m")
    assert twice.code == 1
    assert "--force" in twice.err
    itself = shell("ensemble", home / "gda", home / "gda", "--share", "0.25", "--out", tmp_path / "n")
    assert itself.code == 1
    assert "given twice" in itself.err


def test_mixtures_of_several_seeds_are_taken_together(home: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from ltstore.workflow import ensemble
    from ltstore.workflow.evaluation.seeds import group_seeds

    other = load_model(home / "smote")
    settings = other.record["settings"] | {"seed": 1, "n_passes": 99}
    replace(other, record={**other.record, "seed": 1, "settings": settings}).save(tmp_path / "smote-1")
    mixed = {
        f"both-{seed}": ensemble(home / "gda", path, store=home / "digits.zarr", subset="lt", seed=seed).model
        for seed, path in enumerate((home / "smote", tmp_path / "smote-1"))
    }
    assert group_seeds(mixed) == [("both-0", "both-1")]
    given = ensemble(home / "gda", tmp_path / "smote-1", share=0.5).model
    assert group_seeds({"both-0": mixed["both-0"], "given": given}) == []


def test_rows_of_another_name_to_choose_on(shell: Shell, home: Path, tmp_path: Path) -> None:
    ids = select(home / "digits.zarr", "train", "lt").rows.row_ids
    rest = np.setdiff1d(select(home / "digits.zarr").rows.row_ids, ids)
    np.save(tmp_path / "rest.npy", rest)
    shell.ok("subset", home / "digits.zarr", "rest", "--rule", "file", "--indices", tmp_path / "rest.npy")
    words = ("ensemble", home / "gda", home / "smote", *rows_of(home), "--out", tmp_path / "m", "--json")
    made = shell.ok(*words, "--holdout", "rest").json
    assert made["n_holdout"] == len(rest)
    # members are judged as they are: nothing is trained again
    gda = load_model(home / "gda")
    rows = select(home / "digits.zarr", "train", "rest").rows
    right = gda.predict(rows.read(0, rows.n_samples)) == rows.labels
    alone = np.mean([right[rows.labels == c].mean() for c in np.unique(rows.labels)])
    assert made["trials"][0]["balanced"] == pytest.approx(alone)
    assert shell(*words[:-1], "--holdout", "test", "--force").code == 1


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "name it (--store)"),
        (("--share", "half"), "between 0 and 1 or auto, found 'half'"),
        (("--share", "1.5"), "between 0 and 1, found 1.5"),
        (("--store", "digits.zarr"), "smote was trained on train/lt, not on the rows of 'train'"),
    ],
)
def test_refused(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(home)
    refused = shell("ensemble", "smote", "gda", *words, "--out", "never")
    assert refused.code == 1
    assert message in refused.err
    assert not (home / "never").exists()


def test_members_of_many_kinds_are_trained_again(home: Path, tmp_path: Path) -> None:
    from ltstore.errors import ConfigError
    from ltstore.linear import MinibatchSettings, TrainSettings
    from ltstore.workflow import ensemble, sample, train

    store = home / "digits.zarr"
    minibatch = {
        "settings": TrainSettings(solver="adam", minibatch=MinibatchSettings(batch_size=32), keep="best")
    }
    kinds = {
        "auto": {"sampler": "auto"},
        "cosine": {"head": "cosine", "sampler": "kde", "accept": "gda", "per_class": 7},
        "grid": {"holdout": 0.2, "grid": {"l2": [1e-3, 1e-2]}, "refit": True},
        "minibatch": {**minibatch, "holdout": 0.2},
    }
    for name, how in kinds.items():
        train(store, subset="lt", out=tmp_path / name, **how)
        made = ensemble(home / "gda", tmp_path / name, store=store, subset="lt")
        assert made.n_holdout > 0, name
        assert made.trials[-1].balanced > 0.5, name
    sample(store, subset="lt", name="kept", sampler="duplicate", quality=False)
    train(store, subset="lt", synthetic="kept", out=tmp_path / "kept")
    with pytest.raises(ConfigError, match="a set of synthetic rows"):
        ensemble(home / "gda", tmp_path / "kept", store=store, subset="lt")
