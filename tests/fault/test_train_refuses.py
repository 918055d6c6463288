"""Training never deletes what is not a model, never ignores a setting, and survives rows that vary in nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.encode import ingest, open_encoder
from ltstore.linear import TrainSettings, gda, train_linear
from ltstore.rows import ArrayRows
from ltstore.sources import open_source
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from ltstore.workflow import make_subset
from support.shell import Shell


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Digits with a long tail "lt"."""
    source = open_source("digits")
    ingest(source, open_encoder("pixels", source=source), tmp_path / "d.zarr", "train")
    make_subset(tmp_path / "d.zarr", "lt", imbalance=50)
    return tmp_path / "d.zarr"


def test_force_replaces_models_only(shell: Shell, digits: Path, tmp_path: Path) -> None:
    notes = tmp_path / "p" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("hi")
    for target in (notes.parent, digits):
        result = shell("train", digits, "--head", "ncm", "--out", target, "--force")
        assert result.code == 1
        assert "other things than a model" in result.err
    assert notes.read_text() == "hi"
    shell.ok("verify", digits)


@pytest.mark.parametrize(
    "words",
    [
        ("--per-class", "5"),
        ("--sampler-option", "nu=3"),
        ("--max-ratio", "2"),
        ("--donors", "index"),
        ("--head", "gda", "--loss", "ce"),
        ("--head", "gda", "--sampler", "duplicate"),
        ("--sampler", "neighbor-gauss", "--sampler-option", "anchor=abc"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    shell: Shell, digits: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = shell("train", digits, "--subset", "lt", "--out", tmp_path / "m", *words)
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "internal error" not in result.err
    assert not (tmp_path / "m").exists()


def test_training_does_not_depend_on_an_index(shell: Shell, digits: Path, tmp_path: Path) -> None:
    train = ("train", digits, "--subset", "lt", "--sampler", "neighbor-gauss")
    shell.ok(*train, "--out", tmp_path / "before")
    shell.ok("index", digits, "--subset", "lt", "--metric", "l2")
    shell.ok(*train, "--out", tmp_path / "after")
    assert (tmp_path / "before" / "model.safetensors").read_bytes() == (
        tmp_path / "after" / "model.safetensors"
    ).read_bytes()


def test_a_report_survives_lost_synthetic_rows(shell: Shell, digits: Path, tmp_path: Path) -> None:
    import shutil

    shell.ok("sample", digits, "--subset", "lt", "--name", "s")
    shell.ok("train", digits, "--subset", "lt", "--synthetic", "s", "--out", tmp_path / "m")
    shutil.rmtree(digits / "synthetic" / "s")
    judge = ("evaluate", tmp_path / "m", "--store", digits, "--split", "train")
    result = shell.ok(*judge, "--report", tmp_path / "r.html")
    assert "was trained on" in result.err
    assert (tmp_path / "r.html").exists()


def test_one_row_a_class_and_equal_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40)).astype(np.float32)
    for rows in (
        ArrayRows(X, np.arange(300), normalize=True),
        ArrayRows(np.repeat(X[:100], 3, axis=0), np.repeat(np.arange(100), 3), normalize=True),
    ):
        moments = class_moments(rows)
        assert not moments.pooled.any()
        result = train_linear(TrainingStream(rows), TrainSettings(), moments)
        found = result.model.predict(rows.read(0, rows.n_samples))
        assert (found == rows.labels).mean() > 0.99
        assert np.isfinite(gda(moments).weight).all()


def test_thousands_of_classes_are_learnt_with_default_settings() -> None:
    rng = np.random.default_rng(0)
    n_classes, n_features = 3000, 48
    centers = rng.normal(size=(n_classes, n_features))
    labels = np.repeat(np.arange(n_classes), 4)
    X = centers[labels] + 0.5 * rng.normal(size=(len(labels), n_features))
    rows = ArrayRows(X.astype(np.float32), labels, normalize=True)
    result = train_linear(TrainingStream(rows), TrainSettings(), class_moments(rows))
    assert (result.model.predict(rows.read(0, rows.n_samples)) == labels).mean() > 0.9
