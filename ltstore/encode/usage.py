"""How busy the parts of an ingest were, which of them limited it, and what would change that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LEAST_SECONDS = 1.0
"""A shorter run says more about its start than about its parts."""
_IDLE = 0.7
"""A GPU that works less, while the encoder is what limits, is held up by the work of telling it what to do."""
_ADVICE = {
    "read": "more --workers where the source answers slowly, a faster disk where it is full",
    "decode": "more cores, or images nearer to the size of the encoder's input",
    "encode": "a GPU or another one, or a smaller network",
    "write": "a faster disk",
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Which share of the time each part of an ingest worked; the busiest limits it.

    Attributes
    ----------
    workers : float
        The threads that read and decode, on average; where cores are short, waiting for one counts as work.
    encoder, writer : float
        What the encoder did not work, it waited for images or for the writer.
    gpu : float or None
        The GPUs of the encoder, as their driver counts it; None without one, or where it does not tell.
    limit : {"read", "decode", "encode", "write"}
        Of the workers, what they spent more time on.
    advice : str
        What would help.
    """

    workers: float
    encoder: float
    writer: float
    gpu: float | None
    limit: str
    advice: str


def usage_of(timings: Mapping[str, float], decoding: str) -> Usage | None:
    """Tell from the timings of an ingest's shards, added up, how busy its parts were.

    Parameters
    ----------
    timings : mapping of str to seconds
        "wall", and of it "encode" and "store" (writing); "read" and "decode" summed over the workers, and "threads",
        what all of them had; "gpu", how long GPUs worked of the "gpu_wall" in which they told.
    decoding : {"fast", "full"}

    Returns
    -------
    Usage or None
        None where the timings do not tell: imported rows, an ingest of under a second or by an older ltstore.
    """
    if timings.get("wall", 0.0) < _LEAST_SECONDS or not timings.get("threads"):
        return None
    read, decode, encode, store = (timings.get(stage, 0.0) for stage in ("read", "decode", "encode", "store"))
    workers = (read + decode) / timings["threads"]
    encoder, writer = encode / timings["wall"], store / timings["wall"]
    busiest = max(workers, encoder, writer)
    if busiest == workers:
        limit = "read" if read > decode else "decode"
    else:
        limit = "encode" if busiest == encoder else "write"
    gpu = timings["gpu"] / timings["gpu_wall"] if timings.get("gpu_wall") else None
    advice = _ADVICE[limit]
    if limit == "encode" and gpu is not None and gpu < _IDLE:
        advice = "a larger --batch-size, or --encoder-option compiled=true: the GPU waits for what it is told"
    if (limit, decoding) == ("decode", "full"):
        advice += ", or fast decoding (a new store without --full-decode)"
    return Usage(workers=workers, encoder=encoder, writer=writer, gpu=gpu, limit=limit, advice=advice)
