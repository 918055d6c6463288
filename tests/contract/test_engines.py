"""What every engine must do, whatever its workers are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltstore.atomic import is_alive
from ltstore.engine import LocalEngine, RayEngine
from ltstore.errors import BackendUnavailableError, ConfigError, DataError, WorkerLostError
from support import engines
from support.engines import KINDS, engine_of, need, ray_cluster

NUMBERS = list(range(7))


def test_no_cluster_at_the_address_is_one_error() -> None:
    """First of all: afterwards one of this machine is connected."""
    need("ray")
    with pytest.raises(BackendUnavailableError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        RayEngine("127.0.0.1:1", 1)


@pytest.mark.parametrize("n_workers", [1, 3, 9])
def test_results_come_in_the_order_of_the_workers(engine_kind: str, n_workers: int) -> None:
    with engine_of(engine_kind, n_workers) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert engine.n_workers == crew.n_workers == n_workers
        assert crew.run(engines.product_sum, 10) == [10 * sum(NUMBERS[k::n_workers]) for k in range(n_workers)]
        assert crew.restarts == 0


def test_a_worker_keeps_its_state_between_calls(engine_kind: str) -> None:
    with engine_of(engine_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.remember, 5) == [5, 4]
        assert crew.run(engines.remember, 5) == [6, 5]
        assert len(NUMBERS) == 7


def test_what_a_task_raises_is_raised_here_and_not_repeated(engine_kind: str) -> None:
    with engine_of(engine_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        with pytest.raises(DataError, match=r"numbers \[0, 2, 4, 6\] are refused"):
            crew.run(engines.refuse)
        assert crew.restarts == 0
        assert crew.run(engines.product_sum, 1) == [12, 9]  # the crew is whole


def test_workers_use_one_thread_of_linear_algebra(engine_kind: str) -> None:
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    with engine_of(engine_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.n_blas_threads) == [1, 1]


def test_items_go_to_whoever_is_free(engine_kind: str, tmp_path: Path) -> None:
    items = [(number, tmp_path / "marker") for number in range(6)]
    with engine_of(engine_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        found = list(crew.iter_items(engines.wait_for, items))
        assert list(crew.iter_items(engines.wait_for, [])) == []
    assert sorted(found) == list(range(6))
    assert found.index(0) > found.index(4)


def test_an_item_that_is_refused_ends_the_others(engine_kind: str) -> None:
    with engine_of(engine_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        with pytest.raises(DataError, match="number 3 is refused"):
            list(crew.iter_items(engines.refuse_at, range(200)))
        assert crew.restarts == 0
        n_kept = sum(crew.run(engines.remember, 5))
        assert n_kept < 200
        assert sorted(crew.iter_items(engines.refuse_at, [7, 8])) == [7, 8]  # the crew is whole


def test_relative_paths_mean_what_they_do_here(engine_kind: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with engine_of(engine_kind, 1) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.directory) == [str(tmp_path)]


def test_what_a_worker_may_count_on(engine_kind: str) -> None:
    with engine_of(engine_kind, 64) as engine:
        assert engine.worker_cores == 1
        assert not engine.has_gpus


@pytest.fixture(params=KINDS[1:], scope="module")
def process_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "ray":
        with ray_cluster():
            yield request.param
    else:
        yield request.param


def test_a_lost_worker_is_replaced_and_its_call_repeated(process_kind, tmp_path, caplog) -> None:
    with engine_of(process_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        before = crew.run(engines.process_id)
        assert os.getpid() not in before
        assert crew.run(engines.die_if_first, str(tmp_path / "marker")) == [12, 9]
        assert crew.restarts == 1
        assert "worker 2 of 2 was lost and is replaced" in caplog.text
        after = crew.run(engines.process_id)
        assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_the_item_of_a_killed_worker_is_done_by_its_replacement(process_kind, tmp_path) -> None:
    items = [(number, str(tmp_path / "marker")) for number in range(8)]
    with engine_of(process_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        found = list(crew.iter_items(engines.die_at, items))
        assert crew.restarts == 1
    assert sorted(number for number, _ in found) == list(range(8))
    assert len({process for _, process in found}) in (2, 3)


def test_one_that_is_lost_again_and_again_is_one_error(process_kind) -> None:
    with engine_of(process_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        with pytest.raises(WorkerLostError, match="worker 2 of 2 was lost 4 times in the same call"):
            crew.run(engines.die)
        assert crew.restarts == 3


def test_one_that_dies_between_two_calls_is_replaced(process_kind) -> None:
    with engine_of(process_kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        crew.run(engines.product_sum, 1)
        if process_kind == "ray":
            import ray

            ray.kill(crew._workers[0].actor)
        else:
            (process,) = crew._workers[0]._pool._processes.values()
            process.kill()
            process.join()
        assert crew.run(engines.product_sum, 2) == [24, 18]
        assert crew.restarts == 1


def test_a_source_that_cannot_travel_is_refused(process_kind) -> None:
    with (
        engine_of(process_kind, 2) as engine,
        pytest.raises(ConfigError, match=r"cannot be sent .*pickle.*: use"),
    ):
        engine.start(engines.part_of, threading.Lock())


def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        "import sys, time\n"
        "from ltstore.engine import LocalEngine\n"
        "from support import engines\n"
        "if __name__ == '__main__':\n"
        "    crew = LocalEngine(2, 'processes').start(engines.part_of, [1, 2])\n"
        "    print(*crew.run(engines.process_id), flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, env=environment, text=True
    ) as caller:
        workers = [int(word) for word in caller.stdout.readline().split()]
        assert all(map(is_alive, workers))
        caller.kill()
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_what_was_sent_and_cannot_be_read_is_no_lost_worker(process_kind) -> None:
    with engine_of(process_kind, 1) as engine, engine.start(engines.part_of, engines.Unreadable()) as crew:
        with pytest.raises((DataError, BackendUnavailableError), match="those that were sent"):
            crew.run(engines.product_sum, 1)
        assert crew.restarts == 0


def test_kinds_and_numbers_are_checked() -> None:
    with pytest.raises(ConfigError, match="threads or processes, found 'fibres'"):
        LocalEngine(2, "fibres")
    with pytest.raises(ConfigError, match="positive integer"):
        LocalEngine(0)
    with pytest.raises(ConfigError, match="positive integer"):
        RayEngine("local", -1)
    with pytest.raises(ConfigError, match="'CPU' of a worker must be at least 0"):
        RayEngine("local", 1, {"CPU": -1.0})


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailableError, match=r'pip install "ltstore\[ray\]"'):
        RayEngine("local", 1)


def test_a_worker_that_nothing_can_hold_is_one_error() -> None:
    need("ray")
    with ray_cluster():
        engine = RayEngine("auto", 1, {"unobtainium": 1.0}, start_seconds=1.0)
        with (
            engine.start(engines.part_of, NUMBERS) as crew,
            pytest.raises(WorkerLostError, match="did not start in 1 seconds"),
        ):
            crew.run(engines.product_sum, 1)


@pytest.mark.parametrize(
    "cluster, resources, expected",
    [
        ({"CPU": 16.0, "GPU": 4.0}, None, (4, 4, True)),
        ({"CPU": 16.0, "GPU": 4.0}, {"CPU": 2.0}, (4, 2, True)),
        ({"CPU": 3.0, "GPU": 4.0}, None, (3, 1, True)),
        ({"CPU": 16.0}, None, (16, 1, False)),
    ],
    ids=["a share of the CPUs each", "as asked", "as many as find a CPU", "none there"],
)
def test_a_gpu_for_every_worker(monkeypatch: pytest.MonkeyPatch, cluster, resources, expected) -> None:
    ray = SimpleNamespace(cluster_resources=lambda: cluster, __version__="0")
    monkeypatch.setattr("ltstore.engine.ray_cluster._connect", lambda *_: (ray, False))
    engine = RayEngine("auto", resources=resources, use_gpus=True)
    assert (engine.n_workers, engine.worker_cores, engine.has_gpus) == expected


def test_each_process_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7f,-1")
    with (
        LocalEngine(kind="processes", use_gpus=True) as engine,
        engine.start(engines.part_of, NUMBERS) as crew,
    ):
        assert (engine.n_workers, engine.has_gpus) == (2, True)
        assert crew.run(engines.visible_gpus) == ["3", "GPU-7f"]
    with LocalEngine(3, "processes", use_gpus=True) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.visible_gpus) == ["3", "GPU-7f", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not LocalEngine(2, "processes", use_gpus=True).has_gpus
    with pytest.raises(ConfigError, match="use processes"):
        LocalEngine(2, use_gpus=True)
