"""The image tower of any open_clip model; the only module that imports open_clip."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.encode.options import check_keys, nearest
from ltstore.errors import ConfigError, EncoderMismatchError, EncoderUnavailableError
from ltstore.types import EncoderIdentity, FloatArray

_log = logging.getLogger(__name__)

FEATURES = ("projected", "penultimate")
RANDOM = "random"
_QUICKGELU = "-quickgelu"
_SETTINGS = ("mean", "std", "interpolation", "resize_mode")
"""What a tag says of its preprocessing."""


class OpenClipEncoder:
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
        "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
    features : str
        "projected": ``encode_image``, the space shared with the text; "penultimate": what goes into that projection
        (of a timm tower into its head). Neither is normalised.
    seed : int
        Of plain "random" weights.

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
    float32 on a CPU; on a GPU bfloat16 autocast (float16 where the GPU has no bfloat16), which is not part of
    the identity. The model's own resize and crop run on the CPU and give uint8; mean and std are applied on the device.
    """

    def __init__(
        self,
        architecture: str,
        weights: str,
        *,
        device: str = "auto",
        features: str = "projected",
        seed: int = 0,
    ) -> None:
        if features not in FEATURES:
            raise ConfigError(f"features must be {' or '.join(FEATURES)}, found {features!r}")
        open_clip = _open_clip()
        if numbered := re.fullmatch(rf"{RANDOM}:(\d+)", weights):
            weights, seed = RANDOM, int(numbered[1])
        tag, path = _resolve_weights(open_clip, architecture, weights)
        import torch

        self._torch = torch
        self._torch_device = _torch_device(torch, device)
        model = _load(open_clip, torch, architecture, tag, path, seed)
        self._spec = f"open_clip:{architecture}/{_spec_weights(weights, path, seed)}"
        self._architecture = architecture
        self._preprocess, resize, mean, std = _split_transform(model)
        digest = _state_digest(model.state_dict())
        if features == "penultimate":
            _remove_projection(torch, model.visual, architecture)
        self._model = model.eval().requires_grad_(False).to(self._torch_device)
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=self._torch_device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=self._torch_device)
        self._shift = self._shift.view(1, 3, 1, 1)
        probe = self._preprocess(Image.new("RGB", (8, 8)))
        self._identity = EncoderIdentity(
            encoder="open_clip",
            model=architecture,
            weights=f"{RANDOM} (seed {seed})" if weights == RANDOM else _weights_name(tag, path, weights),
            weights_digest=digest,
            preprocessing={**resize, "mean": list(mean), "std": list(std)},
            features=features,
            n_features=self.encode(probe[None]).shape[1],
        )

    @property
    def identity(self) -> EncoderIdentity:
        """Architecture, weights (sha256 over the tensors, sorted by name) and preprocessing."""
        return self._identity

    @property
    def spec(self) -> str:
        """ "open_clip:ARCH/WEIGHTS", with the absolute path of a checkpoint and the seed of random weights."""
        return self._spec

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:0", ..."""
        return str(self._torch_device)

    @property
    def preprocess(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """RGB image -> (H, W, 3) uint8, resized and cropped as the model wants it."""
        return self._preprocess

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """(n, H, W, 3) uint8 -> (n, D) float32."""
        torch = self._torch
        with torch.inference_mode(), self._autocast():
            writable = np.require(batch, requirements=["C", "W"])  # torch warns of read-only memory
            pixels = torch.from_numpy(writable).to(self._torch_device, non_blocking=True)
            inputs = pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift
            found: FloatArray = self._model.encode_image(inputs, normalize=False).float().cpu().numpy()
        return found

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines of image and text by."""
        return float(self._model.logit_scale.exp())

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """(n,) texts -> (n, D) float32 in the space of projected features, not normalised.

        Raises
        ------
        ConfigError
            The encoder gives penultimate features, which no text shares.
        EncoderUnavailableError
            The tokenizer is on the Hugging Face hub, which is not there, and not in the cache.
        """
        if self._identity.features != "projected":
            raise ConfigError("text shares a space with projected features only: open the encoder with those")
        tokenizer = self._tokenizer()
        with self._torch.inference_mode(), self._autocast():
            tokens = tokenizer(list(texts)).to(self._torch_device)
            found: FloatArray = self._model.encode_text(tokens).float().cpu().numpy()
        return found

    def _tokenizer(self) -> Any:
        try:
            with _cache_only_where_unreachable():
                return _open_clip().get_tokenizer(self._architecture)
        except Exception as err:  # the hub client and transformers raise what they like
            reason = (str(err).splitlines() or [type(err).__name__])[0]
            raise EncoderUnavailableError(
                f"no tokenizer for {self._architecture} ({reason}): where there is no network, set HF_HUB_CACHE to a "
                "filled cache"
            ) from err

    def _autocast(self) -> Any:
        if self._torch_device.type != "cuda":
            return nullcontext()
        torch = self._torch
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16 if has_bfloat16 else torch.float16)


def open_clip_encoder(
    name: str, *, device: str = "auto", features: str = "projected", options: Mapping[str, Any] | None = None
) -> OpenClipEncoder:
    """Make the encoder of "ARCH/TAG", "ARCH/path/to/checkpoint" or "ARCH/random"; the only option is "seed".

    Raises
    ------
    ConfigError
        There is no "/": random weights are never a default. Otherwise as `OpenClipEncoder`.
    """
    options = options or {}
    check_keys(options, ("seed",), "an open_clip encoder")
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


def _weights_name(tag: str, path: Path | None, weights: str) -> str:
    """Return the tag, the name of the checkpoint, or both."""
    file = path.name if path is not None and weights != tag else ""
    return f"{tag}@{file}" if tag and file else tag or file


def _spec_weights(weights: str, path: Path | None, seed: int) -> str:
    """Return `weights` as they are found again from another directory, with the same seed."""
    if weights == RANDOM:
        return f"{RANDOM}:{seed}" if seed else RANDOM
    if path is None or Path(weights).is_file():
        return weights if path is None else str(path.resolve())
    tag, at, _ = weights.partition("@")
    return f"{tag}@{path.resolve()}" if at else weights


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
    try:
        with _cache_only_where_unreachable() as host:
            return weights, Path(open_clip.download_pretrained(settings))
    except Exception as err:
        # the hub client, urllib and the operating system raise what they like
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        if host:
            reason = f"no network: {host} is not found, and the weights are not in the cache"
        raise EncoderUnavailableError(
            f"cannot download open_clip:{architecture}/{weights} ({reason}): where there is no network, give the "
            f"path of its checkpoint (open_clip:{architecture}/{weights}@FILE) or set HF_HUB_CACHE to a filled cache"
        ) from err


@contextmanager
def _cache_only_where_unreachable() -> Iterator[str]:
    """Give the name of the hub's host if it cannot be resolved, "" otherwise; then only the hub's cache is used.

    The hub client would try an unknown host a dozen times, for a minute, before it looks into its cache.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or ""
    before = constants.HF_HUB_OFFLINE
    if before or getproxies() or _resolves(host):
        yield ""
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield host
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


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
        reason = (str(err).splitlines() or [type(err).__name__])[0][:200]
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


def _torch_device(torch: Any, device: str) -> Any:
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device("cuda:0" if device == "cuda" else device)
    except RuntimeError as err:
        raise ConfigError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:1") from err
    if resolved.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:1")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise EncoderUnavailableError(
            f"device {device} was asked for and torch finds no CUDA GPU: use device cpu"
        )
    return resolved


def _split_transform(
    model: Any,
) -> tuple[Callable[[Image.Image], NDArray[np.uint8]], dict[str, Any], Sequence[float], Sequence[float]]:
    """Cut the model's own transform in two: what makes a uint8 image of an image, and mean and std."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = PreprocessCfg(**model.visual.preprocess_cfg)
    steps = list(image_transform_v2(settings, is_train=False).transforms)
    normalize = steps.pop()
    steps.pop()  # to tensor
    record = {
        "size": list(settings.size) if isinstance(settings.size, tuple | list) else settings.size,
        "resize_mode": settings.resize_mode,
        "interpolation": settings.interpolation,
        "fill_color": settings.fill_color,
    }

    def preprocess(image: Image.Image) -> NDArray[np.uint8]:
        for step in steps:
            image = step(image)
        return np.asarray(image)

    return preprocess, record, tuple(map(float, normalize.mean)), tuple(map(float, normalize.std))


def _remove_projection(torch: Any, visual: Any, architecture: str) -> None:
    if getattr(visual, "proj", None) is not None and hasattr(visual, "transformer"):
        visual.proj = None
    elif hasattr(visual, "trunk") and hasattr(visual, "head"):
        visual.head = torch.nn.Identity()
    elif hasattr(visual, "attnpool"):
        width = visual.attnpool.c_proj.in_features
        identity = torch.nn.Linear(width, width)
        torch.nn.init.eye_(identity.weight)
        torch.nn.init.zeros_(identity.bias)
        visual.attnpool.c_proj = identity
    else:
        raise ConfigError(f"{architecture} has no projection to leave out: use features projected")


def _state_digest(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(dtype=_bytes_dtype(tensor)).numpy().data)
    return "sha256:" + digest.hexdigest()


def _bytes_dtype(tensor: Any) -> Any:
    import torch

    return torch.uint8 if tensor.numel() else tensor.dtype
