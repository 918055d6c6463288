"""The public names load, lazily, and each has a docstring."""

from __future__ import annotations

import pytest

import ltstore


@pytest.mark.parametrize("name", sorted(set(ltstore.__all__) - {"__version__"}))
def test_public_name(name: str) -> None:
    assert getattr(ltstore, name).__doc__
    assert name in dir(ltstore)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        ltstore.nonsense  # noqa: B018
