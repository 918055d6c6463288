"""Any image network of timm, without its classifier; the only module that imports timm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.encode.decoding import fast_step, least_side, recorded, without_ends
from ltstore.encode.options import check_keys, nearest
from ltstore.encode.torch_tower import TorchTower, torch_devices
from ltstore.encode.tower_encoder import TowerEncoder
from ltstore.encode.weights import (
    RANDOM,
    cache_only_where_unreachable,
    download_failed,
    first_line,
    spec_weights,
    split_seed,
    state_digest,
    weights_name,
)
from ltstore.errors import ConfigError, EncoderMismatchError, EncoderUnavailableError

_SETTINGS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""What a tag says of its preprocessing."""


class TimmEncoder(TowerEncoder):
    """A frozen timm model: what its pooling gives, before the classifier.

    Parameters
    ----------
    architecture : str
        As ``timm.list_models()`` spells it, e.g. "vit_small_patch14_dinov2".
    weights : str
        A pretrained tag ("lvd142m"), "TAG@FILE" (settings of the tag, weights of a local checkpoint: .safetensors, or a
        state dict that torch loads with weights_only), the path of a checkpoint alone where all published weights of
        the architecture have the same settings, or "random", "random:SEED" (for tests).
    device : str
        As in `ltstore.encode.torch_tower.torch_devices`.
    seed : int
        Of plain "random" weights.
    decoding : str
        "fast" or "full", see `ltstore.encode.decoding`.
    compiled : bool
        As in `TorchTower`.

    Raises
    ------
    ConfigError
        Unknown architecture, tag or device: names the nearest; or the model does not take RGB images.
    EncoderMismatchError
        A checkpoint does not fit the architecture.
    EncoderUnavailableError
        The weights cannot be downloaded or read, or CUDA is not there.

    Notes
    -----
    Resize and crop are those of the model's data config, run on the CPU, and give uint8; mean and std are applied on
    the device. The digest is of the weights without the classifier's: a checkpoint with another one is the same
    encoder.
    """

    def __init__(
        self,
        architecture: str,
        weights: str,
        *,
        device: str = "auto",
        seed: int = 0,
        decoding: str = "fast",
        compiled: bool = False,
    ) -> None:
        timm = _timm()
        weights, seed = split_seed(weights, seed)
        tag, path = _resolve_weights(timm, architecture, weights)
        devices = torch_devices(device)
        model = _load(timm, architecture, tag, path, seed)
        preprocess, settings, mean, std = _split_transform(timm, model, architecture, decoding)
        digest = state_digest(model.state_dict())
        super().__init__(
            TorchTower(model, _call, mean=mean, std=std, devices=devices, compiled=compiled),
            preprocess=preprocess,
            spec=f"timm:{architecture}/{spec_weights(weights, path, seed)}",
            least_side=least_side(math.ceil(max(settings["size"]) / settings["crop_pct"]), decoding),
            identity={
                "encoder": "timm",
                "model": architecture,
                "weights": weights_name(tag, path, weights, seed),
                "weights_digest": digest,
                "preprocessing": {**settings, **recorded(decoding)},
            },
        )


def timm_encoder(name: str, *, device: str = "auto", options: Mapping[str, Any] | None = None) -> TimmEncoder:
    """Make the encoder of "ARCH/TAG", "ARCH/path/to/checkpoint" or "ARCH/random".

    Options are "seed", "decoding" and "compiled".

    Raises
    ------
    ConfigError
        There is no "/": random weights are never a default. Otherwise as `TimmEncoder`.
    """
    options = options or {}
    check_keys(options, ("seed", "decoding", "compiled"), "a timm encoder")
    architecture, _, weights = name.partition("/")
    if not weights:
        timm = _timm()
        _check_architecture(timm, architecture)
        tags = ", ".join(_tags(timm, architecture)) or "none published"
        raise ConfigError(
            f"timm:{name} names no weights: choose timm:{architecture}/TAG with a tag of {tags}, or the path of a "
            "checkpoint"
        )
    return TimmEncoder(architecture, weights, device=device, **options)


def _timm() -> Any:
    try:
        import timm
    except ImportError as err:
        raise EncoderUnavailableError("timm encoders need timm: pip install timm") from err
    return timm


def _call(model: Any, inputs: Any) -> Any:
    return model(inputs)


def _check_architecture(timm: Any, architecture: str) -> None:
    if not timm.is_model(architecture) or "." in architecture:
        raise ConfigError(
            f"timm has no architecture {architecture!r}: {nearest(architecture, timm.list_models())}"
        )


def _tags(timm: Any, architecture: str) -> list[str]:
    """Return the tags of published weights, the default one first."""
    return [
        name.partition(".")[2] for name in timm.models.get_arch_pretrained_cfgs(architecture) if "." in name
    ]


def _resolve_weights(timm: Any, architecture: str, weights: str) -> tuple[str, Path | None]:
    """Return (tag or "", path of a local checkpoint or None)."""
    _check_architecture(timm, architecture)
    if weights == RANDOM:
        return "", None
    if Path(weights).is_file():
        _check_one_setting(timm, architecture, weights)
        return "", Path(weights)
    tag, at, file = weights.partition("@")
    tags = _tags(timm, architecture)
    if tag not in tags:
        raise ConfigError(
            f"timm:{architecture} has no tag {tag!r}, and no file is there: "
            + (nearest(tag, tags) if tags else "no weights are published for it, give a checkpoint")
        )
    if at and not Path(file).is_file():
        raise EncoderUnavailableError(f"no checkpoint {file!r} for timm:{architecture}/{tag}")
    return tag, Path(file) if at else None


def _check_one_setting(timm: Any, architecture: str, file: str) -> None:
    """Refuse a checkpoint whose preprocessing may be that of one tag or of another, which it cannot tell."""
    published = timm.models.get_arch_pretrained_cfgs(architecture).values()
    if len({tuple(getattr(each, key) for key in _SETTINGS) for each in published}) > 1:
        raise ConfigError(
            f"the published weights of {architecture} differ in preprocessing: name the tag whose settings {file} has, "
            f"timm:{architecture}/TAG@{file} with one of {', '.join(_tags(timm, architecture))}"
        )


def _load(timm: Any, architecture: str, tag: str, path: Path | None, seed: int) -> Any:
    import torch

    published = bool(tag) and path is None
    name = f"{architecture}.{tag}" if tag else architecture
    reachable = cache_only_where_unreachable() if published else nullcontext("")
    with torch.random.fork_rng(devices=[]), reachable as host:
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, pretrained=published, num_classes=0)
        except Exception as err:
            # the hub client, urllib and the operating system raise what they like
            if published:
                raise download_failed(f"timm:{architecture}/{tag}", err, host) from err
            raise EncoderUnavailableError(f"cannot build timm:{architecture}: {first_line(err)}") from err
    if path is not None:
        _load_checkpoint(timm, model, architecture, path)
    return model


def _load_checkpoint(timm: Any, model: Any, architecture: str, path: Path) -> None:
    """Load a local checkpoint; what it holds beyond the model must be the classifier's."""
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as err:
        # torch, safetensors and pickle have no common base class
        raise EncoderUnavailableError(f"cannot read the weights in {path}: {first_line(err)}") from err
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {
        name: value for name, value in state.items() if not name.startswith(tuple(f"{head}." for head in heads))
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as err:
        reason = " ".join(str(err).split())[:200]
        raise EncoderMismatchError(f"the weights in {path} do not fit {architecture}: {reason}") from err


def _split_transform(
    timm: Any, model: Any, architecture: str, decoding: str
) -> tuple[Callable[[Image.Image], NDArray[np.uint8]], dict[str, Any], Sequence[float], Sequence[float]]:
    """Cut the model's own transform in two: what makes a uint8 image of an image, and mean and std."""
    config = timm.data.resolve_model_data_config(model)
    if config["input_size"][0] != 3:
        raise ConfigError(
            f"{architecture} takes {config['input_size'][0]} channels: choose a model of RGB images"
        )
    *steps, _, normalize = timm.data.create_transform(**config, is_training=False).transforms
    if decoding == "fast":
        steps = [fast_step(step) for step in steps]
    record = {
        "size": list(config["input_size"][1:]),
        **{key: config[key] for key in ("interpolation", "crop_pct", "crop_mode")},
        "mean": list(map(float, normalize.mean)),
        "std": list(map(float, normalize.std)),
    }

    def preprocess(image: Image.Image) -> NDArray[np.uint8]:
        if config["crop_mode"] == "center":
            image = without_ends(image)
        for step in steps:
            image = step(image)
        return np.asarray(image)

    return preprocess, record, record["mean"], record["std"]
