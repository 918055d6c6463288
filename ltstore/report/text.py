"""Names and differences as they are shown."""

from __future__ import annotations

import unicodedata


def shown(text: str, limit: int = 60) -> str:
    """Return a stranger's text fit for a page: control characters and lone surrogates replaced, cut to `limit`.

    Escaping is not done here: the template does it for HTML, matplotlib for SVG.
    """
    clean = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def points(difference: float) -> str:
    """Return a difference of accuracies in points, signed: "+1.2"."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
