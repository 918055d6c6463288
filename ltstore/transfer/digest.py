"""The digest of a foreign source: what a resumed import must find unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ltstore.errors import SourceError
from ltstore.transfer.npy import open_file
from ltstore.types import IntArray

BLOCK_BYTES = 1 << 16
TOTAL_BLOCKS, LEAST_BLOCKS = 1024, 8


def source_digest(facts: Sequence[str], files: Sequence[Path], labels: IntArray) -> str:
    """Return "sha256:..." of names, sizes and sampled blocks of files, and of all labels.

    Parameters
    ----------
    facts : sequence of str
        Layout, array, shapes and dtypes.
    files : sequence of Path
        In order. Of each, 64 KiB blocks spread evenly, the first and the last among them: 1,024 in all, at least 8
        a file; a file that is no larger is read whole.
    labels : (N,) int64

    Notes
    -----
    Times of change do not enter, so a copy of the same files has the same digest. A change that keeps every size
    and lies between the sampled blocks is not noticed.
    """
    state = hashlib.sha256(repr(list(facts)).encode())
    n_blocks = max(LEAST_BLOCKS, TOTAL_BLOCKS // max(len(files), 1))
    for path in files:
        try:
            size = path.stat().st_size
            state.update(repr((path.name, size)).encode("utf-8", "backslashreplace"))
            with open_file(path) as handle:
                if size <= n_blocks * BLOCK_BYTES:
                    starts = list(range(0, size, BLOCK_BYTES))
                else:
                    starts = [i * (size - BLOCK_BYTES) // (n_blocks - 1) for i in range(n_blocks)]
                for start in starts:
                    handle.seek(start)
                    state.update(handle.read(BLOCK_BYTES))
        except OSError as err:
            if isinstance(err, SourceError):
                raise
            raise SourceError(f"cannot read {path}: {err.strerror or err}") from err
    state.update(labels.astype("<i8").data)
    return "sha256:" + state.hexdigest()
