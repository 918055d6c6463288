"""Make the encoder of a store or model again, and be sure that it is the same one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltstore.encode import open_encoder
from ltstore.errors import ConfigError, EncoderMismatchError
from ltstore.store import Store
from ltstore.types import Encoder, EncoderIdentity


def reopen_encoder(
    identity: EncoderIdentity,
    spec: str,
    *,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    config: Path | str | None = None,
) -> Encoder:
    """Make the encoder of stored embeddings again and check that it is the same one.

    Parameters
    ----------
    identity : EncoderIdentity
        Of the store or model.
    spec : str
        As after --encoder, e.g. the one recorded at ingest.
    options, config
        Preprocessing, as in `ltstore.encode.open_encoder`; the recorded one where neither is given. The recorded
        decoding in any case, unless `options` name another.

    Raises
    ------
    ConfigError
        There is no spec to make it from.
    EncoderMismatchError
        What the spec makes gives other embeddings; names the differences.
    """
    if not spec:
        raise ConfigError(
            "the encoder of these embeddings was not recorded (imported rows): give it by --encoder"
        )
    given = dict(options or {})
    decoding = given.pop("decoding", identity.preprocessing.get("decoding", "full"))
    if not given and config is None and identity.encoder == "onnx":
        given = dict(identity.preprocessing)
    given["decoding"] = decoding
    encoder = open_encoder(spec, device=device, features=identity.features, options=given, config=config)
    if encoder.identity != identity:
        differences = "; ".join(identity.differences(encoder.identity))
        raise EncoderMismatchError(
            f"encoder {spec!r} is not the one of the embeddings (theirs / its): {differences}"
        )
    return encoder


def recorded_spec(store: Store) -> str:
    """Return the encoder spec that the store's first ingest recorded, "" where there is none."""
    for name in store.splits:
        spec = store.split(name, allow_incomplete=True).settings.get("encoder_spec")
        if spec:
            return str(spec)
    return ""
