"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import hypothesis
import pytest

from ltstore.errors import BackendUnavailableError
from ltstore.kernels import resolve_backend
from support.engines import KINDS, ray_cluster
from support.object_server import ObjectServer, object_server
from support.shell import Shell

# A busy machine is no failure: no test is judged by the clock alone.
hypothesis.settings.register_profile("ltstore", deadline=None)
hypothesis.settings.load_profile("ltstore")

REAL_DATA = Path(os.environ.get("LTSTORE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


# Shells start what runs in their background deaf to Ctrl-C, and so would be the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_left_out = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the hundreds of `gpu` tests where there is no GPU, with one line that says so."""
    of_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not of_gpu:
        return
    try:
        resolve_backend("triton")
    except BackendUnavailableError as err:
        config.stash[_left_out] = f"{len(of_gpu)} tests for a GPU left out: {err}"
        config.hook.pytest_deselected(items=of_gpu)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say why tests were left out."""
    return [config.stash[_left_out]] if _left_out in config.stash else []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of real data sets; tests that need it skip where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA} (set LTSTORE_TEST_DATA)")
    return REAL_DATA


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, run in this process."""
    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="module", params=KINDS)
def engine_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of engine; of "ray" a cluster is there."""
    with ray_cluster() if request.param == "ray" else nullcontext():
        yield request.param


@pytest.fixture(scope="session")
def started_server() -> Iterator[ObjectServer]:
    """An S3 server on loopback, one a session."""
    with object_server() as server:
        yield server


@pytest.fixture
def server(started_server: ObjectServer) -> Iterator[ObjectServer]:
    """The S3 server, without faults."""
    started_server.reset()
    yield started_server
    started_server.reset()
