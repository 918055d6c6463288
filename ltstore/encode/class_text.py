"""What the text tower of an encoder says of class names: one vector a class, kept with what it was made from."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ltstore.atomic import write_bytes, write_json
from ltstore.errors import (
    ChecksumMismatchError,
    ConfigError,
    DataError,
    EncoderMismatchError,
    StoreFormatError,
    StoreNotFoundError,
    StoreReadError,
)
from ltstore.provenance import record, seal_holds, sealed
from ltstore.rows import normalize_rows
from ltstore.storage import read_regular
from ltstore.types import EncoderIdentity, FloatArray, Progress, TextEncoder, no_progress

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    "clip": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
}
"""Sets of prompts by name; "clip": the seven that CLIP's authors chose of their eighty (Radford et al. 2021, 3.1.4)."""
VECTORS_FILE, RECORD_FILE = "vectors.npz", "record.json"
_BATCH_TEXTS = 256
_CODE = re.compile(r"n?\d+")
"""A class name that says nothing in English: a number, or a WordNet id."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassText:
    """Text vectors of classes.

    Attributes
    ----------
    vectors : (C, D) float32
        Unit norm, in the order of the class names.
    class_names : tuple of str
    logit_scale : float
        What the model multiplies cosines of image and text by.
    record : mapping
        `ltstore.provenance.record`: encoder, templates, the words of each class.
    """

    vectors: FloatArray
    class_names: tuple[str, ...]
    logit_scale: float
    record: Mapping[str, Any]

    def save(self, directory: Path) -> None:
        """Write `VECTORS_FILE` (arrays "vectors" and "class_names") and the record, which has its checksum, last."""
        sink = io.BytesIO()
        np.savez(sink, vectors=self.vectors, class_names=np.array(self.class_names, np.str_))
        data = sink.getvalue()
        write_bytes(directory / VECTORS_FILE, data)
        write_json(directory / RECORD_FILE, sealed({**self.record, "sha256": hashlib.sha256(data).hexdigest()}))


def read_as(name: str) -> str:
    """Return a class name as the text tower is to read it: "aquarium_fish" is "aquarium fish"."""
    return " ".join(name.replace("_", " ").split())


def are_codes(words: Sequence[str]) -> bool:
    """Whether most class names are numbers or WordNet ids, of which a text tower knows nothing."""
    return 2 * sum(_CODE.fullmatch(word) is not None for word in words) > len(words)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Return the templates; ConfigError unless each has one "{}", where the class goes."""
    if not templates:
        raise ConfigError("templates must be at least one, e.g. 'a photo of a {}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"a template has one {{}} where the class name goes, found {template!r}")
    return tuple(templates)


def embed_classes(
    encoder: TextEncoder,
    class_names: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES["photo"],
    words: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> ClassText:
    """Embed class names: t_c is the mean over templates of unit text vectors, scaled to unit norm again.

    Parameters
    ----------
    encoder : TextEncoder
    class_names : sequence of C str
    templates : sequence of T str
        Each with one "{}".
    words : sequence of C str, optional
        What to put into the templates; default the class names, underscores as spaces.
    progress : callable
        Called with classes done.

    Raises
    ------
    ConfigError
        A template without "{}", or not one text a class.
    DataError
        A text vector is not finite, or zero.

    Notes
    -----
    C T texts go through the text tower, 256 at a time.

    References
    ----------
    Radford et al. (2021), "Learning transferable visual models from natural language supervision", ICML, section 3.1.4.
    """
    templates = check_templates(templates)
    words = [read_as(name) for name in class_names] if words is None else list(words)
    if len(words) != len(class_names) or not words:
        raise ConfigError(f"{len(class_names)} classes need as many texts, found {len(words)}")
    vectors = np.empty((len(words), encoder.identity.n_features), np.float32)
    step = max(1, _BATCH_TEXTS // len(templates))
    for start in range(0, len(words), step):
        some = words[start : start + step]
        texts = [template.replace("{}", word) for word in some for template in templates]
        each = normalize_rows(np.ascontiguousarray(encoder.encode_text(texts), np.float32))
        vectors[start : start + len(some)] = each.reshape(len(some), len(templates), -1).mean(axis=1)
        progress(len(some), {})
    bad = np.flatnonzero(~(np.abs(vectors).sum(axis=1) > 0) | ~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(
            f"the text vector of class {class_names[bad[0]]!r} is zero, NaN or Inf: check the weights"
        )
    return ClassText(
        vectors=normalize_rows(vectors),
        class_names=tuple(class_names),
        logit_scale=encoder.logit_scale,
        record=record(
            "class-text",
            settings={
                "encoder_spec": encoder.spec,
                "templates": list(templates),
                "words": words,
                "logit_scale": encoder.logit_scale,
            },
            made_from={"encoder": encoder.identity.to_json(), "class_names": _names_digest(class_names)},
        ),
    )


def load_class_text(directory: Path, *, encoder: EncoderIdentity, class_names: Sequence[str]) -> ClassText:
    """Read what `ClassText.save` wrote and refuse what is of another encoder or of other classes.

    Raises
    ------
    StoreNotFoundError
        There is none.
    EncoderMismatchError, DataError
        It is of another encoder, or of other class names.
    StoreFormatError, ChecksumMismatchError
        It cannot be understood, or its bytes are not those that were written.
    """
    where = directory / RECORD_FILE
    try:
        text, data = read_regular(where), read_regular(directory / VECTORS_FILE)
    except FileNotFoundError as err:
        raise StoreNotFoundError(
            f"no text vectors of the class names at {directory}: run `ltstore text`"
        ) from err
    except OSError as err:
        raise StoreReadError(
            f"cannot read {err.filename or directory}: {err.strerror}; run `ltstore text` again"
        ) from err
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise StoreFormatError(
            f"{where} is not a record of text vectors: {err}; run `ltstore text` again"
        ) from err
    try:
        made_from, expected = found["made_from"], found["sha256"]
        theirs = EncoderIdentity.from_json(made_from["encoder"])
        logit_scale = float(found["settings"]["logit_scale"])
        names_digest = made_from["class_names"]
    except (KeyError, TypeError, ValueError) as err:
        raise StoreFormatError(
            f"{where} is not a record of text vectors: {err!r}; run `ltstore text` again"
        ) from err
    if not seal_holds(found):
        raise StoreFormatError(f"{where} has changed since it was written: run `ltstore text` again")
    if theirs != encoder:
        raise EncoderMismatchError(
            f"the text vectors at {directory} are of another encoder than the rows (theirs / the rows'): "
            f"{'; '.join(theirs.differences(encoder))}; run `ltstore text` again"
        )
    if names_digest != _names_digest(class_names):
        raise DataError(f"the text vectors at {directory} are of other class names: run `ltstore text` again")
    if hashlib.sha256(data).hexdigest() != expected:
        raise ChecksumMismatchError(f"{directory / VECTORS_FILE} is damaged: run `ltstore text` again")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            if archive.zip.getinfo("vectors.npy").file_size > len(data):
                raise ValueError("they are compressed, `ltstore text` never does that")
            vectors = archive["vectors"]
    except (ValueError, KeyError, OSError, OverflowError, MemoryError, BadZipFile) as err:
        raise StoreFormatError(f"{directory / VECTORS_FILE} holds no vectors: {err}") from err
    if vectors.shape != (len(class_names), encoder.n_features) or vectors.dtype != np.float32:
        raise StoreFormatError(
            f"{directory / VECTORS_FILE} must hold {(len(class_names), encoder.n_features)} float32, found "
            f"{vectors.shape} of {vectors.dtype}; run `ltstore text` again"
        )
    return ClassText(vectors=vectors, class_names=tuple(class_names), logit_scale=logit_scale, record=found)


def _names_digest(class_names: Sequence[str]) -> str:
    text = json.dumps(list(class_names), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
