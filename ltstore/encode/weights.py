"""Weights of torch models: where they come from, what they are called, and their digest."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ltstore.errors import EncoderUnavailableError

RANDOM = "random"


def split_seed(weights: str, seed: int) -> tuple[str, int]:
    """Return weights and seed, of "random:7" `RANDOM` and 7."""
    numbered = re.fullmatch(rf"{RANDOM}:(\d+)", weights)
    return (RANDOM, int(numbered[1])) if numbered else (weights, seed)


def weights_name(tag: str, path: Path | None, weights: str, seed: int) -> str:
    """Return the tag, the name of the checkpoint, or both; of random weights their seed."""
    if weights == RANDOM:
        return f"{RANDOM} (seed {seed})"
    file = path.name if path is not None and weights != tag else ""
    return f"{tag}@{file}" if tag and file else tag or file


def spec_weights(weights: str, path: Path | None, seed: int) -> str:
    """Return `weights` as they are found again from another directory, with the same seed."""
    if weights == RANDOM:
        return f"{RANDOM}:{seed}" if seed else RANDOM
    if path is None or Path(weights).is_file():
        return weights if path is None else str(path.resolve())
    tag, at, _ = weights.partition("@")
    return f"{tag}@{path.resolve()}" if at else weights


@contextmanager
def cache_only_where_unreachable() -> Iterator[str]:
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


def first_line(err: Exception) -> str:
    """Return what an error of another library says first, or its kind where it says nothing; at most 200 characters."""
    return (str(err).splitlines() or [type(err).__name__])[0][:200]


def download_failed(name: str, err: Exception, host: str) -> EncoderUnavailableError:
    """Return the error of weights that could not be fetched.

    `name` is "FAMILY:ARCH/TAG", `host` what `cache_only_where_unreachable` gave.
    """
    reason = (
        f"no network: {host} is not found, and the weights are not in the cache" if host else first_line(err)
    )
    return EncoderUnavailableError(
        f"cannot download {name} ({reason}): where there is no network, give the path of its checkpoint ({name}@FILE) "
        "or set HF_HUB_CACHE to a filled cache"
    )


def state_digest(state: Mapping[str, Any]) -> str:
    """sha256 over the tensors of a state dict, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(dtype=_bytes_dtype(tensor)).numpy().data)
    return "sha256:" + digest.hexdigest()


def _bytes_dtype(tensor: Any) -> Any:
    import torch

    return torch.uint8 if tensor.numel() else tensor.dtype
