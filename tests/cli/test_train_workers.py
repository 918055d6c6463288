"""`ltstore train --workers` and `--engine`: the model of one worker, and what cannot be shared is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltstore.engine import LocalEngine
from ltstore.errors import ConfigError
from ltstore.linear import load_model
from ltstore.workflow import make_subset, select, train
from support.engines import need, ray_cluster
from support.shell import Shell


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source

    path = tmp_path_factory.mktemp("workers") / "digits.zarr"
    source = open_source("digits", split="train")
    ingest(source, open_encoder("pixels", source=source), path, "train")
    make_subset(path, "lt", imbalance=50)
    return path


@pytest.fixture(scope="module")
def alone(digits: Path):
    return train(digits, subset="lt", sampler="smote").model


def assert_same(found, expected, digits: Path) -> None:
    rows = select(digits, "train", "lt").rows
    X = rows.read(0, rows.n_samples)
    assert np.abs(found.predict_proba(X) - expected.predict_proba(X)).max() < 0.02


def test_workers_on_the_command_line(shell: Shell, digits: Path, tmp_path: Path, alone) -> None:
    words = ("train", digits, "--subset", "lt", "--sampler", "smote", "--workers", "2", "--out", tmp_path / "m")
    printed = shell.ok(*words).out
    assert "2 local threads" in printed
    again = shell.ok(*words, "--force", "--json").json
    assert again["settings"]["workers"] == {"engine": "local threads", "n_workers": 2, "restarts": 0}
    assert 0 <= again["data_share"] <= 1
    model = load_model(tmp_path / "m")
    assert_same(model, alone, digits)
    assert "workers" not in alone.record["settings"]


@pytest.mark.parametrize(
    "more", [("--holdout", "0.2", "--keep", "best"), ("--holdout", "0.2", "--grid", "l2=1e-3,1e-2")]
)
def test_holdout_and_grid_go_with_workers(shell: Shell, digits: Path, tmp_path: Path, more) -> None:
    words = ("train", digits, "--subset", "lt", *more, "--force", "--json", "--out")
    one = shell.ok(*words, tmp_path / "a").json
    two = shell.ok(*words, tmp_path / "b", "--workers", "2").json
    assert two["holdout"]["balanced"] == pytest.approx(one["holdout"]["balanced"], abs=0.02)
    assert two["n_real"] == one["n_real"]
    assert [trial["l2"] for trial in two["grid"]] == [trial["l2"] for trial in one["grid"]]


def test_closed_forms_and_auto_go_with_workers(shell: Shell, digits: Path, tmp_path: Path) -> None:
    make_subset(digits, "again", imbalance=50)
    for number in ("1", "2"):
        words = (
            "--subset",
            "lt" if number == "1" else "again",
            "--workers",
            number,
            "--out",
            tmp_path / number,
        )
        shell.ok("train", digits, "--head", "gda", *words)
    a, b = load_model(tmp_path / "1"), load_model(tmp_path / "2")
    np.testing.assert_allclose(a.weight, b.weight, rtol=1e-4, atol=1e-4)
    shell.ok(
        "train", digits, "--subset", "lt", "--sampler", "auto", "--workers", "2", "--out", tmp_path / "auto"
    )
    record = json.loads((tmp_path / "auto" / "model.json").read_text())
    assert "local threads" in json.dumps(record)


def test_processes_open_the_store_themselves(digits: Path, alone) -> None:
    with LocalEngine(2, "processes") as engine:
        found = train(digits, subset="lt", sampler="smote", engine=engine)
    assert found.model.record["settings"]["workers"]["engine"] == "local processes"
    assert_same(found.model, alone, digits)


def test_ray_on_the_command_line(shell: Shell, digits: Path, tmp_path: Path, alone) -> None:
    need("ray")
    with ray_cluster():
        words = ("--engine", "ray", "--workers", "2", "--json", "--out", tmp_path / "m")
        done = shell.ok("train", digits, "--subset", "lt", "--sampler", "smote", *words).json
    workers = done["settings"]["workers"]
    assert (workers["engine"], workers["n_workers"], workers["restarts"]) == ("ray", 2, 0)
    assert_same(load_model(tmp_path / "m"), alone, digits)


@pytest.mark.parametrize(
    "words, code, word",
    [
        (("--workers", "0"), 2, "positive number"),
        (("--workers", "two"), 2, "positive number"),
        (("--workers", "2", "--solver", "sgd"), 1, "cannot be shared among workers"),
        (("--workers", "2", "--precision", "bf16"), 1, "use engine processes or ray"),
        (("--engine", "ray", "--address", "127.0.0.1:1"), 1, "ray"),
        (("--engine", "clouds"), 1, "engine must be one of local, processes, ray, found 'clouds'"),
        (("--address", "auto"), 1, "an address is that of a Ray cluster, and the engine is local"),
    ],
)
def test_what_makes_no_sense_is_one_line(shell: Shell, digits: Path, tmp_path: Path, words, code, word) -> None:
    result = shell("train", digits, "--out", tmp_path / "m", *words)
    assert result.code == code
    assert word in result.err
    assert "Traceback" not in result.err


def test_an_engine_and_a_number_contradict_each_other(digits: Path) -> None:
    with pytest.raises(ConfigError, match="leave n_workers out"):
        train(digits, engine=LocalEngine(2), n_workers=2)
