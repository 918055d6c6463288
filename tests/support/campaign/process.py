"""Commands in forks of this process, which has everything imported and does nothing else."""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HANG_SECONDS = 300.0
KILLED = -signal.SIGKILL
FAULTS = Path(__file__).with_name("faults.c")

OPEN, WRITE, SYNC, NAME, READ = 1, 2, 4, 8, 16  # kinds of calls of faults.c
KILL, SHORT = -1, -2


def import_all() -> None:
    """Import what commands import, so that a fork begins at once."""
    import ltstore
    import ltstore_cli

    for package in (ltstore, ltstore_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with suppress(ImportError):  # an adapter of what is not installed
                importlib.import_module(module.name)
    for name in (
        "torch",
        "open_clip",
        "faiss",
        "zarr.storage",
        "sklearn.datasets",
        "pyarrow.parquet",
        "obstore.store",
    ):
        importlib.import_module(name)
    for name in (
        "pyarrow.compute",
        "matplotlib.pyplot",
        "safetensors.numpy",
        "jinja2",
        "rich.table",
        "moto.server",
    ):
        importlib.import_module(name)


def build_faults(directory: Path) -> Path | None:
    """Compile faults.c; None where there is no compiler for it."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = directory / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, FAULTS, "-ldl"], check=True)
    return library


def has_faults() -> bool:
    """Whether this process was started with faults.c preloaded."""
    return hasattr(ctypes.CDLL(None), "faults_arm")


def arm(below: Path, kinds: int, action: int, first: int, times: int = 1 << 40) -> None:
    """From call `first` on, `times` calls on files below a directory go wrong in this process."""
    library = ctypes.CDLL(None)
    library.faults_arm(os.fsencode(below), kinds, action, ctypes.c_long(first), ctypes.c_long(times))


@dataclass(frozen=True)
class Result:
    """What a command left: exit code (or minus the signal) and what it printed."""

    words: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that begin with "error:"."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def refused(self) -> bool:
        """Whether it ended with one clear line, or, of `verify`, with the list of what is damaged."""
        if self.code != 1 or "internal error" in self.err or "Traceback" in self.err:
            return False
        listed = self.words[0] == "verify" and bool(self.out.strip())
        return len(self.errors[0]) > 20 if len(self.errors) == 1 else listed and not self.errors

    def __str__(self) -> str:
        return f"ltstore {' '.join(self.words)}: exit {self.code}\n{self.err[-3000:]}"


@dataclass
class Running:
    """A command under way, in a process group of its own."""

    words: Sequence[str]
    process: int
    prints: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the command (not to its workers)."""
        os.kill(self.process, number)  # not reaped yet, so still this one

    def poll(self) -> bool:
        """Whether it has ended (it is not reaped by that)."""
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, seconds: float = HANG_SECONDS) -> Result:
        """Return what it left; AssertionError where it hangs."""
        deadline = time.monotonic() + seconds
        while hangs := not self.poll():
            if time.monotonic() > deadline:
                self.kill()
                break
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process, signal.SIGKILL)  # workers that a killed command has left
        out, err = (self.prints.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
        result = Result(self.words, code, out, err)
        assert not hangs, f"it hangs: {result}"
        return result


def start(
    words: Sequence[str], directory: Path, prints: Path, disturb: Callable[[], object] = lambda: None
) -> Running:
    """Start `ltstore WORDS` in a directory, after `disturb` was called in its process."""
    child = os.fork()
    if child:
        return Running(words, child, prints)
    code = 70
    try:
        os.setpgid(0, 0)
        for end, number in ((".out", 1), (".err", 2)):
            file = os.open(prints.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, number)
        os.chdir(directory)
        sys.argv = ["ltstore", *words]
        import ltstore.store.plan
        from ltstore_cli.app import main

        ltstore.store.plan.MIN_SHARD_ROWS = 128  # many shards of few rows
        disturb()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        sys.stdout.flush()
        if has_faults():
            prints.with_suffix(".calls").write_text(str(ctypes.CDLL(None).faults_calls()))
    except BaseException:  # noqa: BLE001 - told to the parent
        with suppress(BaseException):
            traceback.print_exc()
    with suppress(BaseException):
        sys.stderr.flush()
    os._exit(code)


def call(
    words: Sequence[str], directory: Path, prints: Path, disturb: Callable[[], object] = lambda: None
) -> Result:
    """Run a command to its end."""
    return start(words, directory, prints, disturb).wait()
