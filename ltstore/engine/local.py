"""Workers on this machine: threads, or processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from ltstore.cores import available_cores, available_gpus, resolve_n_workers
from ltstore.engine.crew import Crew, LostError, Make, Task
from ltstore.errors import ConfigError

KINDS = ("threads", "processes")

_NOTHING = object()


class LocalEngine:
    """Workers on this machine, each with one thread of linear algebra.

    Parameters
    ----------
    n_workers : int or "auto"
        "auto" is one a core, or a GPU where they use them.
    kind : {"threads", "processes"}
        Threads share everything and start at once; they overlap in what releases the GIL, which products and compiled
        kernels do. A process has its own copy of the source and takes seconds to start; it can die alone.

    use_gpus : bool
        Where the machine has GPUs, a process sees one of them alone, the next process the next one.

    Raises
    ------
    ConfigError
        No such kind, or number; or threads, which see all that this process does, are to have GPUs of their own.

    Notes
    -----
    Processes are spawned: a script that uses them needs the usual ``if __name__ == "__main__":``.
    """

    shares_memory = True

    def __init__(self, n_workers: int | str = "auto", kind: str = "threads", *, use_gpus: bool = False) -> None:
        if kind not in KINDS:
            raise ConfigError(f"local workers are {' or '.join(KINDS)}, found {kind!r}")
        if use_gpus and kind == "threads":
            raise ConfigError("threads share the GPUs of their process: use processes to give each its own")
        self._gpus = available_gpus() if use_gpus else []
        self.n_workers = len(self._gpus) if n_workers == "auto" and self._gpus else resolve_n_workers(n_workers)
        self.kind = kind

    @property
    def has_gpus(self) -> bool:
        """Whether each worker sees a GPU of its own; several share one where there are more workers."""
        return bool(self._gpus)

    @property
    def own_processes(self) -> bool:
        """Whether they are no threads."""
        return self.kind == "processes"

    @property
    def worker_cores(self) -> int:
        """The cores of this process, divided."""
        return max(1, available_cores() // self.n_workers)

    def start(self, make: Make, source: Any) -> Crew:
        """Start workers; see `ltstore.engine.Engine`."""
        if self.kind == "threads":
            return Crew(_Threads(make, source, self.n_workers), self.n_workers)
        return Crew(_Processes(make, source, self.n_workers, self._gpus), self.n_workers)

    def describe(self) -> dict[str, Any]:
        """Return its kind and size."""
        return {"engine": f"local {self.kind}", "n_workers": self.n_workers}

    def close(self) -> None:
        """Do nothing: crews end their own workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def one_thread() -> AbstractContextManager[Any]:
    """Let libraries of linear algebra in this process use one thread."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _one_openmp_thread() -> None:
    """Let OpenMP start no threads of the calling one, whose own that number is: for as long as it lives."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="openmp")


class Keeping:
    """A worker's state, made when it is first asked for something."""

    def __init__(self, make: Make, source: Any, number: int, n_workers: int) -> None:
        self._how = make, source, number, n_workers
        self._state: Any = _NOTHING

    def call(self, task: Task, arguments: tuple[Any, ...]) -> Any:
        """Return ``task(state, *arguments)``."""
        if self._state is _NOTHING:
            make, *of = self._how
            self._state = make(*of)
        return task(self._state, *arguments)


class _Threads:
    """Workers that are threads; see `Staff`."""

    def __init__(self, make: Make, source: Any, n_workers: int) -> None:
        self._how = make, source
        self._n_workers = n_workers

    def hire(self, number: int) -> _ThreadWorker:
        return _ThreadWorker(Keeping(*self._how, number, self._n_workers))

    def pack(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return arguments

    def working(self) -> AbstractContextManager[Any]:
        return one_thread()  # for the whole process: set here, where calls begin and end, not by each thread


class _ThreadWorker:
    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ltstore-worker", initializer=_one_openmp_thread)

    def submit(self, task: Task, arguments: tuple[Any, ...]) -> Future[Any]:
        return self._pool.submit(self._keeping.call, task, arguments)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Processes:
    """Workers that are processes; see `Staff`."""

    def __init__(self, make: Make, source: Any, n_workers: int, gpus: Sequence[str]) -> None:
        try:
            self._sent = pickle.dumps((make, source), protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as err:
            raise ConfigError(f"what workers need cannot be sent to a process ({err}): use threads") from err
        self._n_workers = n_workers
        self._gpus = gpus

    def hire(self, number: int) -> _ProcessWorker:
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        return _ProcessWorker(self._sent, number, self._n_workers, gpu)

    def pack(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return arguments

    def working(self) -> AbstractContextManager[Any]:
        return nullcontext()


class _ProcessWorker:
    def __init__(self, sent: bytes, number: int, n_workers: int, gpu: str | None) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (gpu,))
        # As a call, not with what starts the process: that is written to a pipe whose other end this process holds open
        # as well, and a worker that dies before it has read it all would let this process wait for ever.
        self._pool.submit(_keep, sent, number, n_workers)

    def submit(self, task: Task, arguments: tuple[Any, ...]) -> _ProcessCall:
        try:
            return _ProcessCall(self._pool.submit(_call, task, arguments))
        except BrokenExecutor as err:  # it died between two calls
            failed: Future[Any] = Future()
            failed.set_exception(err)
            return _ProcessCall(failed)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _ProcessCall:
    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def result(self) -> Any:
        try:
            return self._future.result()
        except BrokenExecutor as err:
            raise LostError(f"its process ended ({err})") from err


_kept: list[Keeping] = []  # of a worker process: its one


def _begin(gpu: str | None) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the process that started this one, which ends it
    threading.Thread(target=_end_with_parent, name="ltstore-parent", daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything here starts CUDA


def _keep(sent: bytes, number: int, n_workers: int) -> None:
    _kept.append(Keeping(_unpacked, sent, number, n_workers))


def _unpacked(sent: bytes, number: int, n_workers: int) -> Any:
    """Make the state of what was sent: at the first call, so that what cannot be read is an error of that call."""
    make, source = pickle.loads(sent)  # noqa: S301 - from the process that started this one
    return make(source, number, n_workers)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however: nobody would ask for its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(task: Task, arguments: tuple[Any, ...]) -> Any:
    with one_thread():
        return _kept[0].call(task, arguments)
