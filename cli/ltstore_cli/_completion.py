"""What a shell offers after an option. A shell waits for it at every tab: nothing of the library is loaded here.

So names stand here once more; a test holds them to the library's. Where nothing is offered, shells offer files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import typer

ENCODERS = (
    "pixels",
    "onnx:",
    "open_clip:ViT-B-32/laion2b_s34b_b79k",
    "open_clip:ViT-L-14/datacomp_xl_s13b_b90k",
    "timm:vit_small_patch14_dinov2/lvd142m",
    "timm:vit_base_patch14_dinov2/lvd142m",
)
SAMPLERS = (
    *("neighbor-gauss", "vmf", "kde", "smote", "distribution-calibration", "residual-transfer", "text"),
    "duplicate",
)
HEADS = ("linear", "cosine", "ncm", "gda", "ridge", "zero-shot")
LOSSES = ("la", "ce")
SOURCES = ("auto", "digits", "folder", "cifar", "list", "images", "tar", "parquet", "manifest", "coco")
PUBLISHED = ("cifar100-lt", "places-lt", "imagenet-lt", "inat2018")
LAYOUTS = ("npy", "npz", "parquet", "clip-retrieval", "datacomp", "safetensors")
MODEL_FORMATS = ("safetensors", "sklearn", "onnx")
ENGINES = ("local", "processes", "ray")
DONORS_BY = ("means", "index")
INDEX_KINDS = ("auto", "flat", "hnsw", "ivf", "sq8", "ivfpq")
SUBSET_RULES = ("exp", "step", "holdout", "file")


def among(*names: str) -> Callable[[str], list[str]]:
    """Return what completes one of `names`."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def splits(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a split of the store that the command names before it; none where that is not on this machine."""
    return among(*_directories(context, "", "commits"))(incomplete)


def subsets(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a named subset of the split."""
    split = context.params.get("split") or "test"
    return among(*_directories(context, f"{split}/subsets", ""))(incomplete)


def _directories(context: typer.Context, below: str, holding: str) -> Iterator[str]:
    """Yield the names of directories below a place in the store that hold something, sorted."""
    # Of words before an option that lacks its value, those without a flag are not parsed yet.
    arguments = [each.name for each in context.command.params if each.param_type_name == "argument"]
    store = context.params.get("store") or dict(zip(arguments, context.args, strict=False)).get("store")
    with suppress(OSError):
        for entry in sorted((Path(store or "absent") / below).iterdir()):
            if (entry / holding).is_dir():
                yield entry.name
