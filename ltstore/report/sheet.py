"""A contact sheet: the images that answered each query, on one page that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ltstore.atomic import write_bytes
from ltstore.report.text import shown
from ltstore.report.thumbnail import thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One answer.

    Attributes
    ----------
    image : PIL image or None
        None where it cannot be shown.
    rank, row_id, class_count : int
    class_name, group : str or None
    similarity : float
    key : str
        Where the image came from.
    """

    image: Image | None
    rank: int
    row_id: int
    class_name: str | None
    class_count: int
    group: str | None
    similarity: float
    key: str


def write_sheet(path: Path, title: str, queries: Sequence[tuple[str, Sequence[Cell]]]) -> None:
    """Write the answers to named queries as HTML, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    title : str
    queries : sequence of (name, cells)
        Names, classes and keys come from strangers and are escaped.

    Raises
    ------
    StoreWriteError

    Notes
    -----
    Images are scaled to 160 pixels: some 6 kB each.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shown": shown, "thumbnail": thumbnail}
    template = environment.from_string(files("ltstore.report").joinpath("sheet.html.j2").read_text("utf-8"))
    page = template.render(title=title, queries=queries)
    write_bytes(Path(path), page.encode("utf-8", "replace"))
