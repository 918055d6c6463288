"""Make the encoder of a store or model again, and be sure that it is the same one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ltstore.encode import open_encoder
from ltstore.encode.shards import parts_of
from ltstore.errors import ConfigError, EncoderMismatchError
from ltstore.store import Store
from ltstore.types import Encoder, EncoderIdentity


def reopen_encoder(
    identity: EncoderIdentity,
    spec: str,
    *,
    device: str = "auto",
    features: str | None = None,
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
    features : str, optional
        Those of the embeddings, the default, or several kinds of which these are the first: see
        `ltstore.encode.open_encoder`.
    options, config
        Preprocessing, as in `ltstore.encode.open_encoder`; the recorded one where neither is given. The recorded
        decoding in any case, unless `options` name another.

    Raises
    ------
    ConfigError
        There is no spec to make it from, or the embeddings have other features.
    EncoderMismatchError
        What the spec makes gives other embeddings; names the differences.
    """
    if not spec:
        raise ConfigError(
            "the encoder of these embeddings was not recorded (imported rows): give it by --encoder"
        )
    wanted = features or identity.features
    if wanted.split(",")[0] != identity.features:
        raise ConfigError(f"features {wanted} differ from those of the embeddings, {identity.features}")
    given = dict(options or {})
    decoding = given.pop("decoding", identity.preprocessing.get("decoding", "full"))
    if not given and config is None and identity.encoder == "onnx":
        given = dict(identity.preprocessing)
    given["decoding"] = decoding
    encoder = open_encoder(spec, device=device, features=wanted, options=given, config=config)
    found = parts_of(encoder)[0]
    if found != identity:
        differences = "; ".join(identity.differences(found))
        raise EncoderMismatchError(
            f"encoder {spec!r} is not the one of the embeddings (theirs / its): {differences}"
        )
    return encoder


def may_use_gpus(encoder: Encoder, engine: str, device: str) -> bool:
    """Return whether workers that encode are given GPUs, where there are any.

    Parameters
    ----------
    encoder : Encoder
        As it was opened here.
    engine : str
        Of `ltstore.engine.ENGINES`.
    device : str
        What was asked for. A Ray cluster may have GPUs that this machine has not.
    """
    elsewhere = engine == "ray" and device != "cpu" and encoder.identity.encoder != "pixels"
    return encoder.device != "cpu" or elsewhere


def place_beside(store: str, features: str) -> str:
    """Return where the features of another kind go: "birds.zarr" and "penultimate" give "birds-penultimate.zarr"."""
    directory, slash, name = store.rstrip("/").rpartition("/")
    path = PurePosixPath(name)
    return f"{directory}{slash}{path.stem}-{features}{path.suffix}"


def recorded_spec(store: Store) -> str:
    """Return the encoder spec that the store's first ingest recorded, "" where there is none."""
    for name in store.splits:
        spec = store.split(name, allow_incomplete=True).settings.get("encoder_spec")
        if spec:
            return str(spec)
    return ""
