"""File names as keys: printable text, and two names never give the same key."""

from __future__ import annotations

import os


def key_of(relative_path: str | bytes) -> str:
    """Return a printable key for a path, with "/" between its parts.

    A backslash becomes ``\\\\``; a byte that is not UTF-8, and every byte of a character that does not print
    (newline, control codes), becomes ``\\xNN``. All other text stays as it is, so that nearly every key is
    the path itself, and the path can be had back from any key.

    Parameters
    ----------
    relative_path : str or bytes
        As the operating system gives it (undecodable bytes as surrogates).
    """
    if isinstance(relative_path, str) and relative_path.isprintable() and "\\" not in relative_path:
        return relative_path
    raw = os.fsencode(relative_path)
    text = raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text)
