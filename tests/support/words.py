"""What a reader of a page reads."""

from __future__ import annotations

import re


def section_text(html: str, section: str) -> str:
    """Return the words of one section, drawings left out; entities stay as they are."""
    body = html[html.index(f'<section id="{section}">') :]
    found = re.sub(r"<svg.*?</svg>", "", body[: body.index("</section>")], flags=re.S)
    text = re.sub(r"</?(?:b|i|bdi|small|span)\b[^>]*>", "", found)
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("&nbsp;", " ").split())
