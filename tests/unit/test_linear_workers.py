"""Training by workers: the result of one worker within rounding, and always the same for one number of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.engine import Engine, LocalEngine
from ltstore.errors import BackendUnavailableError, ConfigError, DataError, PlanMismatchError
from ltstore.linear import Checkpointing, TrainResult, TrainSettings, train_grid, train_linear
from ltstore.linear.device import Placement, resolve_workers_device, worker_evaluator
from ltstore.linear.objective import Evaluation, evaluate_together
from ltstore.linear.problem import Problem
from ltstore.linear.shared_passes import SharedPasses
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import balance_targets
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.engines import DyingRows, engine_of, ray_cluster
from support.samplers import ready

COUNTS = (70, 33, 12, 4, 1)
C, D = len(COUNTS), 7
SETTINGS = TrainSettings(tolerance=1e-6)
ON_CPU = Placement("cpu", "float32", "")


def made(counts=COUNTS, *, seed=0, ordered=False, unlabelled=6, rows_type=ArrayRows) -> Any:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])
    labels = labels if ordered else rng.permutation(labels)
    X = np.random.default_rng(9).normal(size=(len(counts) + 1, D))[labels] + 0.8 * rng.normal(
        size=(len(labels), D)
    )
    return rows_type(X, labels, class_names="abcdefgh"[: len(counts)], normalize=True)


def stream_of(rows: ArrayRows, sampler: str | None = None, **options: Any) -> tuple[TrainingStream, Any]:
    moments = class_moments(rows, rank=3)
    if sampler is not None:
        fitted = ready(sampler, rows).fit(rows, moments, class_donors(moments.means, moments.counts))
        options |= {"sampler": fitted, "targets": balance_targets(moments.counts)}
    return TrainingStream(rows, block_rows=16, **options), moments


def assert_close(found: Evaluation, expected: Evaluation) -> None:
    assert found.value == pytest.approx(expected.value, rel=2e-6)
    assert found.loss == pytest.approx(expected.loss, rel=2e-6)
    scale = max(float(np.abs(expected.grad_weight).max()), 1.0)
    np.testing.assert_allclose(found.grad_weight, expected.grad_weight, atol=5e-6 * scale)
    np.testing.assert_allclose(found.grad_bias, expected.grad_bias, atol=5e-6)


def compare(stream: TrainingStream, moments: Any, settings: TrainSettings, engine: Engine) -> None:
    """Two passes of several heads, and one of one of them, against those without workers."""
    n_classes = stream.n_classes
    problems = [
        Problem(stream, one, moments) for one in (settings, replace(settings, posthoc_tau=0.5), settings)
    ]
    objectives = [problem.objective for problem in problems]
    rng = np.random.default_rng(1)
    with closing(SharedPasses(engine, objectives, ON_CPU)) as passes:
        for chosen in ([0, 1, 2], [0, 2], [1]):
            points = [(rng.normal(size=(n_classes, D)), rng.normal(size=n_classes)) for _ in chosen]
            some = [objectives[number] for number in chosen]
            for found, expected in zip(passes(some, points), evaluate_together(some, points), strict=True):
                assert_close(found, expected)
                assert 0 <= found.data_seconds <= found.seconds


@pytest.mark.parametrize("n_workers", [1, 2, 3, 5])
@pytest.mark.parametrize("sampler", [None, "smote", "residual-transfer", "kde"])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0], ids=["in memory", "streamed"])
def test_a_pass_is_that_of_one_worker(n_workers: int, sampler: str | None, cache_bytes: int) -> None:
    stream, moments = stream_of(made(), sampler, cache_bytes=cache_bytes)
    compare(stream, moments, SETTINGS, LocalEngine(n_workers))


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(loss="ce", implicit=0.5),
        TrainSettings(implicit=0.5, smoothing=0.1),
        TrainSettings(smoothing=0.1, margin=0.3),
        TrainSettings(class_weights="balanced", penalty="whitened"),
        TrainSettings(head="cosine"),
        TrainSettings(backend="reference"),
    ],
    ids=["implicit", "implicit and smoothing", "smoothing and margins", "class weights", "cosine", "reference"],
)
def test_with_every_term_of_the_objective(settings: TrainSettings) -> None:
    weights = np.random.default_rng(2).uniform(0, 2, sum(COUNTS) + 6).astype(np.float32)
    stream, moments = stream_of(made(), "smote", weights=weights)
    compare(stream, moments, settings, LocalEngine(3))


@pytest.mark.parametrize("n_workers", [2, 5, 9])
@pytest.mark.parametrize(
    "rows",
    [made((2, 1), unlabelled=0), made((1, 1, 1), unlabelled=30, ordered=True), made(ordered=True)],
    ids=["fewer rows than workers", "labels in one corner", "classes in order: each in a part or two"],
)
def test_awkward_sizes(rows: ArrayRows, n_workers: int) -> None:
    stream, moments = stream_of(rows)
    compare(stream, moments, SETTINGS, LocalEngine(n_workers))
    with LocalEngine(n_workers) as engine:
        found = class_moments(rows, rank=3, engine=engine)
    np.testing.assert_array_equal(found.counts, moments.counts)
    np.testing.assert_allclose(found.means, moments.means, atol=1e-6)
    np.testing.assert_allclose(found.pooled, moments.pooled, atol=1e-6)


@pytest.mark.parametrize("n_workers", [1, 2, 3, 5])
def test_moments_are_those_of_one_worker(n_workers: int) -> None:
    rows, counted = made(), []
    with LocalEngine(n_workers) as engine:
        found = class_moments(
            rows, rank=3, block_rows=7, engine=engine, progress=lambda n, seconds: counted.append(n)
        )
        again = class_moments(rows, rank=3, block_rows=7, engine=engine)
    assert sum(counted) == 2 * rows.n_samples
    expected = class_moments(rows, rank=3)
    for name, array in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), array, atol=1e-5 * max(1, np.abs(array).max()))
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))


def trained(
    rows: ArrayRows, engine: Engine | None, settings=SETTINGS, sampler="smote", **options
) -> TrainResult:
    cache_bytes = options.pop("cache_bytes", 1 << 30)
    stream, moments = stream_of(rows, sampler, cache_bytes=cache_bytes)
    return train_linear(stream, settings, moments, engine=engine, **options)


class TestEveryEngine:
    def test_the_model_is_that_of_threads_to_the_bit_and_of_one_worker_within_rounding(
        self, engine_kind: str
    ) -> None:
        rows = made()
        with engine_of(engine_kind, 3) as engine:
            found = trained(rows, engine)
        X = rows.read(0, rows.n_samples)
        alone, threads = trained(rows, None), trained(rows, LocalEngine(3))
        assert np.abs(found.model.predict_proba(X) - alone.model.predict_proba(X)).max() < 2e-3
        assert found.history[-1].value == pytest.approx(alone.history[-1].value, rel=1e-5)
        np.testing.assert_array_equal(found.model.weight, threads.model.weight)
        np.testing.assert_array_equal(found.model.bias, threads.model.bias)
        settings = found.model.record["settings"]
        assert settings["workers"]["n_workers"] == 3
        assert settings["workers"]["restarts"] == 0
        assert settings["workers"]["engine"] == {"ray": "ray"}.get(engine_kind, f"local {engine_kind}")
        assert settings["synthesis"] == "in the step, as sums of real rows"
        assert "workers" not in alone.model.record["settings"]

    def test_a_worker_that_dies_in_mid_run_changes_nothing(self, engine_kind: str, tmp_path: Path) -> None:
        if engine_kind == "threads":
            pytest.skip("a thread does not die alone")
        expected = trained(made(), LocalEngine(2), cache_bytes=0)
        rows = made(rows_type=DyingRows).arm(tmp_path / "died", 20)
        with engine_of(engine_kind, 2) as engine:
            found = trained(rows, engine, cache_bytes=0)
        assert (tmp_path / "died").exists()
        assert found.model.record["settings"]["workers"]["restarts"] == 1
        np.testing.assert_array_equal(found.model.weight, expected.model.weight)
        assert found.n_passes == expected.n_passes

    def test_what_is_wrong_with_rows_is_said_as_without_workers(self, engine_kind: str) -> None:
        rows = made()
        stream, moments = stream_of(rows)
        rows._X[-1] = np.nan
        with (
            engine_of(engine_kind, 2) as engine,
            pytest.raises(DataError, match="training rows have NaN or Inf"),
        ):
            train_linear(stream, SETTINGS, moments, engine=engine)


def test_an_actor_that_is_killed_in_mid_run_is_replaced() -> None:
    expected = trained(made(), LocalEngine(2))
    with ray_cluster(), engine_of("ray", 2) as engine:
        import ray

        crews, start = [], engine.start

        def starting(make, source):
            crews.append(start(make, source))
            return crews[-1]

        def kill(done) -> None:
            if len(killed) < 2:
                worker = crews[0]._workers[len(killed)]
                killed.append(worker)
                ray.kill(worker.actor)

        killed: list[Any] = []
        engine.start = starting  # type: ignore[method-assign]
        found = trained(made(), engine, on_pass=kill)
    assert found.model.record["settings"]["workers"]["restarts"] == 2
    np.testing.assert_array_equal(found.model.weight, expected.model.weight)


def test_twice_the_same_to_the_bit() -> None:
    for n_workers in (2, 5):
        a, b = (trained(made(), LocalEngine(n_workers), sampler="kde") for _ in range(2))
        np.testing.assert_array_equal(a.model.weight, b.model.weight)
        assert [done.value for done in a.history] == [done.value for done in b.history]


def test_holdout_grid_and_the_best_pass() -> None:
    rows, held = made(), made((9, 9, 9, 9, 9), seed=4)
    settings = [replace(SETTINGS, l2=l2, keep="best") for l2 in (1e-3, 1e-2)]
    stream, moments = stream_of(rows, "residual-transfer")
    how = {"holdout": held}
    alone = train_grid(stream, settings, moments, **how)
    shared = train_grid(stream, settings, moments, engine=LocalEngine(2), **how)
    for found, expected in zip(shared, alone, strict=True):
        assert found.history[0].value == pytest.approx(expected.history[0].value, rel=1e-6)
        assert found.history[-1].value == pytest.approx(expected.history[-1].value, rel=1e-4)
        assert found.holdout.balanced == pytest.approx(expected.holdout.balanced, abs=0.03)
        assert found.model.record["settings"]["workers"]["n_workers"] == 2
    one = train_linear(stream, settings[0], moments, engine=LocalEngine(2), **how)
    assert one.history[0].value == pytest.approx(shared[0].history[0].value, rel=1e-6)


class _StoppedError(Exception):
    pass


def test_a_run_goes_on_from_its_checkpoint_and_only_with_as_many_workers(tmp_path: Path) -> None:
    def checkpoint() -> Checkpointing:
        return Checkpointing(directory=tmp_path / "state", every_passes=1)

    def stop(_: object) -> None:
        counted.append(1)
        if len(counted) == 4:
            raise _StoppedError

    counted: list[int] = []
    with pytest.raises(_StoppedError):
        trained(made(), LocalEngine(2), checkpoint=checkpoint(), on_pass=stop)
    for engine in (None, LocalEngine(3)):
        with pytest.raises(PlanMismatchError, match="workers"):
            trained(made(), engine, checkpoint=checkpoint())
    found = trained(made(), LocalEngine(2), checkpoint=checkpoint())
    expected = trained(made(), LocalEngine(2))
    np.testing.assert_array_equal(found.model.weight, expected.model.weight)
    assert found.n_passes == expected.n_passes


@pytest.mark.parametrize("sampler", [None, "smote"])
def test_processes_make_passes_in_bf16_as_one_process_does(sampler: str | None) -> None:
    settings = TrainSettings(precision="bf16", tolerance=0, max_passes=6)
    with LocalEngine(2, "processes") as engine:
        found = trained(made(), engine, settings, sampler=sampler)
    expected, plain = (trained(made(), None, one, sampler=sampler) for one in (settings, SETTINGS))
    values = [[done.value for done in one.history[:3]] for one in (found, expected, plain)]
    assert values[0] == pytest.approx(values[1], rel=1e-2)  # sums over fewer rows are rounded otherwise
    assert values[0] != pytest.approx(values[2], rel=1e-5)
    record = found.model.record["settings"]
    assert record["precision"] == "bf16"
    assert record["device_rows"] == "kept on the device"


class Workers:
    """What an engine says of its workers."""

    def __init__(
        self, *, has_gpus: bool = False, own_processes: bool = True, shares_memory: bool = True
    ) -> None:
        self.n_workers = 2
        self.has_gpus, self.own_processes, self.shares_memory = has_gpus, own_processes, shares_memory


def gpus(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr("ltstore.linear.device.find_spec", lambda _: object())


class TestWhereWorkersMakeTheirPasses:
    @pytest.mark.parametrize(
        ("settings", "workers", "device"),
        [
            ({}, {}, "cpu"),
            ({}, {"has_gpus": True}, "cuda"),
            ({"device": "cpu"}, {"has_gpus": True}, "cpu"),
            ({"backend": "numba"}, {"has_gpus": True}, "cpu"),
            ({"precision": "bf16"}, {}, "cpu"),
            ({"precision": "bf16"}, {"has_gpus": True, "shares_memory": False}, "cuda"),
            ({"device": "cuda"}, {}, "cuda"),
            ({"precision": "tf32"}, {"has_gpus": True}, "cuda"),
        ],
    )
    def test_is_what_was_asked_for_or_their_own_gpu(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, workers: Any, device: str
    ) -> None:
        gpus(monkeypatch, 2)
        placement = resolve_workers_device(TrainSettings(**settings), Workers(**workers))  # type: ignore[arg-type]
        assert placement.device == device
        assert placement.evaluator is None
        assert placement.precision == settings.get("precision", "float32")

    def test_a_worker_takes_one_of_those_it_sees(self, monkeypatch: pytest.MonkeyPatch) -> None:
        placement = Placement("cuda", "bf16", "")
        for n, expected in ((1, ["cuda:0"] * 3), (2, ["cuda:0", "cuda:1", "cuda:0"])):
            gpus(monkeypatch, n)
            assert [str(worker_evaluator(placement, number).device) for number in range(3)] == expected
        gpus(monkeypatch, 0)
        with pytest.raises(BackendUnavailableError, match="a GPU for each worker"):
            worker_evaluator(placement, 0)
        assert worker_evaluator(ON_CPU, 0) is None

    @pytest.mark.parametrize(
        ("settings", "workers", "error", "says"),
        [
            ({"device": "cuda:1"}, {}, ConfigError, "say cuda"),
            ({"device": "cuda"}, {"own_processes": False}, ConfigError, "use engine processes"),
            ({"precision": "bf16"}, {"own_processes": False}, ConfigError, "use engine processes"),
            ({"device": "cuda"}, {"shares_memory": False}, BackendUnavailableError, "does the cluster"),
            ({"device": "cuda"}, {}, BackendUnavailableError, "GPUs for workers was asked for"),
        ],
    )
    def test_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, workers: Any, error: type[Exception], says: str
    ) -> None:
        gpus(monkeypatch, 0)
        with pytest.raises(error, match=says):
            resolve_workers_device(TrainSettings(**settings), Workers(**workers))  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_minibatches_are_refused(solver: str) -> None:
    with pytest.raises(ConfigError, match=f"solver '{solver}' come one after the other"):
        trained(made(), LocalEngine(2), TrainSettings(solver=solver))


def test_workers_say_why_rows_are_made() -> None:
    result = trained(made(), LocalEngine(2), sampler="kde")
    assert result.model.record["settings"]["synthesis"] == "rows are made: they are no sums of real rows"
