"""Names and differences as they are shown."""

from __future__ import annotations

import unicodedata

_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # classes of Unicode's annex 9


def shown(text: str, limit: int = 60) -> str:
    """Return a stranger's text fit for a page: cut in its middle, without what could undo what stands around it.

    Control characters, lone surrogates, and the marks that turn the direction of writing, are replaced.

    Escaping is not done here: the template does it for HTML, matplotlib for SVG.
    """
    clean = "".join("\ufffd" if _is_harmful(c) else c for c in str(text))
    if len(clean) <= limit:
        return clean
    end = limit // 3  # names of one kind often differ there
    return f"{clean[: limit - end - 1]}…{clean[len(clean) - end :]}"


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _TURNS


def points(difference: float) -> str:
    """Return a difference of accuracies in points, signed: "+1.2"."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
