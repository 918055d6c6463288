"""What `ltstore train` can be told about objective, solver, holdout, grid and checkpoint, through the public app."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.linear import Checkpointing, TrainSettings, load_model
from ltstore.workflow import make_subset, select, train
from ltstore.workflow.training.holdout import divide
from support.shell import Shell


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a long tail "lt", and "other" rows that are none of it."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source

    path = tmp_path_factory.mktemp("options") / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        ingest(source, open_encoder("pixels", source=source), path, split)
    make_subset(path, "lt", imbalance=50)
    whole, lt = select(path).rows.row_ids, select(path, "train", "lt").rows.row_ids
    make_subset(path, "other", rule="file", indices=np.setdiff1d(whole, lt)[::5])
    return path


@pytest.fixture
def command(shell: Shell, digits: Path, tmp_path: Path):
    def run(*words: str, ok: bool = True):
        call = shell.ok if ok else shell
        return call("train", digits, "--subset", "lt", "--out", tmp_path / "m", "--force", *words)

    return run


@pytest.mark.parametrize(
    "words, settings",
    [
        (("--smoothing", "0.1"), {"smoothing": 0.1}),
        (
            ("--class-weights", "effective-number", "--beta", "0.9"),
            {"class_weights": "effective-number", "beta": 0.9},
        ),
        (("--loss", "ce", "--class-weights", "balanced"), {"class_weights": "balanced", "tau": 0.0}),
        (("--margin", "0.5"), {"margin": 0.5}),
        (("--init", "gda"), {"init": "gda"}),
        (("--device", "cpu"), {"device": "cpu", "device_reason": "asked for by name", "precision": "float32"}),
        (("--precision", "bf16"), {"device": "cpu", "precision": "bf16", "device_rows": "kept on the device"}),
        (("--head", "cosine", "--scale", "12"), {"head": "cosine", "scale": 12.0, "l2": 0.0, "init": "means"}),
        (("--head", "cosine"), {"scale": 25.0}),
        (
            (
                "--solver",
                "sgd",
                "--epochs",
                "3",
                "--batch-size",
                "50",
                "--momentum",
                "0.5",
                "--schedule",
                "constant",
            ),
            {
                "solver": "sgd",
                "n_passes": 3,
                "minibatch": {
                    "learning_rate": 0.05,
                    "momentum": 0.5,
                    "epochs": 3,
                    "batch_size": 50,
                    "schedule": "constant",
                },
            },
        ),
        (
            ("--solver", "adam", "--epochs", "2", "--learning-rate", "0.1"),
            {"solver": "adam", "stopped": "epochs"},
        ),
    ],
)
def test_options_reach_the_trainer_and_the_record(command, tmp_path: Path, words, settings) -> None:
    found = command(*words, "--json").json["settings"]
    assert {key: found[key] for key in settings} == settings
    assert load_model(tmp_path / "m").record["settings"]["sampler"] == "none"


def test_a_share_is_held_out_of_everything(digits: Path) -> None:
    whole = select(digits, "train", "lt")
    rest, held, positions = divide(whole, 0.2, 0)
    assert held is not None
    assert positions is not None
    assert set(rest.rows.row_ids) | set(held.row_ids) == set(whole.rows.row_ids)
    assert not set(rest.rows.row_ids) & set(held.row_ids)
    assert np.array_equal(rest.moments().counts, rest.counts)
    assert (rest.counts >= 1).all()
    assert np.array_equal(rest.rows.read(0, 9), whole.rows.take(positions[:9]))
    assert rest.donors().class_ids.shape[0] == 10
    with pytest.raises(ConfigError, match="by means"):
        rest.donors("index")
    before = select(digits, "train", "lt").moments()
    assert before.counts.sum() == whole.rows.n_samples  # what is kept beside the store is still of all rows


def test_holdout_by_share_and_by_name(command) -> None:
    by_share = command("--holdout", "0.2", "--keep", "best", "--json").json
    assert by_share["n_real"] == 279
    assert by_share["holdout"]["balanced"] == max(
        step["holdout_balanced"] for step in by_share["history"] if step["holdout_balanced"] is not None
    )
    assert by_share["settings"]["holdout_rows"]["n_rows"] == 69
    by_name = command("--holdout", "other", "--json").json
    assert by_name["n_real"] == 348
    assert by_name["holdout"]["accuracy"] > 0.7
    assert 0 <= by_name["data_share"] <= 1
    text = command("--holdout", "0.2", "--sampler", "neighbor-gauss").out
    for word in ("holdout", "balanced", "69 rows", "rows/s", "waiting for rows", "objective", "279 real"):
        assert word in text


@pytest.mark.parametrize(
    "words, word",
    [
        (("--holdout", "test"), "not for choosing"),
        (("--holdout", "lt"), "must not be trained on"),
        (("--holdout", "train"), "split that is trained on"),
        (("--holdout", "nowhere"), "nowhere"),
        (("--holdout", "1.5"), "between 0 and 1"),
        (("--holdout", "0.0001"), "larger share"),
        (("--keep", "best"), "holdout"),
        (("--grid", "l2=1e-3,1e-2"), "needs a holdout"),
        (("--refit",), "held out"),
        (("--holdout", "other", "--refit"), "a share"),
        (("--sampler", "auto", "--refit"), "backtest"),
        (("--head", "gda", "--refit"), "closed form"),
        (("--holdout", "0.2", "--grid", "l2="), "l2"),
        (("--holdout", "0.2", "--grid", "seed=1,2"), "cannot differ"),
        (("--holdout", "0.2", "--grid", "l2=1e-3", "--solver", "sgd"), "lbfgs"),
        (("--head", "gda", "--holdout", "0.2"), "closed form"),
        (("--sampler", "auto", "--holdout", "0.2"), "backtest"),
        (("--holdout", "0.2", "--sampler", "neighbor-gauss", "--donors", "index"), "by means"),
        (("--head", "cosine", "--l2", "0.1"), "penalty"),
        (("--epochs", "3"), "would do nothing"),
    ],
)
def test_what_makes_no_sense_is_one_line(command, tmp_path: Path, words, word) -> None:
    result = command(*words, ok=False)
    assert result.code == 1
    assert word in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_synthetic_rows_made_of_the_holdout_are_refused(command, shell: Shell, digits: Path) -> None:
    shell.ok("sample", digits, "--subset", "lt", "--name", "s")
    command("--synthetic", "s")
    command("--synthetic", "s", "--holdout", "other")
    result = command("--synthetic", "s", "--holdout", "0.2", ok=False)
    assert result.code == 1
    assert "without its holdout" in result.err


def test_a_grid_is_a_table_and_the_best_head_is_the_model(command, tmp_path: Path) -> None:
    words = ("--holdout", "0.3", "--grid", "l2=1e-3,1e-1", "--grid", "class-weights=none,balanced")
    found = command(*words, "--json").json
    table = found["grid"]
    assert [(row["l2"], row["class_weights"]) for row in table] == [
        (1e-3, "none"),
        (1e-3, "balanced"),
        (1e-1, "none"),
        (1e-1, "balanced"),
    ]
    (chosen,) = [row for row in table if row["chosen"]]
    assert chosen["holdout_balanced"] == max(row["holdout_balanced"] for row in table)
    assert found["holdout"]["balanced"] == chosen["holdout_balanced"]
    model = load_model(tmp_path / "m")
    assert model.record["settings"]["l2"] == chosen["l2"]
    assert model.record["settings"]["grid"]["trials"] == table
    text = command(*words).out
    assert text.count("->") == 1
    for word in ("class_weights", "holdout balanced", "0.001"):
        assert word in text
    assert command(*words[:2], "--grid", "l2=1", "--grid", "l2=2", ok=False).code == 2


def test_row_weights_from_a_file(command, digits: Path, tmp_path: Path) -> None:
    rows = select(digits, "train", "lt").rows
    np.save(tmp_path / "ones.npy", np.ones(rows.n_samples))
    np.save(tmp_path / "some.npy", 1.0 + (rows.labels == 3))
    np.save(tmp_path / "short.npy", np.ones(5))
    (tmp_path / "bad.npy").write_bytes(b"no numbers")
    plain = command("--json").json
    ones = command("--row-weights", tmp_path / "ones.npy", "--json").json
    some = command("--row-weights", tmp_path / "some.npy", "--holdout", "0.2", "--json").json
    assert ones["history"][-1]["value"] == pytest.approx(plain["history"][-1]["value"], rel=1e-4)
    assert some["settings"]["row_weights"].startswith("sha256:")
    assert command("--row-weights", tmp_path / "short.npy", ok=False).code == 1
    assert command("--row-weights", tmp_path / "bad.npy", ok=False).code == 2
    with pytest.raises(DataError, match="row weights"):
        train(digits, subset="lt", row_weights=-np.ones(rows.n_samples))


def test_a_killed_command_goes_on_and_leaves_no_checkpoint(command, digits: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    passes = []

    def kill(done: object) -> None:
        passes.append(done)
        if len(passes) == 6:
            raise KilledError

    directory = tmp_path / "c"
    how = Checkpointing(directory=directory, every_passes=1)
    with pytest.raises(KilledError):
        train(digits, subset="lt", settings=TrainSettings(), checkpoint=how, on_pass=kill)
    assert json.loads((directory / "checkpoint.json").read_text())["facts"][0]["passes"]
    wrong = command("--checkpoint", directory, "--l2", "0.5", ok=False)
    assert wrong.code == 1
    assert "settings.l2" in wrong.err
    command("--checkpoint", directory, "--checkpoint-every", "2")
    assert not directory.exists()
    resumed = load_model(tmp_path / "m")
    command()
    assert np.array_equal(load_model(tmp_path / "m").weight, resumed.weight)
    assert command("--checkpoint-every", "2", ok=False).code == 2


def test_a_killed_grid_goes_on_to_the_same_model(command, digits: Path, tmp_path: Path) -> None:
    words = ("--holdout", "0.3", "--grid", "l2=1e-3,1e-1", "--grid", "tau=0.5,1", "--keep", "best")
    table = command(*words, "--json").json["grid"]
    whole = load_model(tmp_path / "m")

    class KilledError(Exception):
        pass

    def kill(passes: int, seconds: object) -> None:
        made.append(passes)
        if len(made) == 9:
            raise KilledError

    made: list[int] = []
    directory = tmp_path / "c"
    axes = {"l2": [1e-3, 1e-1], "tau": [0.5, 1]}
    with pytest.raises(KilledError):
        train(
            digits,
            subset="lt",
            settings=TrainSettings(keep="best"),
            holdout=0.3,
            grid=axes,
            checkpoint=Checkpointing(directory=directory, every_passes=1),
            progress=kill,
        )
    other = command(*words[:3], "l2=1e-3,1e-2", *words[4:], "--checkpoint", directory, ok=False)
    assert other.code == 1
    assert "settings of head 3.l2, settings of head 4.l2 differ" in " ".join(other.err.split())
    assert command(*words, "--checkpoint", directory, "--json").json["grid"] == table
    assert not directory.exists()
    found = load_model(tmp_path / "m")
    assert np.array_equal(found.weight, whole.weight)
    assert np.array_equal(found.bias, whole.bias)


@pytest.mark.parametrize(
    "words", [("--keep", "best"), ("--grid", "l2=1e-3,1e-1", "--grid", "tau=0.5,1"), ("--sampler", "smote")]
)
def test_the_holdout_is_put_back(command, tmp_path: Path, words) -> None:
    words = ("--holdout", "0.2", *words)
    before = command(*words, "--json").json
    chosen = load_model(tmp_path / "m")
    after = command(*words, "--refit", "--json").json
    model = load_model(tmp_path / "m")
    assert before["refit"] is None
    assert before["n_real"] == 279
    assert after["n_real"] == after["refit"]["n_real"] == 348
    assert (after["holdout"], after["kept_pass"], after["grid"]) == (
        before["holdout"],
        before["kept_pass"],
        before["grid"],
    )
    told = model.record["settings"]
    assert told["refit"] == after["refit"]
    assert told["holdout"] == before["holdout"]
    assert (told["l2"], told["tau"], told["keep"]) == tuple(
        before["settings"][key] for key in ("l2", "tau", "keep")
    )
    assert told["n_real"] + told["n_synthetic"] == 348 + after["n_synthetic"]
    assert np.array_equal(model.class_counts, chosen.class_counts)
    assert not np.array_equal(model.weight, chosen.weight)
    assert "on all 348 rows" in command(*words, "--refit").out


def test_output_and_record_say_how_fast_it_was(command, tmp_path: Path) -> None:
    found = command("--json").json
    assert 0 < found["share_of_peak"] < 1
    assert found["peak_flops_per_second"] > 1e6
    assert found["history"][0]["share_of_peak"] == 0  # the moments told it
    assert {step["share_of_peak"] > 0 for step in found["history"][1:]} == {True}
    names = ("rows_per_second", "data_share", "share_of_peak", "peak_flops_per_second")
    assert load_model(tmp_path / "m").record["train_speed"] == {name: found[name] for name in names}
    assert "GFLOP/s of a bare product" in command().out
    assert command("--head", "gda", "--json").json["share_of_peak"] is None


def test_progress_says_loss_gap_and_holdout(digits: Path) -> None:
    passes = []
    train(digits, subset="lt", holdout=0.2, on_pass=passes.append)
    assert passes
    assert any(done.holdout_balanced > 0.5 for done in passes)
    assert passes[0].rows_per_second == 0  # the moments told it
    assert all(done.rows_per_second > 0 for done in passes[1:])
