"""Text vectors of a store's class names: made by its encoder, kept beside its images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.atomic import check_no_link
from ltstore.encode.class_text import (
    TEMPLATES,
    VECTORS_FILE,
    ClassText,
    are_codes,
    embed_classes,
    load_class_text,
)
from ltstore.errors import ConfigError
from ltstore.storage import Place
from ltstore.store import Store, open_store
from ltstore.types import Progress, TextEncoder, no_progress
from ltstore.workflow.encoders import recorded_spec, reopen_encoder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """What `embed_class_names` made, and where."""

    path: Path
    text: ClassText

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict, without the vectors."""
        settings = self.text.record["settings"]
        return {"path": str(self.path), "n_classes": len(self.text.class_names), **settings}


def embed_class_names(
    store: Place | Store,
    *,
    encoder: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    templates: str | Sequence[str] = "photo",
    words: Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> TextResult:
    """Embed the class names of a store by the text tower of its encoder, and keep the vectors in stats/class-text.

    They are what sampler `text` takes where no file is named, and what head `zero-shot` is made of. Those that are
    there are replaced.

    Parameters
    ----------
    store : path, URL or Store
    encoder : str, optional
        As after --encoder, for a store that has not recorded it; it must be the store's own.
    templates : str or sequence of str
        The name of a set (`ltstore.encode.class_text.TEMPLATES`), or templates, each with one "{}".
    words : sequence of str, optional
        What stands for each class in the templates; default its name, underscores as spaces.

    Raises
    ------
    ConfigError
        The encoder has no text tower or gives features that text does not share, or templates or words do not fit.
    EncoderMismatchError, EncoderUnavailableError, StoreNotFoundError, StoreWriteError
    """
    opened = store if isinstance(store, Store) else open_store(store)
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ConfigError(f"no templates {templates!r}: there are {', '.join(TEMPLATES)}, or give your own")
        templates = TEMPLATES[templates]
    if words is None and are_codes(opened.class_names):
        _log.warning(
            "most class names of %s are numbers or ids (%s), of which no text tower knows anything: give their words",
            opened.location,
            opened.class_names[0],
        )
    used = reopen_encoder(
        opened.encoder, encoder or recorded_spec(opened), device=device, options=encoder_options
    )
    if not isinstance(used, TextEncoder):
        raise ConfigError(
            f"encoder {used.spec} has no text tower: class names are embedded by open_clip encoders only"
        )
    text = embed_classes(used, opened.class_names, templates=templates, words=words, progress=progress)
    directory = _directory(opened)
    check_no_link(opened.artefact_location("stats").path.parent, directory)
    text.save(directory)
    return TextResult(path=directory, text=text)


def class_text(store: Store) -> ClassText:
    """Return the text vectors that are kept of a store's classes; refused where they are of something else.

    Raises
    ------
    StoreNotFoundError, EncoderMismatchError, DataError, StoreFormatError, ChecksumMismatchError
        As in `ltstore.encode.class_text.load_class_text`.
    """
    return load_class_text(_directory(store), encoder=store.encoder, class_names=store.class_names)


def class_text_file(store: Store) -> Path:
    """Return the file of the text vectors, after the checks of `class_text`."""
    class_text(store)
    return _directory(store) / VECTORS_FILE


def _directory(store: Store) -> Path:
    return store.artefact_path("stats", "class-text")
