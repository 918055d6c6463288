"""The public names load, lazily, and each has a docstring."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ltstore


@pytest.mark.parametrize("name", sorted(set(ltstore.__all__) - {"__version__"}))
def test_public_name(name: str) -> None:
    assert getattr(ltstore, name).__doc__
    assert name in dir(ltstore)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        ltstore.nonsense  # noqa: B018


def test_importing_ltstore_loads_nothing_heavy() -> None:
    heavy = ("sklearn", "imblearn", "torch", "zarr", "faiss")
    code = f"import sys, ltstore; print([one for one in {heavy} if one in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"
