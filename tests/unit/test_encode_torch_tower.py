"""The network on its devices: pieces, memory that is too small, replicas, layout, names of devices. On a CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ltstore.encode.pipeline import iter_encoded
from ltstore.encode.torch_tower import TorchTower, torch_devices
from ltstore.errors import ConfigError, EncoderUnavailableError
from ltstore.types import EncoderIdentity
from support.images import ArraySource

torch = pytest.importorskip("torch")

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


class Net(torch.nn.Module):  # type: ignore[misc]
    """Two convolutions and a mean, or one: (n, 3, 8, 8) -> (n, 4)."""

    def __init__(self, n_convolutions: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3) for _ in range(n_convolutions)))
        self.head = torch.nn.Linear(3, 4)
        self.rows: list[int] = []

    def forward(self, inputs: Any) -> Any:
        return self.head(self.layers(inputs).mean(dim=(2, 3)))


def call(model: Any, inputs: Any) -> Any:
    model.rows.append(len(inputs))
    return model(inputs)


class Small:
    """A device in whose memory no more than `most` rows find room."""

    def __init__(self, most: int) -> None:
        self.most, self.failures = most, 0

    def __call__(self, model: Any, inputs: Any) -> Any:
        if len(inputs) > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return call(model, inputs)


def tower(forward: Any = call, n_devices: int = 1, n_convolutions: int = 2, **options: Any) -> TorchTower:
    with torch.random.fork_rng():
        net = Net(n_convolutions)
    return TorchTower(net, forward, mean=MEAN, std=STD, devices=[CPU] * n_devices, **options)


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)


def expected(batch: np.ndarray) -> np.ndarray:
    inputs = (
        torch.from_numpy(batch / 255).permute(0, 3, 1, 2) - torch.tensor(MEAN).view(3, 1, 1)
    ) / torch.tensor(STD).view(3, 1, 1)
    with torch.random.fork_rng(), torch.inference_mode():
        found: np.ndarray = Net().eval()(inputs.float()).numpy()
    return found


def test_it_is_the_network_on_normalised_pixels(batch: np.ndarray) -> None:
    read_only = batch.copy()
    read_only.flags.writeable = False
    found = tower().encode(read_only)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "most, pieces", [(20, [10, 10, 1]), (5, [5, 5, 5, 5, 1]), (3, [2] * 10 + [1]), (1, [1] * 21)]
)
def test_batches_that_do_not_fit_are_halved_and_no_row_is_lost(
    batch: np.ndarray, most: int, pieces: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    small = Small(most)
    encoder = tower(small)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(encoder.encode(batch), expected(batch), rtol=1e-4, atol=1e-5)
        assert encoder.model.rows == pieces
        logged = len(caplog.records)
        assert logged == small.failures
        encoder.encode(batch)  # what was learnt is kept
    assert len(caplog.records) == logged
    assert small.failures == logged


def test_an_image_that_does_not_fit_alone_is_an_error(batch: np.ndarray) -> None:
    with pytest.raises(EncoderUnavailableError, match="one image does not fit into the memory of cpu"):
        tower(Small(0)).encode(batch)


def test_other_failures_are_not_taken_for_a_lack_of_memory(batch: np.ndarray) -> None:
    def broken(model: Any, inputs: Any) -> Any:
        raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side assert"):
        tower(broken).encode(batch)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 20, 21])
def test_replicas_take_turns_and_rows_keep_their_order(batch: np.ndarray, n_rows: int) -> None:
    together = tower(n_devices=3)
    models = [replica.model for replica in together._replicas]
    assert len({id(model) for model in models}) == 3
    np.testing.assert_allclose(together.encode(batch[:n_rows]), expected(batch)[:n_rows], rtol=1e-4, atol=1e-5)
    piece = -(-n_rows // 3)
    assert [sum(model.rows) for model in models] == [max(0, min(piece, n_rows - at * piece)) for at in range(3)]
    assert together.batch_size_hint == 3 * tower().batch_size_hint
    assert together.device == "cpu,cpu,cpu"


def test_replicas_with_little_memory(batch: np.ndarray) -> None:
    together = tower(Small(2), n_devices=2)
    np.testing.assert_allclose(together.encode(batch), expected(batch), rtol=1e-4, atol=1e-5)
    assert [sum(replica.model.rows) for replica in together._replicas] == [11, 10]


def test_convolutional_networks_are_laid_out_channels_last() -> None:
    def last(n: int) -> bool:
        weight = tower(n_convolutions=n).model.layers[0].weight
        return bool(weight.is_contiguous(memory_format=torch.channels_last))

    assert last(2)
    assert not last(1)  # a patch embedding


def test_compile_is_asked_for(monkeypatch: pytest.MonkeyPatch, batch: np.ndarray) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    tower()
    assert compiled == []
    found = tower(compiled=True).encode(batch)
    assert compiled == [call]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-4, atol=1e-5)


def test_ingest_begins_a_batch_before_it_asks_for_the_last(batch: np.ndarray) -> None:
    events: list[str] = []

    class Ahead:
        identity = EncoderIdentity(encoder="test", model="ahead", n_features=4)
        spec, device = "ahead", "cpu"
        preprocess = staticmethod(lambda image: np.asarray(image))

        def __init__(self) -> None:
            self.tower = tower()

        def encode(self, inputs: np.ndarray) -> np.ndarray:
            raise AssertionError("begin is used where there is one")

        def begin(self, inputs: np.ndarray) -> Any:
            n = sum(event.startswith("begin") for event in events)
            events.append(f"begin {n}")
            wait = self.tower.begin(inputs)
            return lambda: (events.append(f"wait {n}"), wait())[1]

    source = ArraySource(batch, [0] * len(batch), ["a"])
    done: list[int] = []
    batches: Iterator[Any] = iter_encoded(
        source, Ahead(), batch_size=8, progress=lambda rows, _: done.append(rows)
    )
    X = np.concatenate([each.X for each in batches])
    np.testing.assert_allclose(X, expected(batch), rtol=1e-4, atol=1e-5)
    assert events == ["begin 0", "begin 1", "wait 0", "begin 2", "wait 1", "wait 2"]
    assert done == [8, 8, 5]


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    named = {
        text: [str(device) for device in torch_devices(text)]
        for text in ("auto", "all", "cuda", "cuda:1", "cuda:1,cuda:0", "cpu")
    }
    assert named == {
        "auto": ["cuda:0"],
        "all": ["cuda:0", "cuda:1"],
        "cuda": ["cuda:0"],
        "cuda:1": ["cuda:1"],
        "cuda:1,cuda:0": ["cuda:1", "cuda:0"],
        "cpu": ["cpu"],
    }
    with pytest.raises(EncoderUnavailableError, match="device cuda:2 was asked for and torch finds 2 of them"):
        torch_devices("cuda:0,cuda:2")
    for text in ("cuda:0,cpu", "cuda:0,cuda", "cuda:0,", "mps", "cpu,cpu"):
        with pytest.raises(ConfigError, match="several GPUs"):
            torch_devices(text)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [str(device) for device in torch_devices("auto")] == ["cpu"]
    for text in ("all", "cuda"):
        with pytest.raises(EncoderUnavailableError, match="torch finds no CUDA GPU"):
            torch_devices(text)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
def test_on_a_gpu_batches_in_flight_do_not_mix() -> None:
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8) for _ in range(20)]
    devices = torch_devices("all")
    on_gpus = TorchTower(Net(), call, mean=MEAN, std=STD, devices=devices)
    waits = [on_gpus.begin(batch) for batch in batches]
    for batch, wait in zip(batches, waits, strict=True):
        np.testing.assert_allclose(wait(), expected(batch), rtol=3e-2, atol=3e-2)
