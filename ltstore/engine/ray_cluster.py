"""Workers on a Ray cluster. The only importer of ray."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

from ltstore.cores import available_cores, resolve_n_workers
from ltstore.engine.crew import Crew, LostError, Make, Task
from ltstore.engine.local import Keeping, one_thread
from ltstore.errors import BackendUnavailableError, ConfigError, WorkerLostError

START_SECONDS = 300.0
_KNOCK_SECONDS = 10.0

_log = logging.getLogger(__name__)


class RayEngine:
    """Workers that are Ray actors, each with one thread of linear algebra.

    Source and arguments go through Ray's object store, once a machine; what a worker makes of them stays with it. The
    same versions of ltstore and NumPy must be installed on all machines, and a path in the source must lead to the same
    files on each.

    Parameters
    ----------
    address : str
        Of a running cluster, "auto" for the one of this machine or of RAY_ADDRESS, or "local": start one here, which
        ends with the engine.
    n_workers : int or "auto"
        "auto" is as many as the cluster has room for when the engine is made: one a CPU, or a GPU where they take one.
    resources : mapping of str to number, optional
        What one worker takes: "CPU" (default 1), "GPU", or resources of the cluster's own.
    use_gpus : bool
        Where the cluster has GPUs, a worker takes one, and with it its share of the CPUs, unless `resources` says
        otherwise.
    start_seconds : float
        How long a worker may take to start before the engine gives up.

    Raises
    ------
    BackendUnavailableError
        ray is not installed, or no cluster answers.
    ConfigError
        A number is out of range.
    """

    shares_memory = False
    own_processes = True

    def __init__(
        self,
        address: str = "auto",
        n_workers: int | str = "auto",
        resources: Mapping[str, float] | None = None,
        *,
        use_gpus: bool = False,
        start_seconds: float = START_SECONDS,
    ) -> None:
        wanted = None if n_workers == "auto" else resolve_n_workers(n_workers)
        self._takes = {"CPU": 1.0, **(resources or {})}
        for name, amount in self._takes.items():
            if not amount >= 0:
                raise ConfigError(f"resource {name!r} of a worker must be at least 0, found {amount!r}")
        self._start_seconds = start_seconds
        self._ray, self._started = _connect(address, wanted, self._takes)
        there = self._ray.cluster_resources()
        if use_gpus and there.get("GPU", 0) >= 1:
            share = max(1.0, there.get("CPU", 0) // there["GPU"])
            self._takes = {"CPU": share, "GPU": 1.0, **(resources or {})}
        if wanted is None:
            room = [there.get(name, 0) // max(self._takes.get(name, 0), 1.0) for name in ("CPU", "GPU")]
            wanted = max(1, int(min(room) if self.has_gpus else room[0]))
        for name, amount in self._takes.items():
            if amount * wanted > there.get(name, 0):
                _log.warning(
                    "%d workers take %g %s and the Ray cluster has %g: some wait until it grows",
                    *(wanted, amount * wanted, name, there.get(name, 0)),
                )
        self.n_workers = wanted

    @property
    def worker_cores(self) -> int:
        """The CPUs that a worker takes, at least one."""
        return max(1, int(self._takes["CPU"]))

    @property
    def has_gpus(self) -> bool:
        """Whether a worker takes GPUs."""
        return self._takes.get("GPU", 0) > 0

    def start(self, make: Make, source: Any) -> Crew:
        """Start workers; see `ltstore.engine.Engine`."""
        staff = _Actors(self._ray, make, source, self.n_workers, self._takes, self._start_seconds)
        return Crew(staff, self.n_workers)

    def describe(self) -> dict[str, Any]:
        """Return its kind and size."""
        return {"engine": "ray", "n_workers": self.n_workers, "ray": self._ray.__version__}

    def close(self) -> None:
        """Leave the cluster if this engine has joined it, and end it if it was started for it."""
        if self._started:
            self._ray.shutdown()
            self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(address: str, n_workers: int | None, takes: Mapping[str, float]) -> tuple[Any, bool]:
    """Return ray, connected, and whether it was not before."""
    try:
        import ray
    except ImportError as err:
        raise BackendUnavailableError(
            'workers on a Ray cluster need the package ray: pip install "ltstore[ray]"'
        ) from err
    if ray.is_initialized():
        return ray, False
    quiet = {"logging_level": logging.WARNING, "log_to_driver": False, "include_dashboard": False}
    if address == "local":
        cpus = max(available_cores(), int((n_workers or 1) * takes["CPU"]))
        own = {name: amount * (n_workers or 1) for name, amount in takes.items() if name not in ("CPU", "GPU")}
        ray.init(address="local", num_cpus=cpus, resources=own or None, **quiet)
        return ray, True
    del quiet["include_dashboard"]  # is the cluster's
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ImportError, RuntimeError, ValueError, AssertionError) as err:
        raise BackendUnavailableError(
            f"no Ray cluster answers at {address!r} ({_first_line(err)}): start one with `ray start --head`, use "
            "'local' to start one for this run, or local workers"
        ) from err
    return ray, True


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _cause(err: BaseException) -> str:
    """Return the first line of what an error of Ray comes from."""
    return _first_line(err.__cause__ or err)


def _first_line(err: BaseException) -> str:
    return next(iter(str(err).splitlines()), type(err).__name__)


class _State:
    """What runs in an actor."""

    def __init__(self, source: Mapping[str, Any], number: int, n_workers: int) -> None:
        self._source = source
        self._number = number, n_workers
        self._keeping: Keeping | None = None

    def ready(self) -> bool:
        """Answer."""
        return True

    def call(self, task: Task, arguments: tuple[Any, ...]) -> Any:
        """Return what the task gives."""
        if self._keeping is None:
            import ray

            # Here, not when the actor is made: what cannot be read is an error of the call, and no lost worker.
            make, source = ray.get(self._source["reference"])
            with suppress(OSError):  # relative paths mean what they mean to the caller, where that is there
                os.chdir(self._source["directory"])
            self._keeping = Keeping(make, source, *self._number)
        with one_thread():
            return self._keeping.call(task, arguments)


class _Actors:
    """Workers that are actors; see `Staff`."""

    def __init__(
        self,
        ray: Any,
        make: Make,
        source: Any,
        n_workers: int,
        takes: Mapping[str, float],
        start_seconds: float,
    ) -> None:
        self._ray = ray
        self._n_workers = n_workers
        self._start_seconds = start_seconds
        own = {name: amount for name, amount in takes.items() if name not in ("CPU", "GPU")}
        self._actor = ray.remote(_State).options(
            num_cpus=takes["CPU"],
            num_gpus=takes.get("GPU", 0),
            resources=own,
            max_restarts=0,
            max_task_retries=0,
        )
        try:
            self._source = ray.put((make, source))
        except (pickle.PicklingError, TypeError, AttributeError) as err:
            raise ConfigError(
                f"what workers need cannot be sent to them ({_cause(err)}): use local threads"
            ) from err

    def hire(self, number: int) -> _RayWorker:
        actor = self._actor.remote(
            {"reference": self._source, "directory": str(Path.cwd())}, number, self._n_workers
        )
        return _RayWorker(self._ray, actor, self._start_seconds)

    def pack(self, arguments: tuple[Any, ...]) -> Any:
        return self._ray.put(arguments)

    def working(self) -> AbstractContextManager[Any]:
        return nullcontext()


class _RayWorker:
    def __init__(self, ray: Any, actor: Any, start_seconds: float) -> None:
        self._ray, self.actor = ray, actor
        self._start_seconds = start_seconds
        self._ready = actor.ready.remote()

    def submit(self, task: Task, arguments: Any) -> _RayCall:
        return _RayCall(self, self.actor.call.remote(task, arguments))

    def get(self, reference: Any) -> Any:
        """Wait for a call; LostError where the actor is gone."""
        from ray import exceptions

        if self._ready is not None:
            there, _ = self._ray.wait([self._ready], timeout=self._start_seconds)
            if not there:
                raise WorkerLostError(
                    f"a Ray worker did not start in {self._start_seconds:g} seconds; the cluster has free "
                    f"{self._ray.available_resources()}: ask for fewer workers, or for less of each"
                )
            self._ready = None
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as err:
            if isinstance(err.cause, exceptions.RaySystemError):
                raise BackendUnavailableError(
                    f"a Ray worker cannot read what it was sent ({_first_line(err.cause)}): install the same versions "
                    "of ltstore and what it needs on all machines of the cluster"
                ) from err
            raise err.cause from err
        except (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            exceptions.OutOfMemoryError,
        ) as err:
            raise LostError(f"its actor ended ({_first_line(err)})") from err

    def close(self) -> None:
        self._ray.kill(self.actor)


class _RayCall:
    def __init__(self, worker: _RayWorker, reference: Any) -> None:
        self._worker, self._reference = worker, reference

    def result(self) -> Any:
        return self._worker.get(self._reference)
