"""Settings within their bounds, or one message that says which are not."""

from __future__ import annotations

import math

from ltstore.errors import ConfigError


def check_number(
    sampler: str,
    name: str,
    value: object,
    *,
    high: float = math.inf,
    open_low: bool = False,
    optional: bool = False,
) -> None:
    """Raise ConfigError unless `value` is a number in [0, high], or (0, high] with `open_low`.

    Parameters
    ----------
    sampler, name : str
        For the message.
    value : object
    high : float
        inf: any finite number.
    open_low : bool
        0 is out.
    optional : bool
        None is in.
    """
    if value is None and optional:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{sampler}: {name} must be a number, found {value!r}")
    if math.isfinite(value) and 0 <= value <= high and not (open_low and value == 0):
        return
    if math.isfinite(high):
        bound = f"in {'(' if open_low else '['}0, {high:g}]"
    else:
        bound = f"finite and {'>' if open_low else '>='} 0"
    raise ConfigError(f"{sampler}: {name} must be {bound}, found {value}")


def check_choice(sampler: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{sampler}: {name} must be one of {', '.join(choices)}; found {value!r}")


def check_count(sampler: str, name: str, value: object) -> None:
    """Raise ConfigError unless `value` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{sampler}: {name} must be an integer of at least 1, found {value!r}")


def check_flag(sampler: str, name: str, value: object) -> None:
    """Raise ConfigError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{sampler}: {name} must be true or false, found {value!r}")
