"""How much memory an untrusted array may ask for: in proportion to the bytes that are there, not to its header."""

from __future__ import annotations

from ltstore.errors import StoreFormatError
from ltstore.storage import Location

FREE_BYTES = 1 << 28  # asked for without a question
FREE_CHUNK_BYTES = 1 << 26
LARGEST_RATIO = 64  # labels of one class compress further, but then they are few


def check_room(n_bytes: int, location: Location, what: str, *, repeated: int = 1) -> None:
    """Raise StoreFormatError where `what` takes far more memory than the files under `location` hold bytes.

    Up to 256 MiB are free; above, 64 times what is stored, each of it `repeated` times at the caller's wish.
    """
    if n_bytes <= FREE_BYTES:
        return
    there = location.stored_bytes()
    if n_bytes > (FREE_BYTES if repeated == 1 else 0) + LARGEST_RATIO * there * repeated:
        raise StoreFormatError(
            f"{what} of {location} would take {n_bytes} bytes of memory, but its files hold {there}: "
            "its metadata claim more rows than there are; run verify"
        )
