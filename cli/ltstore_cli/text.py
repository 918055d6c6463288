"""ltstore text: text embeddings of the class names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Device, EncoderOptions, Json, StorePath, parse_encoder_options


def text(
    store: StorePath,
    encoder: Annotated[
        str | None,
        typer.Option(help="open_clip:ARCH/TAG, if the store has not recorded its own; no other one is taken."),
    ] = None,
    encoder_option: EncoderOptions = None,
    templates: Annotated[
        str,
        typer.Option(
            help="photo ('a photo of a {}.'), clip (seven of CLIP's), or a file with one template a line."
        ),
    ] = "photo",
    words: Annotated[
        Path | None,
        typer.Option(
            help="File with what stands for each class in the templates, one line a class in the store's order. "
            "Default: the class names, underscores as spaces.",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Embed the class names by the text tower of the store's encoder, and keep the vectors beside the images.

    `ltstore train --head zero-shot` makes a model of them, `--sampler text` leans on them.

    Example: `ltstore text birds.zarr --templates clip`
    """
    from ltstore.encode.class_text import TEMPLATES
    from ltstore.store import open_store
    from ltstore.workflow import embed_class_names

    opened = open_store(store)
    with _render.progress("text", len(opened.class_names), "classes") as progress:
        result = embed_class_names(
            opened,
            encoder=encoder,
            encoder_options=parse_encoder_options(encoder_option),
            templates=templates if templates in TEMPLATES else _lines(Path(templates), "--templates"),
            words=None if words is None else _lines(words, "--words"),
            device=device,
            progress=progress,
        )
    if json:
        _render.json_out(result.to_json())
        return
    settings = result.text.record["settings"]
    _render.pairs(
        [
            ("class text", result.path),
            ("encoder", settings["encoder_spec"]),
            ("classes", len(result.text.class_names)),
            ("templates", len(settings["templates"])),
            ("first text", settings["templates"][0].replace("{}", settings["words"][0])),
            ("logit scale", f"{result.text.logit_scale:.2f}"),
        ]
    )
    _render.note(f"next: ltstore train {store} --head zero-shot --out MODEL")


def _lines(path: Path, flag: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise typer.BadParameter(f"cannot read {path}: {err}", param_hint=flag) from err
