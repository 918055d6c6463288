"""A disk that is really full: a file system in memory of few pages, or a limit of this process on its files."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.campaign.trial import Round, disturbed

PAGE = 4096


def run(round_: Round) -> None:
    """Give a command less room than it needs, then enough."""
    command = round_.draw()
    whole = round_.shop.whole(command)
    directory = round_.shop.directory
    if round_.rng.random() < 0.3 or not _mounts(round_):
        n_bytes = int(10 ** round_.rng.uniform(2.7, 6))  # an error's line has to fit: it is printed to a file
        limit = (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        disturbance = (
            f"no file of more than {n_bytes} bytes",
            None,
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )
        disturbed(round_, command, whole, [disturbance], may_die=())
        return
    written = sum(map(_pages, directory.rglob("*")))
    grown = (
        20
        + sum(-(-len(data) // PAGE) + 1 for data in whole.files.values() if isinstance(data, bytes))
        - written
    )
    room = round_.rng.randint(0, max(grown, 20))
    with _mounted(directory, written + room + 1, round_.shop.scratch / "aside"):
        label = f"{room} pages of room"
        disturbed(
            round_,
            command,
            whole,
            [(label, None, lambda: None)],
            may_die=(),
            relief=lambda: _mount(directory, "remount,size=512m"),
        )


def _pages(path: Path) -> int:
    return 1 if path.is_dir() else -(-path.stat().st_size // PAGE) + 1


def _mount(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], check=True, capture_output=True)


def _mounts(round_: Round) -> bool:
    """Whether this process may mount a file system."""
    place = round_.shop.scratch / "mount"

    def try_it() -> bool:
        place.mkdir()
        try:
            _mount(place, "size=64k")
            subprocess.run(["umount", place], check=True)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    return round_.shop.once("mounts", try_it)


@contextmanager
def _mounted(directory: Path, n_pages: int, aside: Path) -> Iterator[None]:
    """Put a small file system in the directory's place, with its files."""
    directory.rename(aside)
    directory.mkdir()
    _mount(directory, f"size={n_pages * PAGE}")
    try:
        shutil.copytree(aside, directory, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", directory], check=True)
        shutil.rmtree(aside)
