"""Settings that come from outside: an unknown one is refused with the name it was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ltstore.errors import ConfigError

FEATURES = ("projected", "penultimate")


def split_features(text: str) -> tuple[str, ...]:
    """Return the kinds of features in "projected", "penultimate", or both of them in either order, "A,B".

    Raises
    ------
    ConfigError
        Anything else.
    """
    kinds = tuple(text.split(","))
    if len(set(kinds)) < len(kinds) or not set(kinds) <= set(FEATURES):
        both = ",".join(FEATURES)
        raise ConfigError(f"features must be {', '.join(FEATURES)} or both of them ({both}), found {text!r}")
    return kinds


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "did you mean a, b?" with the names closest to `name`, or "expected one of ..." where none is close."""
    names = sorted(names)
    lower = {each.lower(): each for each in names}
    close = [lower[each] for each in get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    if close:
        return f"did you mean {', '.join(close)}?"
    return "expected one of " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def check_keys(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ConfigError for the first of `given` that is not in `known`; `what` says whose settings they are."""
    known = tuple(known)
    for name in given:
        if name not in known:
            if not known:
                raise ConfigError(f"unknown setting {name!r} of {what}: it has none")
            raise ConfigError(f"unknown setting {name!r} of {what}: {nearest(name, known)}")
