"""A pretrained tag where there is no network: one line, at once, and the hub is itself again afterwards."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from ltstore.encode import open_encoder
from ltstore.errors import EncoderUnavailableError


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    import open_clip  # noqa: F401 - its import takes seconds, and is not what is timed

    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    started = time.perf_counter()
    with pytest.raises(
        EncoderUnavailableError, match=r"no network: .* is not found, and the weights are not in"
    ):
        open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert time.perf_counter() - started < 5
    assert constants.HF_HUB_OFFLINE is False
