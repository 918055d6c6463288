"""What limited an ingest: by its timings, and in runs that are held up on purpose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from ltstore.encode import PixelEncoder, Usage, gpu_use, ingest, usage_of
from ltstore.store import store_info
from ltstore.types import ByteArray, FloatArray
from support.images import array_source, corrupt


def of(**seconds: float) -> Usage | None:
    return usage_of(
        {"wall": 10, "threads": 40, "read": 0, "decode": 0, "encode": 0, "store": 0, **seconds}, "fast"
    )


@pytest.mark.parametrize(
    "seconds, limit",
    [
        ({"decode": 38, "read": 1, "encode": 4}, "decode"),
        ({"read": 30, "decode": 9, "encode": 9}, "read"),
        ({"decode": 20, "encode": 9.5}, "encode"),
        ({"decode": 10, "encode": 5, "store": 8}, "write"),
    ],
)
def test_the_busiest_part_limits(seconds: dict[str, float], limit: str) -> None:
    found = of(**seconds)
    assert found is not None
    assert found.limit == limit
    assert found.workers == (seconds.get("read", 0) + seconds.get("decode", 0)) / 40
    assert (found.encoder, found.writer) == (seconds.get("encode", 0) / 10, seconds.get("store", 0) / 10)


def test_full_decoding_is_named_where_it_costs() -> None:
    timings = {"wall": 10.0, "threads": 20.0, "read": 1.0, "decode": 18.0, "encode": 5.0, "store": 0.1}
    full, fast = usage_of(timings, "full"), usage_of(timings, "fast")
    assert full is not None
    assert fast is not None
    assert "--full-decode" in full.advice
    assert "--full-decode" not in fast.advice


def test_an_idle_gpu_is_told_apart_from_a_busy_one() -> None:
    idle, busy = of(encode=9.5, gpu=4.0, gpu_wall=10), of(encode=9.5, gpu=4.5, gpu_wall=5)
    assert idle is not None
    assert busy is not None
    assert (idle.gpu, busy.gpu) == (0.4, 0.9)
    assert "--batch-size" in idle.advice
    assert "--batch-size" not in busy.advice


def test_the_use_of_gpus_is_sampled_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"cuda:0": 60, "cuda:1": 80}
    monkeypatch.setattr("torch.cuda.utilization", shares.__getitem__)
    monkeypatch.setattr("ltstore.encode.usage._LEAST_SECONDS", 0.0)
    monkeypatch.setattr(PixelEncoder, "device", "cuda:0,cuda:1")
    report = ingest(array_source(30), PixelEncoder(4, 4), tmp_path / "s", "train", batch_size=10)
    assert report.usage is not None
    assert report.usage.gpu == pytest.approx(0.7)
    timings = store_info(tmp_path / "s")["splits"]["train"]["timings"]
    assert timings["gpu"] == pytest.approx(0.7 * timings["wall"])


def test_a_driver_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ModuleNotFoundError("pynvml")

    assert gpu_use("cpu") is None
    monkeypatch.setattr("torch.cuda.utilization", refuse)
    assert gpu_use("cuda:0") is None


def test_what_cannot_be_told_is_not() -> None:
    assert of(wall=0.5) is None
    assert usage_of({"read": 3.0, "store": 1.0}, "full") is None
    assert usage_of({}, "fast") is None


class SlowDecoder(PixelEncoder):
    def _flatten(self, image: Image.Image) -> ByteArray:
        time.sleep(0.02)
        return super()._flatten(image)


class SlowEncoder(PixelEncoder):
    def encode(self, batch: ByteArray) -> FloatArray:
        time.sleep(0.01 * len(batch))
        return super().encode(batch)


@pytest.mark.parametrize("kind, limit", [(SlowDecoder, "decode"), (SlowEncoder, "encode")])
def test_a_slow_part_is_found_and_remembered(tmp_path: Path, kind: type[PixelEncoder], limit: str) -> None:
    failed: list[int] = []
    source = array_source(120, {7: corrupt()})
    report = ingest(
        source, kind(4, 4), tmp_path / "s", "train", batch_size=10, n_workers=1, on_failed=failed.append
    )
    assert failed == [1]
    assert report.usage is not None
    assert report.usage.limit == limit
    assert max(report.usage.workers, report.usage.encoder) > 0.7
    kept = usage_of(store_info(tmp_path / "s")["splits"]["train"]["timings"], "full")
    assert kept is not None
    assert kept.limit == limit
    assert report.to_json()["usage"]["limit"] == limit
    assert report.reasons["n_workers"] == report.reasons["batch_size"] == "as asked"
