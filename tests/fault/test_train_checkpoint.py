"""A training that is killed at any moment and taken up again ends in the same bits; anything else is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ltstore import atomic
from ltstore.errors import ConfigError, LtstoreError, ModelFormatError, PlanMismatchError, StoreExistsError
from ltstore.linear import Checkpointing, MinibatchSettings, TrainSettings, train_grid, train_linear
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import make_sampler
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.made_sampler import MadeSampler

COUNTS = (60, 30, 12, 5)
C, D = len(COUNTS), 7


def made(seed=0, counts=COUNTS):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), counts))
    centers = np.random.default_rng(9).normal(size=(C, D))
    X = centers[labels] + 0.9 * rng.normal(size=(len(labels), D))
    return ArrayRows(X, labels, class_names=list("abcd"))


ROWS, HELD = made(), made(1, (10, 10, 10, 10))
MOMENTS = class_moments(ROWS)
SETTINGS = {
    "lbfgs": TrainSettings(l2=1e-2, keep="best"),
    "lbfgs to its limit": TrainSettings(l2=1e-3, tolerance=0.0, max_passes=9),
    "sgd": TrainSettings(solver="sgd", minibatch=MinibatchSettings(epochs=5, batch_size=20), keep="best"),
    "adam": TrainSettings(solver="adam", minibatch=MinibatchSettings(epochs=5, batch_size=20)),
    "grid": [  # they search at different times, and end at different ones for every reason there is
        TrainSettings(l2=1e-2, keep="best"),
        TrainSettings(l2=1e-3, tolerance=0.0, max_passes=9, keep="best"),
        TrainSettings(loss="ce", l2=1.0, tolerance=1e-12, keep="best"),
        TrainSettings(implicit=0.5, smoothing=0.1, penalty="whitened", keep="best"),
    ],
}


class KilledError(Exception):
    pass


def train(
    settings, directory=None, kill_after=None, *, rows=ROWS, holdout=HELD, moments=MOMENTS, targets=9, **how
):
    grid = settings if isinstance(settings, list) else [settings]
    sampler = MadeSampler(MOMENTS.means, 0.4)
    stream = TrainingStream(
        rows, sampler=sampler, targets=np.full(C, targets), seed=grid[0].seed, block_rows=50
    )
    made_passes = []

    def on_pass(done):
        made_passes.append(done)
        if len(made_passes) == kill_after:
            raise KilledError

    options = {
        "holdout": holdout,
        "checkpoint": None if directory is None else Checkpointing(directory=directory, **how),
        "on_pass": on_pass,
    }
    if grid is settings:
        return train_grid(stream, grid, moments, **options)
    return [train_linear(stream, settings, moments, **options)]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name in ("weight", "bias"):
            assert getattr(one.model, name).tobytes() == getattr(other.model, name).tobytes()
        assert timeless(one.history) == timeless(other.history)
        assert (one.stopped, one.kept_pass, one.holdout) == (other.stopped, other.kept_pass, other.holdout)


def timeless(history):
    times = {"seconds": 0, "data_seconds": 0, "rows_per_second": 0}
    return [dataclasses.replace(done, **times).to_json() for done in history]


def passes_of(results):
    return max(result.n_passes for result in results)


@pytest.mark.parametrize("every_passes", [1, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_killed_after_any_pass_ends_in_the_same_bits(tmp_path, name, every_passes):
    settings = SETTINGS[name]
    whole = train(settings)
    assert passes_of(whole) >= 5
    same(train(settings, tmp_path / "whole", every_passes=every_passes), whole)
    for kill_after in range(1, passes_of(whole)):
        directory = tmp_path / str(kill_after)
        with pytest.raises(KilledError):
            train(settings, directory, kill_after, every_passes=every_passes)
        same(train(settings, directory, every_passes=every_passes), whole)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path, name):
    """Every attempt gets on, by a pass: a line search is gone on with in the middle."""
    whole = train(SETTINGS[name])
    for _ in range(passes_of(whole) + 1):
        try:
            result = train(SETTINGS[name], tmp_path / "c", 1, every_passes=1)
        except KilledError:
            continue
        same(result, whole)
        return
    pytest.fail("no attempt came to the end")


def test_heads_go_on_in_step(tmp_path, monkeypatch):
    """Searches of several passes, begun at different ones, in products whose bits depend on which heads they are of."""
    monkeypatch.setattr("ltstore.linear.solver.FIRST_LENGTH", 10.0)
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(23), 30))
    X = rng.normal(size=(23, 41))[labels] + 2.0 * rng.normal(size=(len(labels), 41))
    rows = ArrayRows(X, labels)
    moments = class_moments(rows)
    grid = [TrainSettings(l2=l2, max_passes=12) for l2 in (1e-4, 1e-2, 1.0)]

    def run(directory, kill_after=None, settings=grid):
        passes = []

        def on_pass(done):
            passes.append(done)
            if len(passes) == kill_after:
                raise KilledError

        checkpoint = Checkpointing(directory=directory, every_passes=1)
        return train_grid(TrainingStream(rows), settings, moments, checkpoint=checkpoint, on_pass=on_pass)

    whole = run(tmp_path / "whole")
    searches = [[done.gap != done.gap for done in one.history] for one in whole]
    assert any(len(set(at)) > 1 for at in zip(*searches, strict=False))
    fewer = run(tmp_path / "fewer", settings=grid[1:])
    assert whole[1].model.weight.tobytes() != fewer[0].model.weight.tobytes()
    for kill_after in range(1, passes_of(whole)):
        with pytest.raises(KilledError):
            run(tmp_path / str(kill_after), kill_after)
        same(run(tmp_path / str(kill_after)), whole)


@pytest.mark.parametrize("cache_bytes", [1 << 30, 0])
def test_a_run_on_sums_of_real_rows_ends_in_the_same_bits(tmp_path, cache_bytes):
    def run(directory, kill_after=None, cache_bytes=cache_bytes):
        sampler = make_sampler("smote").fit(ROWS, MOMENTS, class_donors(MOMENTS.means, MOMENTS.counts))
        stream = TrainingStream(
            ROWS, sampler=sampler, targets=np.full(C, 20), block_rows=50, cache_bytes=cache_bytes
        )
        assert stream.combined(C) is not None
        passes = []

        def on_pass(done):
            passes.append(done)
            if len(passes) == kill_after:
                raise KilledError

        options = {"checkpoint": Checkpointing(directory=directory, every_passes=1), "on_pass": on_pass}
        return [train_linear(stream, TrainSettings(l2=1e-3), MOMENTS, **options)]

    whole = run(tmp_path / "whole")
    for kill_after in (1, 4, 7):
        with pytest.raises(KilledError):
            run(tmp_path / str(kill_after), kill_after)
        with pytest.raises(PlanMismatchError, match="real_cached"):
            run(tmp_path / str(kill_after), cache_bytes=0 if cache_bytes else 1 << 30)
        same(run(tmp_path / str(kill_after)), whole)


def test_only_so_often(tmp_path, monkeypatch):
    from ltstore.linear import checkpoint

    saved = []
    monkeypatch.setattr(
        checkpoint.Checkpoint, "save", lambda self, states: saved.append(len(states[0].facts["passes"]))
    )
    settings = SETTINGS["adam"]
    train(settings, tmp_path / "a", every_passes=100, every_seconds=1e6)
    assert saved == []
    train(settings, tmp_path / "b", every_passes=100, every_seconds=0.0)
    assert saved == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["lbfgs", "adam", "grid"])
def test_a_kill_while_a_checkpoint_is_written(tmp_path, monkeypatch, name):
    """Every file operation of every save fails once; what lies there then is whole or not there."""
    whole = train(SETTINGS[name])
    real = Path.replace
    for fail_at in range(1, 2 * passes_of(whole) + 1, 3):
        calls = 0

        def replace(self, target, *, fail_at=fail_at):
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise KilledError
            return real(self, target)

        directory = tmp_path / str(fail_at)
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(KilledError):
            train(SETTINGS[name], directory, every_passes=1)
            raise KilledError  # so late that no save was left to fail
        monkeypatch.setattr(Path, "replace", real)
        same(train(SETTINGS[name], directory, every_passes=1), whole)
    assert not list(tmp_path.glob("*/*.tmp"))


CHILD = """
import sys
sys.path[:0] = {paths!r}
from fault import test_train_checkpoint as t  # noqa
import time
def slow(done):
    print(len(seen), flush=True); seen.append(done); time.sleep(0.05)
seen = []
t.train_slowly({name!r}, {directory!r}, slow)
"""


SLOW = {"one": [1e-4], "grid": [1e-4, 1e-3, 1e-2]}


def train_slowly(name, directory, on_pass):
    return train_grid(
        TrainingStream(ROWS, block_rows=50),
        [TrainSettings(l2=l2, tolerance=1e-4) for l2 in SLOW[name]],
        MOMENTS,
        checkpoint=Checkpointing(directory=directory, every_passes=1),
        on_pass=on_pass,
    )


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("after", [0.02, 0.3, 0.7])
def test_sigkill(tmp_path, after, name):
    here = Path(__file__).resolve()
    code = textwrap.dedent(CHILD).format(
        paths=[str(here.parents[1]), str(here.parents[2])], name=name, directory=str(tmp_path / "c")
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()  # it is training
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / "c" / "checkpoint.json").exists()
    whole = train_slowly(name, tmp_path / "whole", lambda done: None)
    found = train_slowly(name, tmp_path / "c", lambda done: None)
    same(found, whole)


@pytest.fixture
def begun(tmp_path):
    """A checkpoint of the run "lbfgs", killed after four passes."""
    with pytest.raises(KilledError):
        train(SETTINGS["lbfgs"], tmp_path / "c", 4, every_passes=1)
    return tmp_path / "c"


def test_it_is_two_files_and_continues_where_it_was(begun):
    names = sorted(path.name for path in begun.iterdir())
    assert names[0] == "checkpoint.json"
    assert len(names) == 2
    made_passes = []
    train_linear(
        TrainingStream(ROWS, sampler=MadeSampler(MOMENTS.means, 0.4), targets=np.full(C, 9), block_rows=50),
        SETTINGS["lbfgs"],
        MOMENTS,
        holdout=HELD,
        checkpoint=Checkpointing(directory=begun),
        progress=lambda passes, _: made_passes.append(passes),
    )
    assert made_passes[0] == 4
    assert set(made_passes[1:]) == {1}
    assert sum(made_passes) == passes_of(train(SETTINGS["lbfgs"]))


OTHER_MOMENTS = class_moments(made(5))


@pytest.mark.parametrize(
    "change, word",
    [
        ({"settings": dataclasses.replace(SETTINGS["lbfgs"], l2=2e-3)}, "settings.l2"),
        ({"settings": dataclasses.replace(SETTINGS["lbfgs"], seed=1)}, "seed, settings.seed"),
        ({"settings": SETTINGS["sgd"]}, "settings.solver"),
        ({"rows": made(4)}, "rows"),
        ({"targets": 8}, "targets"),
        ({"holdout": None, "settings": dataclasses.replace(SETTINGS["lbfgs"], keep="last")}, "holdout"),
        ({"holdout": made(2)}, "holdout"),
        ({"moments": OTHER_MOMENTS}, "moments"),
        ({"settings": SETTINGS["grid"]}, "settings, settings of head 1, .* settings of head 4 differ"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(begun, change, word):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    options = {"settings": SETTINGS["lbfgs"]} | change
    with pytest.raises(PlanMismatchError, match=word):
        train(options.pop("settings"), begun, **options)
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_a_checkpoint_of_another_grid_is_refused(tmp_path):
    grid = SETTINGS["grid"]
    with pytest.raises(KilledError):
        train(grid, tmp_path, 3, every_passes=1)
    other = [*grid[:2], dataclasses.replace(grid[2], l2=0.2), grid[3]]
    for found, word in (
        (other, r"\(settings of head 3.l2 differ\)"),
        (grid[:3], r"\(settings of head 4 differ\)"),
        (grid[0], "settings, settings of head 1"),
    ):
        with pytest.raises(PlanMismatchError, match=word):
            train(found, tmp_path)
    same(train(grid, tmp_path), train(grid))


def test_files_cut_short_anywhere(begun):
    for path in sorted(begun.iterdir()):
        whole = path.read_bytes()
        for length in [*range(0, len(whole) - 2, 211), len(whole) - 2]:
            path.write_bytes(whole[:length])
            with pytest.raises(ModelFormatError, match=r"remove the directory|newer|update"):
                train(SETTINGS["lbfgs"], begun)
        path.write_bytes(whole)


def test_a_header_that_has_changed_is_not_taken_for_another_training(begun):
    path = begun / "checkpoint.json"
    path.write_text(path.read_text().replace('"shares"', '"shores"').replace('"targets"', '"tareets"'))
    with pytest.raises(ModelFormatError, match=r"checkpoint\.json has changed since it was written"):
        train(SETTINGS["lbfgs"], begun)


def test_any_flipped_byte_is_named_or_harmless(begun, tmp_path):
    whole = train(SETTINGS["lbfgs"])
    rng = np.random.default_rng(0)
    for path in sorted(begun.iterdir()):
        data = path.read_bytes()
        for position in rng.choice(len(data), 60, replace=False).tolist():
            trial = tmp_path / "trial"
            shutil.rmtree(trial, ignore_errors=True)
            shutil.copytree(begun, trial)
            flipped = data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :]
            (trial / path.name).write_bytes(flipped)
            try:
                result = train(SETTINGS["lbfgs"], trial)
            except LtstoreError:
                continue
            assert passes_of(result) <= SETTINGS["lbfgs"].max_passes
            if path.name != "checkpoint.json":
                same(result, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": "../../etc/passwd"},
        {"arrays": None},
        {"arrays": "state-0000000000000000.safetensors"},
        {"facts": []},
        {"facts": {}},
        {"facts": [{}]},
        {"facts": [1]},
        {"facts": [{"passes": [1]}]},
        {"facts": [{"passes": [{"value": "x"}]}]},
        {"format_version": 1},
        {"arrays_digest": "sha256:0"},
    ],
)
def test_headers_that_are_not_ours(begun, changes):
    path = begun / "checkpoint.json"
    path.write_text(json.dumps(unsealed(path) | changes))
    with pytest.raises(ModelFormatError):
        train(SETTINGS["lbfgs"], begun)


def unsealed(path):
    """The header without what says that it was changed, so that what it says is looked at."""
    header = json.loads(path.read_text())
    del header["seal"]
    return header


def test_a_number_that_has_changed_is_seen_though_it_is_a_number(begun):
    path = begun / "checkpoint.json"
    header = json.loads(path.read_text())
    header["facts"][0]["value"] *= 1.5
    path.write_text(json.dumps(header))
    with pytest.raises(ModelFormatError, match=r"checkpoint\.json has changed since it was written: remove"):
        train(SETTINGS["lbfgs"], begun)


@pytest.mark.parametrize(
    "facts",
    [
        {"rhos": [1.0]},
        {"scale": None},
        {"value": True},
        {"best_pass": "1"},
        {"best_score": [1]},
        {"passes": []},
    ],
)
def test_facts_that_are_not_ours(begun, facts):
    path = begun / "checkpoint.json"
    header = unsealed(path)
    header["facts"][0] |= facts
    path.write_text(json.dumps(header))
    with pytest.raises(ModelFormatError):
        train(SETTINGS["lbfgs"], begun)


def test_a_directory_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("hi")
    with pytest.raises(StoreExistsError, match=r"notes\.txt"):
        train(SETTINGS["lbfgs"], tmp_path)
    with pytest.raises(StoreExistsError):
        train(SETTINGS["lbfgs"], tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "hi"


@pytest.mark.parametrize("values", [{"every_passes": 0}, {"every_passes": 1.5}, {"every_seconds": -1.0}])
def test_how_often_must_be_possible(tmp_path, values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Checkpointing(directory=tmp_path, **values)


def test_a_dead_writers_temporary_files_do_no_harm(begun):
    whole = train(SETTINGS["lbfgs"])
    (begun / f"checkpoint.json.{atomic._HOST}-999999999-00000000.tmp").write_bytes(b"half")
    same(train(SETTINGS["lbfgs"], begun, every_passes=1), whole)
