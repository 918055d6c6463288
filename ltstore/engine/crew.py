"""Workers that are asked together, and replaced when they are lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, Self

from ltstore.errors import WorkerLostError

MOST_RESTARTS = 3  # of one worker within one call

_log = logging.getLogger(__name__)

Make = Callable[[Any, int, int], Any]
"""(source, number, n_workers) -> what worker `number` keeps between calls. A function of a module: it may travel."""

Task = Callable[..., Any]
"""(what a worker keeps, *arguments) -> its result. A function of a module: it may travel."""


class LostError(Exception):
    """A worker is gone; says how. Never leaves this room."""


class Pending(Protocol):
    """A call that a worker is at."""

    def result(self) -> Any:
        """Wait and return what the task gave; raise what it raised, or LostError."""


class Worker(Protocol):
    """One worker. Makes its state when it is first asked for something."""

    def submit(self, task: Task, arguments: Any) -> Pending:
        """Begin a call; never raises for a worker that is gone, its result does."""

    def close(self) -> None:
        """End it, at work or not."""


class Staff(Protocol):
    """Where workers come from."""

    def hire(self, number: int) -> Worker:
        """Start worker `number`."""

    def pack(self, arguments: tuple[Any, ...]) -> Any:
        """Return arguments in the form in which every worker is sent them."""

    def working(self) -> AbstractContextManager[Any]:
        """Return what holds while workers are at work."""


class Engine(Protocol):
    """Where work is done. Close it, or use it in a `with` statement."""

    @property
    def n_workers(self) -> int:
        """How many workers it starts."""

    @property
    def shares_memory(self) -> bool:
        """Whether all workers live in the memory of this machine, which they then have to divide."""

    @property
    def own_processes(self) -> bool:
        """Whether each worker is a process of its own."""

    @property
    def worker_cores(self) -> int:
        """How many cores of its machine a worker may count on, e.g. for threads of its own that decode."""

    @property
    def has_gpus(self) -> bool:
        """Whether each worker is given GPUs of its own, and sees no others."""

    def start(self, make: Make, source: Any) -> Crew:
        """Start workers.

        Parameters
        ----------
        make : Make
        source : object
            Sent to every worker once; read-only from then on. Picklable where workers are other processes.

        Raises
        ------
        ConfigError
            The source cannot be sent.
        BackendUnavailableError
            There is nothing to start workers on.
        """

    def describe(self) -> dict[str, Any]:
        """Return its kind and size, for a record."""

    def close(self) -> None:
        """End what it has started."""


class Crew:
    """The workers of one `Engine.start`. Close it, or use it in a `with` statement.

    Parameters
    ----------
    staff : Staff
    n_workers : int

    Attributes
    ----------
    restarts : int
        Workers that were lost and replaced.
    """

    def __init__(self, staff: Staff, n_workers: int) -> None:
        self._staff = staff
        self._workers: list[Worker] = []
        self._guard = Lock()
        self.restarts = 0
        try:
            for number in range(n_workers):
                self._workers.append(staff.hire(number))
        except BaseException:
            self.close()
            raise

    @property
    def n_workers(self) -> int:
        """How many there are."""
        return len(self._workers)

    def run(self, task: Task, *arguments: Any) -> list[Any]:
        """Return ``task(state, *arguments)`` of every worker, in the order of the workers.

        A worker that is lost is replaced: its state is made anew and its call repeated, at most `MOST_RESTARTS` times.

        Raises
        ------
        WorkerLostError
            A worker was lost again and again, or cannot be started.
        Exception
            What a task raised; that of the first worker where several did. All have ended then.
        """
        return list(self.iter_results(task, *arguments))

    def iter_results(self, task: Task, *arguments: Any) -> Iterator[Any]:
        """Yield what `run` returns, each result when it and those before it are there."""
        packed = self._staff.pack(arguments)
        with self._staff.working():
            calls = [worker.submit(task, packed) for worker in self._workers]
            for number, call in enumerate(calls):
                try:
                    found = self._result(number, call, task, packed)
                except Exception:
                    _wait(calls[number + 1 :])
                    raise
                yield found

    def iter_items(self, task: Task, items: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield ``task(state, item)`` of every item as it ends, in any order: a worker that is free takes the next.

        For items that do not depend on who does them. A worker that is lost is replaced as in `run`, and its item
        alone is done again. What a task raises is raised here once the items at work have ended; no other is begun, and
        so it is when the iteration is closed.
        """
        free: SimpleQueue[int] = SimpleQueue()
        for number in range(self.n_workers):
            free.put(number)

        def done(item: Any) -> Any:
            number = free.get()
            try:
                packed = self._staff.pack((item,))
                return self._result(number, self._workers[number].submit(task, packed), task, packed)
            finally:
                free.put(number)

        with (
            self._staff.working(),
            ThreadPoolExecutor(self.n_workers, thread_name_prefix="ltstore-crew") as pool,
        ):
            try:
                for call in as_completed([pool.submit(done, item) for item in items]):
                    yield call.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, number: int, call: Pending, task: Task, packed: Any) -> Any:
        for lost in range(MOST_RESTARTS + 1):
            try:
                return call.result()
            except LostError as err:
                who = f"worker {number + 1} of {self.n_workers}"
                if lost == MOST_RESTARTS:
                    raise WorkerLostError(
                        f"{who} was lost {lost + 1} times in the same call, last because {err}: look for memory that "
                        "ran out, or a machine that fails"
                    ) from err
                _log.warning("%s was lost and is replaced: %s", who, err)
            self._workers[number].close()
            self._workers[number] = self._staff.hire(number)
            with self._guard:
                self.restarts += 1
            call = self._workers[number].submit(task, packed)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait(calls: list[Pending]) -> None:
    for call in calls:
        try:
            call.result()
        except Exception as err:  # noqa: BLE001 - another worker's error is raised already
            _log.info("a worker failed as well: %s", err)
