"""A disk that loses power, or fills up, and an object store whose writer dies, at a chosen moment."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ltstore.storage import ObjectLocation


class Killed(BaseException):
    """The process is gone: nothing it wrote afterwards reaches the disk."""


class Power:
    """Lets `budget` calls that change the disk through; from then on every one of them dies."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, budget: int, error: Callable[[], BaseException] = Killed
    ) -> None:
        self.calls = 0
        self._budget = budget
        self._error = error
        real_fsync = os.fsync
        for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._guard(getattr(os, name), real_fsync))
        real_open = io.open

        def guarded_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            handle = real_open(file, mode, *args, **kwargs)
            return _Torn(handle, self) if "w" in mode else handle

        monkeypatch.setattr(io, "open", guarded_open)

    def spend(self) -> None:
        self.calls += 1
        if self.calls > self._budget:
            raise self._error()

    def _guard(self, function: Callable[..., Any], real_fsync: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.spend()
            if function is real_fsync:  # what it promises cannot be seen from here, and it is slow
                return None
            return function(*args, **kwargs)

        return guarded


class _Torn:
    """A file whose fatal write arrives by half."""

    def __init__(self, handle: Any, power: Power) -> None:
        self._handle = handle
        self._power = power

    def write(self, data: Any) -> int:
        try:
            self._power.spend()
        except BaseException:
            self._handle.write(bytes(data)[: len(data) // 2])
            raise
        return int(self._handle.write(data))

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *error: Any) -> None:
        self._handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def killed_at(location: ObjectLocation, budget: int, patch: pytest.MonkeyPatch, torn: bool) -> Iterator[int]:
    """Let `budget` writes through, then die: before the write, or after it was carried out."""
    client = type(location.client)
    calls = [0]

    def guard(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def guarded(self: Any, *args: Any) -> Any:
            calls[0] += 1
            if calls[0] > budget:
                if torn and calls[0] == budget + 1:
                    real(self, *args)
                raise Killed
            return real(self, *args)

        return guarded

    for name in ("write", "create", "update", "remove"):
        patch.setattr(client, name, guard(name))
    while True:
        yield calls[0]
