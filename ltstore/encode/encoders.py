"""From the text after --encoder to an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltstore.encode.options import check_keys, split_features
from ltstore.errors import ConfigError
from ltstore.types import Encoder, ImageSource

FAMILIES = ("pixels", "onnx", "open_clip", "timm")


def open_encoder(
    spec: str,
    *,
    device: str = "auto",
    features: str = "projected",
    options: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    source: ImageSource | None = None,
) -> Encoder:
    """Open an encoder by its text.

    Parameters
    ----------
    spec : str
        "pixels", "pixels:32", "pixels:8x8:gray"; "onnx:FILE"; "open_clip:ARCH/TAG", "open_clip:ARCH/TAG@FILE",
        "open_clip:ARCH/FILE", "open_clip:ARCH/random"; the same of "timm:".
    device : str
        "auto", "cpu", "cuda", "cuda:1"; for open_clip and timm also "cuda:0,cuda:1" or "all": a replica on each GPU.
    features : str
        "projected" or "penultimate" (open_clip only), or both, "projected,penultimate": see `OpenClipEncoder`.
    options : mapping, optional
        Settings of the family: for onnx those of `OnnxSettings` and "n_threads", for open_clip and timm "seed" and
        "compiled" (torch.compile); and for all "decoding", "fast" or "full" (`ltstore.encode.decoding`): fast unless
        said otherwise, pixels in full.
    config : path, optional
        TOML with the settings of an onnx file, in place of the one beside it.
    source : ImageSource, optional
        Where plain "pixels" looks up the size of the images; `ingest` does that by itself.

    Raises
    ------
    ConfigError
        Unknown family, setting or features.
    EncoderUnavailableError
        Package, weights, network or device missing.
    EncoderMismatchError
        Weights and architecture do not belong together.
    """
    family, _, name = spec.partition(":")
    if family not in FAMILIES:
        raise ConfigError(
            f"unknown encoder {spec!r}: expected pixels, onnx:FILE, open_clip:ARCH/TAG or timm:ARCH/TAG"
        )
    if config is not None and family != "onnx":
        raise ConfigError(f"a settings file is for onnx encoders only, found {config} with {spec}")
    if "penultimate" in split_features(features) and family != "open_clip":
        raise ConfigError(f"features penultimate is for open_clip encoders only, found it with {spec}")
    if family == "pixels":
        from ltstore.encode.pixels import pixel_encoder

        check_keys(options or {}, ("decoding",), "encoder pixels")
        if device not in ("auto", "cpu"):
            raise ConfigError(f"encoder pixels runs on the CPU, found device {device!r}")
        return pixel_encoder(spec, source, **(options or {}))
    opened = {"spec": spec, "features": features, "options": options, "config": config}
    if not name:
        raise ConfigError(f"encoder {spec!r} names no {'file' if family == 'onnx' else 'architecture'}")
    if family == "onnx":
        from ltstore.encode.onnx_file import onnx_encoder

        return _remembering(onnx_encoder(name, device=device, options=options, config=config), opened)
    if family == "timm":
        from ltstore.encode.timm_model import timm_encoder

        return _remembering(timm_encoder(name, device=device, options=options), opened)
    from ltstore.encode.open_clip_model import open_clip_encoder

    return _remembering(open_clip_encoder(name, device=device, features=features, options=options), opened)


def _remembering(encoder: Any, opened: Mapping[str, Any]) -> Encoder:
    """Return the encoder with what opens it again elsewhere, as attribute `opened`; see `ltstore.encode.workers`."""
    encoder.opened = opened
    return encoder  # type: ignore[no-any-return]
