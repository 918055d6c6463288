"""How much memory an untrusted array may ask for: in proportion to the bytes that are there, not to its header."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ltstore.errors import StoreFormatError

FREE_BYTES = 1 << 28  # asked for without a question
FREE_CHUNK_BYTES = 1 << 26
LARGEST_RATIO = 64  # labels of one class compress further, but then they are few


def stored_bytes(path: Path) -> int:
    """Return the bytes in all regular files under a directory, links followed, each directory once.

    Raises
    ------
    StoreFormatError
        A pipe, socket or device is among them: whoever opens it may wait for ever.
    """
    total, seen, waiting = 0, set(), [path]
    while waiting:
        directory = waiting.pop()
        try:
            found = directory.stat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not entry.is_symlink() or Path(entry.path).exists():  # a dangling link is no file
                        mode = entry.stat()
                        if stat.S_ISDIR(mode.st_mode):
                            waiting.append(Path(entry.path))
                        elif stat.S_ISREG(mode.st_mode):
                            total += mode.st_size
                        else:
                            raise StoreFormatError(
                                f"{entry.path} must be a file or directory, found a pipe, socket or device"
                            )
        except FileNotFoundError:  # a writer has renamed its temporary file in this moment
            continue
        except OSError as err:
            raise StoreFormatError(f"cannot read {directory}: {err.strerror or err}") from err
    return total


def check_room(n_bytes: int, path: Path, what: str, *, repeated: int = 1) -> None:
    """Raise StoreFormatError where `what` takes far more memory than the files under `path` hold bytes.

    Up to 256 MiB are free; above, 64 times what is stored, each of it `repeated` times at the caller's wish.
    """
    if n_bytes <= FREE_BYTES:
        return
    there = stored_bytes(path)
    if n_bytes > (FREE_BYTES if repeated == 1 else 0) + LARGEST_RATIO * there * repeated:
        raise StoreFormatError(
            f"{what} of {path} would take {n_bytes} bytes of memory, but its files hold {there}: "
            "its metadata claim more rows than there are; run verify"
        )
