"""Options that several commands share: one name, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ltstore_cli._completion import DONORS_BY, ENGINES, SOURCES, among, splits, subsets

StorePath = Annotated[
    str,
    typer.Argument(metavar="STORE", help="The store: NAME.zarr, or s3://BUCKET/NAME.zarr.", show_default=False),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="`digits`, a class-folder tree, tars (WebDataset) or Parquet files (a directory, a wildcard or "
        "`{00000..00099}.tar`), a CSV, TSV or Parquet manifest, a list file `path label`, an iNaturalist JSON, "
        "or a CIFAR python directory or tar.",
        show_default=False,
    ),
]
SourceFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="auto, digits, folder, cifar, list, images, tar, parquet, manifest or coco (iNaturalist).",
        autocompletion=among(*SOURCES),
    ),
]
Split = Annotated[str, typer.Option(help="Split of the store or source.", autocompletion=splits)]
Append = Annotated[
    bool,
    typer.Option(
        "--append", help="Add the rows after those of a finished split; a source it has is not added twice."
    ),
]
Subset = Annotated[
    str | None,
    typer.Option(help="Named subset of the split (see `ltstore subset`).", autocompletion=subsets),
]
Root = Annotated[Path | None, typer.Option(help="Directory that the paths of a list or manifest start from.")]
PathColumn = Annotated[
    str | None,
    typer.Option(help="Column of a manifest's paths, or of a Parquet file's images. Default: a usual name."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        "--label-field",
        help="Column of labels; in tars cls, txt or a field of the .json. Default: a usual name.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random in this command.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
EncoderDevice = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda or cuda:N; several GPUs for open_clip and timm: cuda:0,cuda:1, or all."),
]
BatchSize = Annotated[str, typer.Option(help="Images per encoder call, or auto.")]
Workers = Annotated[
    str,
    typer.Option(
        help="Threads that decode images, or auto. With --engine processes or ray: workers, auto is one a GPU or core."
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Who does the work: local (this process), processes (of this machine) or ray (a cluster).",
        autocompletion=among(*ENGINES),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster: HOST:PORT, auto (default: the running one), or local (start one here)."
    ),
]
DrawWorkers = Annotated[str, typer.Option("--workers", help="Threads that draw, or auto: one a core.")]
EncoderConfig = Annotated[
    Path | None,
    typer.Option(help="TOML file with the preprocessing of an onnx encoder. Default: FILE.toml beside it."),
]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option("--encoder-option", metavar="KEY=VALUE", help="One preprocessing setting; repeat for more."),
]
SAMPLER_NAMES = (
    "neighbor-gauss, vmf, kde, smote, distribution-calibration, residual-transfer, text (needs `ltstore text` or "
    "--sampler-option vectors=FILE) or duplicate"
)
SamplerOptions = Annotated[
    list[str] | None,
    typer.Option("--sampler-option", metavar="KEY=VALUE", help="One setting of the sampler; repeat for more."),
]


PerClass = Annotated[
    int | None,
    typer.Option(min=1, help="Synthetic rows of every class; default: fill up to the largest class."),
]
MaxRatio = Annotated[
    float | None, typer.Option(min=0.0, help="At most this many synthetic rows per real row of a class.")
]
DonorsBy = Annotated[
    str,
    typer.Option(
        "--donors",
        help="Find donor classes by means (of classes) or index (votes of nearest rows).",
        autocompletion=among(*DONORS_BY),
    ),
]
Accept = Annotated[
    str,
    typer.Option(
        help="Draw synthetic rows again that gda (closed-form head) or nearest (real rows) says are of another "
        "class; default none."
    ),
]


def parse_options(pairs: list[str] | None, flag: str) -> dict[str, Any]:
    """Turn ["size=224", "mean=[0.5, 0.5]", "resize=bicubic"] into a dict; values are TOML, else text."""
    import tomllib

    options: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=flag)
        try:
            options[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[key.strip()] = text.strip()
    return options


def parse_grid(axes: list[str] | None) -> dict[str, list[Any]]:
    """Turn ["l2=1e-4,1e-3", "loss=ce,la"] into lists of values; values are TOML, else text."""
    grid: dict[str, list[Any]] = {}
    for axis in axes or []:
        key, equals, text = axis.partition("=")
        key = key.strip().replace("-", "_")
        if key in grid:
            raise typer.BadParameter(f"{key!r} is given twice: put its values into one", param_hint="--grid")
        pairs = [f"{key}{equals}{value}" for value in text.split(",") if value.strip()] or [axis]
        grid[key] = [parse_options([pair], "--grid")[key] for pair in pairs]
    return grid


def parse_encoder_options(pairs: list[str] | None) -> dict[str, Any] | None:
    """Return the --encoder-option pairs as a dict, None where there are none."""
    return parse_options(pairs, "--encoder-option") or None


def parse_bytes(text: str | None, flag: str) -> int | None:
    """Turn "2GB", "500 MB" or "8000000" into bytes (units of 1,000)."""
    import re

    if text is None:
        return None
    parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)B?", text)
    if parts is None:
        raise typer.BadParameter(f"expected a size such as 500MB or 2GB, found {text!r}", param_hint=flag)
    return int(float(parts[1]) * 1000 ** " kMGT".index(parts[2] or " "))


def number_or_auto(text: str, flag: str) -> int | str:
    """Return "auto" or a positive int."""
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"expected a positive number or auto, found {text!r}", param_hint=flag)
    return int(text)


def number_or_name(text: str) -> float | str:
    """Return the number that a text is, or else the text: a share or the name of a subset."""
    try:
        return float(text)
    except ValueError:
        return text
