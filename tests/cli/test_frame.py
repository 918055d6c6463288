"""The command line's frame: help, exit codes, one-line errors, defaults from TOML."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from ltstore_cli.app import COMMANDS, app
from support.shell import Shell

HEAVY = (
    "numpy",
    "torch",
    "open_clip",
    "onnxruntime",
    "faiss",
    "zarr",
    "matplotlib",
    "numba",
    "sklearn",
    "pyarrow",
    "PIL",
)


@pytest.mark.parametrize(
    "code",
    [
        "import ltstore",
        "import ltstore_cli.app",
        "import sys, ltstore_cli.app as a; sys.argv = ['ltstore', '--help']\ntry: a.main()\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    check = f"{code}\nimport sys\nprint('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("LOADED []")


def test_help_answers_fast() -> None:
    """In processor time, which a busy machine does not stretch as it does the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(3):
        subprocess.run([sys.executable, "-m", "ltstore_cli.app", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    assert spent / 3 < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, shell: Shell) -> None:
    result = shell(command, "--help")
    assert result.code == 0
    assert f"ltstore {command}" in result.out
    assert "Example" in result.out


def test_every_reporting_command_has_json() -> None:
    group = get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert any("--json" in parameter.opts for parameter in command.params), name


def test_the_installed_script_runs() -> None:
    script = Path(sys.executable).parent / "ltstore"
    out = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert out.startswith("ltstore ")


def test_usage_errors_exit_2_and_name_the_nearest(shell: Shell) -> None:
    assert shell("trian").code == 2
    assert "train" in shell("trian").err
    assert shell("ingest", "a", "b", "--bogus").code == 2


def test_missing_store_is_one_line(shell: Shell, tmp_path: Path) -> None:
    for command in (["info"], ["verify"], ["index"], ["donors"], ["subset", "name"]):
        result = shell(command[0], str(tmp_path / "no.zarr"), *command[1:])
        assert result.code == 1
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert "no.zarr" in result.err
        assert "Traceback" not in result.err


class PanicError(BaseException):
    """As pyo3's PanicException: no Exception."""


@pytest.mark.parametrize(
    "err",
    [
        MemoryError("Unable to allocate 2 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        ImportError("x.so: failed to map segment from shared object"),
        PanicError("PyObject pointer is null"),
        SystemError("error return without exception set"),
    ],
    ids=["array", "kernel", "thread", "c++", "library", "panic", "null"],
)
def test_too_little_memory_is_one_line_and_no_internal_error(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, err: BaseException
) -> None:
    def store_info(*_: object) -> None:
        raise err

    monkeypatch.setattr("ltstore.store.store_info", store_info)
    result = shell("info", tmp_path)
    assert result.code == 1
    assert result.err.startswith("error: out of memory (")
    assert len(result.err.splitlines()) == 1


def test_an_error_of_the_system_that_names_no_file_is_no_internal_error(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_info(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")  # as `print` raises

    monkeypatch.setattr("ltstore.store.store_info", store_info)
    assert shell("info", tmp_path).err == "error: cannot use a file, or where this prints to: File too large\n"


def test_what_came_from_too_little_memory_is_known_as_that(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_info(*_: object) -> None:
        raise RuntimeError("is x.so damaged?") from OSError("x.so: failed to map segment from shared object")

    monkeypatch.setattr("ltstore.store.store_info", store_info)
    assert shell("info", tmp_path).err.startswith("error: out of memory (is x.so damaged?): ")


def test_config_gives_defaults_and_refuses_unknown_keys(shell: Shell, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[train]\ntaau = 1\n")
    result = shell("--config", str(config), "info", "x")
    assert (result.code, "taau" in result.err, "'tau'" in result.err) == (1, True, True)
    config.write_text('[ingest]\nformat = "nonsense"\n')  # the flag's spelling, not the parameter's
    assert "nonsense" in shell("--config", str(config), "ingest", "digits", str(tmp_path / "s.zarr")).err
    config.write_text("[tran]\n")
    assert "'train'" in shell("--config", str(config), "info", "x").err
    config.write_text("not toml")
    assert "not valid TOML" in shell("--config", str(config), "info", "x").err
    config.write_text('[quickstart]\nimbalance = "many"\n')
    assert shell("--config", str(config), "quickstart").code == 2
