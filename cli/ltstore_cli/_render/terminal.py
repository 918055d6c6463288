"""Lines, tables and JSON on a terminal. Results go to stdout, notes, warnings and errors to stderr.

Keys, class names and errors are the words of others: what does not print in them (terminal escapes, line ends, marks
that turn the direction of text) is shown as its escape.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNPRINTED_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return a text with what does not print as its escape: "\x1b[2J" for the one that clears a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(text: str = "") -> None:
    """Print one plain line on stdout."""
    print(plain(text))


def note(text: str) -> None:
    """Print one plain line on stderr: what was decided, what to do next."""
    print(plain(text), file=sys.stderr)


def error(text: str) -> None:
    """Print the one line of an error on stderr."""
    flat = " ".join(text.split("\n"))
    print(f"error: {plain(flat)}", file=sys.stderr)


def warning(text: str) -> None:
    """Print a warning line on stderr."""
    print(f"warning: {plain(text)}", file=sys.stderr)


def show_log() -> None:
    """Let warnings of the library appear as warning lines on stderr."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warning(record.getMessage())

    log = logging.getLogger("ltstore")
    if not any(type(handler).__name__ == "Lines" for handler in log.handlers):
        log.addHandler(Lines(logging.WARNING))


def json_out(data: Any) -> None:
    """Print JSON on stdout: one document, UTF-8, never NaN."""
    print(as_json(data, indent=2))


def as_json(data: Any, indent: int | None = None) -> str:
    """Return JSON that any terminal and any encoder of UTF-8 takes: json itself escapes what is below a blank alone."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent)
    return _UNPRINTED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def console() -> Console:
    """Return the stdout console; wide enough for tables when it is not a terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=180, soft_wrap=False)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    title: str | None = None,
    left: Sequence[str] = (),
    best: Mapping[str, int] | None = None,
) -> None:
    """Print a table; numbers to the right, `left` columns to the left, `best` cells ({column: row}) bold.

    Where it is wider than the terminal its columns are printed in several tables, each with the first column.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    def build(shown: Sequence[int]) -> Table:
        heading = None if title is None else Text(plain(title))
        grid = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place in shown:
            name, texts = columns[place], [columns[place], *(cell(row[place]) for row in rows)]
            if name in left:
                grid.add_column(name)
            else:
                grid.add_column(name, justify="right", no_wrap=True, min_width=max(map(cell_len, texts)))
        for number, row in enumerate(rows):
            bold = [best is not None and best.get(columns[place]) == number for place in shown]
            cells = zip(shown, bold, strict=True)
            grid.add_row(*(Text(cell(row[place]), style="bold" if is_best else "") for place, is_best in cells))
        return grid

    out = console()
    unlimited = out.options.update(max_width=10_000)
    first, *waiting = range(len(columns))
    while waiting:
        shown = [first]
        while waiting:
            wider = build([*shown, waiting[0]])
            if len(shown) > 1 and Measurement.get(out, unlimited, wider).minimum > out.width:
                break
            shown.append(waiting.pop(0))
        out.print(build(shown))


def pairs(items: Sequence[tuple[str, Any]]) -> None:
    """Print label / value lines."""
    width = max((len(label) for label, _ in items), default=0)
    for label, value in items:
        print(f"{label:<{width}}  {cell(value)}")


def settings(values: Mapping[str, Any]) -> str:
    """Return "anchor 0.5, noise gauss": what is None is left out."""
    shown = {
        key: settings(value).join("()") if isinstance(value, Mapping) else cell(value)
        for key, value in values.items()
        if value is not None
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items()) or "default settings"


def percent(value: float | None) -> str:
    """Return "54.7", or "n/a" where there is nothing to measure."""
    return "n/a" if value is None else f"{100 * value:.1f}"


def size(n_bytes: float) -> str:
    """Return bytes as "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return plain(str(value))


def records(items: Sequence[Mapping[str, Any]], left: Sequence[str] = ()) -> None:
    """Print equal-keyed records as a table."""
    if items:
        columns = list(items[0])
        table([c.replace("_", " ") for c in columns], [list(item.values()) for item in items], left=left)


def crew(record: Mapping[str, Any]) -> str:
    """Return "2 ray, 1 lost and replaced" of an engine's record."""
    lost = f", {record['restarts']} lost and replaced" if record["restarts"] else ""
    return f"{record['n_workers']} {record['engine']}{lost}"
