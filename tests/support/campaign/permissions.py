"""No permission: everything read-only, some directories read-only, or a file that cannot be read."""

from __future__ import annotations

import ctypes
import os

from support.campaign.trial import Round, disturbed

CAPABILITIES_V3 = 0x20080522
OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def run(round_: Round) -> None:
    """Take permissions away, run a command without the rights of root, give them back."""
    rng = round_.rng
    command = round_.draw()
    whole = round_.shop.whole(command)
    directory = round_.shop.directory
    paths = [directory, *sorted(directory.rglob("*"))]
    what = rng.choice(["all read-only", "directories read-only", "a file unreadable", "a directory closed"])
    if what == "all read-only":
        chosen, mode = [path for path in paths if path.is_dir()], 0o555
    elif what == "directories read-only":
        directories = [path for path in paths if path.is_dir()]
        chosen, mode = rng.sample(directories, rng.randint(1, min(6, len(directories)))), 0o555
    elif what == "a file unreadable":
        chosen, mode = [rng.choice([path for path in paths if path.is_file()])], 0o000
    else:
        chosen, mode = [rng.choice([path for path in paths[1:] if path.is_dir()])], 0o000
    modes = [path.stat().st_mode for path in chosen]
    for path in chosen:
        path.chmod(mode)

    def give_back() -> None:
        for path, before in zip(chosen, modes, strict=True):
            path.chmod(before)

    names = ", ".join(str(path.relative_to(directory)) for path in chosen[:3])
    disturbed(round_, command, whole, [(f"{what} ({names})", None, lose_rights)], may_die=(), relief=give_back)


def lose_rights() -> None:
    """Take from root the right to pass over permissions; others never had it."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    library.capget(header, sets)
    sets[0] &= ~OVERRIDES
    sets[1] &= ~OVERRIDES
    assert library.capset(header, sets) == 0, "the rights of root cannot be given up"
