"""Encoders that travel to workers, and go wrong there."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from ltstore.encode import PixelEncoder
from ltstore.types import ByteArray, FloatArray


class KilledEncoder(PixelEncoder):
    """Its process is killed in the middle of a shard, at the `at`-th batch; as often as there are marker files."""

    _home, _at, _batches, _markers = 0, 0, 0, ()

    def arm(self, directory: Path, at: int, times: int = 1) -> KilledEncoder:
        """Name files that say it has happened."""
        self._home, self._at = os.getpid(), at
        self._markers = tuple(str(directory / f"killed-{i}") for i in range(times))
        return self

    def encode(self, batch: ByteArray) -> FloatArray:
        self._batches += 1
        if self._home not in (0, os.getpid()) and self._batches == self._at:
            for marker in self._markers:
                with suppress(FileExistsError), Path(marker).open("x"):
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(batch)


class RefusingEncoder(PixelEncoder):
    """Goes wrong at a batch with a first pixel that is black."""

    def encode(self, batch: ByteArray) -> FloatArray:
        if (batch[:, 0] == 0).any():
            raise RuntimeError("out of luck")
        return super().encode(batch)


class SlowEncoder(PixelEncoder):
    """Takes its time."""

    def encode(self, batch: ByteArray) -> FloatArray:
        time.sleep(0.05)
        return super().encode(batch)
