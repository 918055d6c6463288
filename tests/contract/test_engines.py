"""What every engine must do, whatever its workers are."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

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


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "ray":
        with ray_cluster():
            yield request.param
    else:
        yield request.param


@pytest.mark.parametrize("n_workers", [1, 3, 9])
def test_results_come_in_the_order_of_the_workers(kind: str, n_workers: int) -> None:
    with engine_of(kind, n_workers) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert engine.n_workers == crew.n_workers == n_workers
        assert crew.run(engines.product_sum, 10) == [10 * sum(NUMBERS[k::n_workers]) for k in range(n_workers)]
        assert crew.restarts == 0


def test_a_worker_keeps_its_state_between_calls(kind: str) -> None:
    with engine_of(kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.remember, 5) == [5, 4]
        assert crew.run(engines.remember, 5) == [6, 5]
        assert len(NUMBERS) == 7


def test_what_a_task_raises_is_raised_here_and_not_repeated(kind: str) -> None:
    with engine_of(kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        with pytest.raises(DataError, match=r"numbers \[0, 2, 4, 6\] are refused"):
            crew.run(engines.refuse)
        assert crew.restarts == 0
        assert crew.run(engines.product_sum, 1) == [12, 9]  # the crew is whole


def test_workers_use_one_thread_of_linear_algebra(kind: str) -> None:
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    with engine_of(kind, 2) as engine, engine.start(engines.part_of, NUMBERS) as crew:
        assert crew.run(engines.n_blas_threads) == [1, 1]


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
