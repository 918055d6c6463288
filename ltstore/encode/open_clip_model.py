"""The image tower of any open_clip model; the only module that imports open_clip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.encode.decoding import fast_step, least_side, recorded, without_ends
from ltstore.encode.options import check_keys, nearest, split_features
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
from ltstore.types import EncoderIdentity, FloatArray

_log = logging.getLogger(__name__)

_QUICKGELU = "-quickgelu"
_SETTINGS = ("mean", "std", "interpolation", "resize_mode")
"""What a tag says of its preprocessing."""


class OpenClipEncoder(TowerEncoder):
    """A frozen open_clip model.

    Parameters
    ----------
    architecture : str
        As ``open_clip.list_models()`` spells it, e.g. "ViT-B-32".
    weights : str
        A pretrained tag ("laion2b_s34b_b79k"), "TAG@FILE" (settings of the tag, weights of a local checkpoint:
        .safetensors, or a state dict that torch loads with weights_only), the path of a checkpoint alone where all
        published weights of the architecture have the default settings, or "random", "random:SEED" (for tests).
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", "all".
    features : str
        "projected": ``encode_image``, the space shared with the text; "penultimate": what goes into that projection
        (of a timm tower into its head). Neither is normalised. "projected,penultimate", in either order: both of one
        pass, side by side; `parts` says which columns are which.
    seed : int
        Of plain "random" weights.
    decoding : str
        "fast" or "full", see `ltstore.encode.decoding`.
    compiled : bool
        As in `TorchTower`.

    Raises
    ------
    ConfigError
        Unknown architecture, tag, device or features: names the nearest.
    EncoderMismatchError
        The weights were trained with QuickGELU and the architecture has GELU, or the other way round; or a
        checkpoint does not fit the architecture.
    EncoderUnavailableError
        The weights cannot be downloaded or read, or CUDA is not there.

    Notes
    -----
    Device and precision (`TorchTower`) are not part of the identity. The model's own resize and crop run on
    the CPU and give uint8; mean and std are applied on the device.
    """

    def __init__(
        self,
        architecture: str,
        weights: str,
        *,
        device: str = "auto",
        features: str = "projected",
        seed: int = 0,
        decoding: str = "fast",
        compiled: bool = False,
    ) -> None:
        kinds = split_features(features)
        open_clip = _open_clip()
        weights, seed = split_seed(weights, seed)
        tag, path = _resolve_weights(open_clip, architecture, weights)
        import torch

        devices = torch_devices(device)
        model = _load(open_clip, torch, architecture, tag, path, seed)
        self._architecture = architecture
        preprocess, resize, mean, std = _split_transform(model, decoding)
        digest = state_digest(model.state_dict())
        if "penultimate" in kinds:
            projection = _remove_projection(torch, model.visual, architecture)
        if len(kinds) > 1:
            model.visual.removed_projection = (
                projection  # a module of the network: it moves and is copied with it
            )
        forward = _encode_image if len(kinds) == 1 else _encoding_both(torch, kinds)
        super().__init__(
            TorchTower(model, forward, mean=mean, std=std, devices=devices, compiled=compiled),
            preprocess=preprocess,
            spec=f"open_clip:{architecture}/{spec_weights(weights, path, seed)}",
            least_side=least_side(int(np.max(resize["size"])), decoding),
            identity={
                "encoder": "open_clip",
                "model": architecture,
                "weights": weights_name(tag, path, weights, seed),
                "weights_digest": digest,
                "preprocessing": {**resize, "mean": list(mean), "std": list(std), **recorded(decoding)},
                "features": features,
            },
        )
        whole, n_projected = self.identity, open_clip.get_model_config(architecture)["embed_dim"]
        widths = {"projected": n_projected, "penultimate": whole.n_features - n_projected}
        self.parts: tuple[EncoderIdentity, ...] = (whole,)
        if len(kinds) > 1:
            self.parts = tuple(replace(whole, features=kind, n_features=widths[kind]) for kind in kinds)

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines of image and text by."""
        return float(self._tower.model.logit_scale.exp())

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """(n,) texts -> (n, D) float32 in the space of projected features, not normalised.

        Raises
        ------
        ConfigError
            The encoder gives penultimate features, which no text shares, or both kinds.
        EncoderUnavailableError
            The tokenizer is on the Hugging Face hub, which is not there, and not in the cache.
        """
        if self._identity.features != "projected":
            raise ConfigError("text shares a space with projected features only: open the encoder with those")
        tokenizer = self._tokenizer()
        model = self._tower.model
        with self._tower.context():
            tokens = tokenizer(list(texts)).to(model.logit_scale.device)
            found: FloatArray = model.encode_text(tokens).float().cpu().numpy()
        return found

    def _tokenizer(self) -> Any:
        try:
            with cache_only_where_unreachable():
                return _open_clip().get_tokenizer(self._architecture)
        except Exception as err:  # the hub client and transformers raise what they like
            raise EncoderUnavailableError(
                f"no tokenizer for {self._architecture} ({first_line(err)}): where there is no network, set "
                "HF_HUB_CACHE to a filled cache"
            ) from err


def open_clip_encoder(
    name: str, *, device: str = "auto", features: str = "projected", options: Mapping[str, Any] | None = None
) -> OpenClipEncoder:
    """Make the encoder of "ARCH/TAG", "ARCH/path/to/checkpoint" or "ARCH/random".

    Options are "seed", "decoding" and "compiled".

    Raises
    ------
    ConfigError
        There is no "/": random weights are never a default. Otherwise as `OpenClipEncoder`.
    """
    options = options or {}
    check_keys(options, ("seed", "decoding", "compiled"), "an open_clip encoder")
    architecture, _, weights = name.partition("/")
    if not weights:
        open_clip = _open_clip()
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if not tags:
            _check_architecture(open_clip, architecture)
        raise ConfigError(
            f"open_clip:{name} names no weights: choose open_clip:{architecture}/TAG with a tag of "
            f"{', '.join(tags) or 'none published'}, or the path of a checkpoint"
        )
    return OpenClipEncoder(architecture, weights, device=device, features=features, **options)


def _encode_image(model: Any, inputs: Any) -> Any:
    return model.encode_image(inputs, normalize=False)


def _encoding_both(torch: Any, kinds: Sequence[str]) -> Callable[[Any, Any], Any]:
    """Return what encodes images by a network without its projection, and projects them after that."""

    def encode(model: Any, inputs: Any) -> Any:
        before = _encode_image(model, inputs)
        found = {"penultimate": before, "projected": model.visual.removed_projection(before)}
        return torch.cat([found[kind] for kind in kinds], 1)

    return encode


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as err:
        raise EncoderUnavailableError("open_clip encoders need open_clip: pip install open_clip_torch") from err
    return open_clip


def _check_architecture(open_clip: Any, architecture: str) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        raise ConfigError(f"open_clip has no architecture {architecture!r}: {nearest(architecture, known)}")


def _resolve_weights(open_clip: Any, architecture: str, weights: str) -> tuple[str, Path | None]:
    """Return (tag or "", checkpoint path or None for random); downloads a tag's file."""
    _check_architecture(open_clip, architecture)
    if weights == RANDOM:
        return "", None
    if Path(weights).is_file():
        _check_default_settings(open_clip, architecture, weights)
        return "", Path(weights)
    tag, at, file = weights.partition("@")
    if at and (settings := open_clip.get_pretrained_cfg(architecture, tag)):
        _check_activation(open_clip, architecture, tag, bool(settings.get("quick_gelu", False)))
        if not Path(file).is_file():
            raise EncoderUnavailableError(f"no checkpoint {file!r} for open_clip:{architecture}/{tag}")
        return tag, Path(file)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    settings = open_clip.get_pretrained_cfg(architecture, weights)
    if not settings:
        raise ConfigError(
            f"open_clip:{architecture} has no tag {weights!r}, and no file is there: "
            + (nearest(weights, tags) if tags else "no weights are published for it, give a checkpoint")
        )
    _check_activation(open_clip, architecture, weights, bool(settings.get("quick_gelu", False)))
    with cache_only_where_unreachable() as host:
        try:
            return weights, Path(open_clip.download_pretrained(settings))
        except Exception as err:
            # the hub client, urllib and the operating system raise what they like
            raise download_failed(f"open_clip:{architecture}/{weights}", err, host) from err


def _check_default_settings(open_clip: Any, architecture: str, file: str) -> None:
    """Refuse a checkpoint that may need other settings than the default ones, which it cannot tell."""
    from open_clip.transform import PreprocessCfg

    default = {**asdict(PreprocessCfg()), "quick_gelu": False}
    default |= {k: v for k, v in open_clip.get_model_config(architecture).items() if k == "quick_gelu"}
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    for tag in tags:
        settings = {"quick_gelu": False, **open_clip.get_pretrained_cfg(architecture, tag)}
        if any(_plain(settings[k]) != _plain(default[k]) for k in (*_SETTINGS, "quick_gelu") if k in settings):
            raise ConfigError(
                f"the published weights of {architecture} differ in preprocessing or activation: name the tag whose "
                f"settings {file} has, open_clip:{architecture}/TAG@{file} with one of {', '.join(tags)}"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_activation(open_clip: Any, architecture: str, tag: str, tag_is_quick: bool) -> None:
    model_is_quick = bool(open_clip.get_model_config(architecture).get("quick_gelu", False))
    if model_is_quick == tag_is_quick:
        return
    other = architecture.removesuffix(_QUICKGELU) if model_is_quick else architecture + _QUICKGELU
    if other == architecture:  # the only architecture these weights were published for
        _log.warning(
            "open_clip says that %s/%s differ in QuickGELU; it knows no other architecture", architecture, tag
        )
        return
    advice = f"use open_clip:{other}/{tag}" if other in open_clip.list_models() else "choose another tag"
    trained, has = ("QuickGELU", "GELU") if tag_is_quick else ("GELU", "QuickGELU")
    raise EncoderMismatchError(
        f"the weights {tag} were trained with {trained} and {architecture} has {has}: {advice}"
    )


def _load(open_clip: Any, torch: Any, architecture: str, tag: str, path: Path | None, seed: int) -> Any:
    settings = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    forced = {k: settings[k] for k in _SETTINGS if k in settings}
    try:
        with _quiet_logging(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.create_model(
                architecture,
                pretrained=str(path) if path else None,
                pretrained_text=False,
                force_preprocess_cfg=forced,
                weights_only=True,
            )
    except Exception as err:
        # torch, safetensors and pickle have no common base class
        reason = first_line(err)
        if path is None:
            raise EncoderUnavailableError(f"cannot build open_clip:{architecture}: {reason}") from err
        if "state_dict" in str(err) or "size mismatch" in str(err):
            raise EncoderMismatchError(f"the weights in {path} do not fit {architecture}: {reason}") from err
        raise EncoderUnavailableError(f"cannot read the weights in {path}: {reason}") from err


@contextmanager
def _quiet_logging() -> Iterator[None]:
    # open_clip logs through the root logger, whose module-level functions install a handler on stderr
    root = logging.getLogger()
    silence = logging.NullHandler()
    root.addHandler(silence)
    root.addFilter(_not_from_open_clip)
    try:
        yield
    finally:
        root.removeFilter(_not_from_open_clip)
        root.removeHandler(silence)


def _not_from_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname


def _split_transform(
    model: Any, decoding: str
) -> tuple[Callable[[Image.Image], NDArray[np.uint8]], dict[str, Any], Sequence[float], Sequence[float]]:
    """Cut the model's own transform in two: what makes a uint8 image of an image, and mean and std."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = PreprocessCfg(**model.visual.preprocess_cfg)
    steps = list(image_transform_v2(settings, is_train=False).transforms)
    normalize = steps.pop()
    steps.pop()  # to tensor
    if decoding == "fast":
        steps = [fast_step(step) for step in steps]
    record = {
        "size": list(settings.size) if isinstance(settings.size, tuple | list) else settings.size,
        "resize_mode": settings.resize_mode,
        "interpolation": settings.interpolation,
        "fill_color": settings.fill_color,
    }

    def preprocess(image: Image.Image) -> NDArray[np.uint8]:
        if settings.resize_mode == "shortest":
            image = without_ends(image)
        for step in steps:
            image = step(image)
        return np.asarray(image)

    return preprocess, record, tuple(map(float, normalize.mean)), tuple(map(float, normalize.std))


def _remove_projection(torch: Any, visual: Any, architecture: str) -> Any:
    """Take the projection out of an image tower and return it, a module."""
    if getattr(visual, "proj", None) is not None and hasattr(visual, "transformer"):
        projection = torch.nn.Linear(*visual.proj.shape, bias=False, device="meta")
        projection.weight = torch.nn.Parameter(visual.proj.T)
        visual.proj = None
    elif hasattr(visual, "trunk") and hasattr(visual, "head"):
        projection, visual.head = visual.head, torch.nn.Identity()
    elif hasattr(visual, "attnpool"):
        projection = visual.attnpool.c_proj
        width = projection.in_features
        identity = torch.nn.Linear(width, width)
        torch.nn.init.eye_(identity.weight)
        torch.nn.init.zeros_(identity.bias)
        visual.attnpool.c_proj = identity
    else:
        raise ConfigError(f"{architecture} has no projection to leave out: use features projected")
    return projection
