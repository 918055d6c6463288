from __future__ import annotations

import subprocess
import sys

import pytest

from ltstore.errors import BackendUnavailableError, ConfigError
from ltstore.kernels import dispatch, resolve_backend


def test_auto_takes_the_fastest_and_says_why():
    name, reason = resolve_backend("auto")
    assert name == "numba"
    assert reason.startswith("auto: ")


def test_auto_goes_on_to_the_next_where_a_package_is_missing(monkeypatch):
    monkeypatch.setitem(dispatch._MODULES, "numba", ("ltstore.kernels.numba_cpu", "no_such_package"))
    name, reason = resolve_backend()
    assert name == "reference"
    assert "numba is not installed" in reason


def test_a_name_never_falls_back(monkeypatch):
    monkeypatch.setitem(dispatch._MODULES, "numba", ("ltstore.kernels.numba_cpu", "no_such_package"))
    with pytest.raises(BackendUnavailableError, match="no_such_package"):
        resolve_backend("numba")
    assert resolve_backend("reference")[0] == "reference"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="auto, numba, reference"):
        resolve_backend("cuda")


def test_importing_the_room_loads_no_compiler():
    code = "import sys, ltstore.kernels; sys.exit('numba' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_triton_says_what_it_lacks(monkeypatch):
    import torch

    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match=r"needs a CUDA GPU, and torch .* finds none"):
        resolve_backend("triton")
    monkeypatch.setitem(dispatch._MODULES, "triton", ("ltstore.kernels.triton_gpu", "no_such_package"))
    with pytest.raises(BackendUnavailableError, match=r"no_such_package \(it comes with torch for CUDA\)"):
        resolve_backend("triton")


def test_auto_never_takes_the_gpu(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(dispatch._MODULES, "numba", ("ltstore.kernels.numba_cpu", "no_such_package"))
    assert resolve_backend("auto")[0] == "reference"
