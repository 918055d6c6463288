"""The rows of a stream on a device: kept there between passes where they fit, else copied while it computes.

Copies go through two buffers in turn: while the device works on one block, the next is read into page-locked memory and
sent on a stream of its own. On the CPU the same steps are plain copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ltstore.linear.objective import timed
from ltstore.stream import Block, TrainingStream
from ltstore.stream.loader import CACHE_BYTES
from ltstore.types import FloatArray, IntArray

DeviceBlock = tuple[Any, Any, Any]  # (n, D) rows, (n,) int64 labels, (n,) float32 weights or None


class DeviceRows:
    """The blocks of a stream as tensors.

    Parameters
    ----------
    stream : TrainingStream
    device : torch device
    dtype : torch dtype
        That the rows get.
    real_only : bool
        Leave out synthetic rows.
    limit_bytes : int, optional
        Keep the rows on the device if they fit into this. Default: half of what is free on a GPU, 2 GiB on the CPU.

    Attributes
    ----------
    kept : bool
    waited : float
        Seconds spent waiting for rows of the host so far.
    """

    def __init__(
        self,
        stream: TrainingStream,
        device: Any,
        dtype: Any,
        *,
        real_only: bool,
        limit_bytes: int | None = None,
    ) -> None:
        self.stream, self.real_only = stream, real_only
        self._device, self._dtype = device, dtype
        self._n_rows = stream.n_given(real_only=real_only)
        limit = _room(device) if limit_bytes is None else limit_bytes
        self.kept = self._n_rows * (stream.n_features * dtype.itemsize + 12) <= limit
        self.waited = 0.0
        self._all: DeviceBlock | None = None
        self._slots = (_Slot(device), _Slot(device))

    def blocks(self, most: int) -> Iterator[DeviceBlock]:
        """Yield the rows in order, at most so many at a time, valid until the next step only."""
        if self.kept:
            if self._all is None:
                self._all = self._load()
            yield from _parts(self._all, most)
            return
        for block in self.feed(self._host_blocks()):
            yield from _parts(block, most)

    def feed(self, blocks: Iterable[Block]) -> Iterator[DeviceBlock]:
        """Yield blocks of the host on the device, valid until the next step only."""
        module = torch.get_device_module(self._device)
        side = module.Stream()
        for number, (block, seconds) in enumerate(timed(blocks)):
            self.waited += seconds
            slot = self._slots[number % 2]
            slot.copied.synchronize()  # what it holds for the host has been sent
            slot.fill(block)
            with module.stream(side):
                side.wait_event(slot.used)  # and what it holds on the device has been worked on
                slot.send()
                slot.copied.record(side)
            module.current_stream().wait_event(slot.copied)
            X, labels, weights = slot.on_device()
            yield X.to(self._dtype), labels, weights
            slot.used.record(module.current_stream())

    def _host_blocks(self) -> Iterable[Block]:
        return self.stream.real_blocks() if self.real_only else self.stream

    def _load(self) -> DeviceBlock:
        n, given = self._n_rows, self.stream.row_weights is not None
        X = torch.empty((n, self.stream.n_features), dtype=self._dtype, device=self._device)
        labels = torch.empty(n, dtype=torch.int64, device=self._device)
        weights = torch.ones(n, dtype=torch.float32, device=self._device) if given else None
        at = 0
        for rows, own, weight in self.feed(self._host_blocks()):
            some = slice(at, at + len(rows))
            X[some], labels[some] = rows, own
            if weights is not None and weight is not None:
                weights[some] = weight
            at += len(rows)
        return X, labels, weights


class _Slot:
    """One block on its way: memory of the host, memory of the device, and how far it is."""

    def __init__(self, device: Any) -> None:
        self._device, self._module = device, torch.get_device_module(device)
        self.copied, self.used = self._module.Event(), self._module.Event()
        self._staged: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}
        self._n_rows = 0
        self._weighted = False

    def fill(self, block: Block) -> None:
        X, labels, weights = block
        self._n_rows, self._weighted = len(X), weights is not None
        self._stage("rows", X)
        self._stage("labels", labels)
        if weights is not None:
            self._stage("weights", weights)

    def send(self) -> None:
        for name, staged in self._staged.items():
            self._sent[name][: self._n_rows].copy_(staged[: self._n_rows], non_blocking=True)

    def on_device(self) -> DeviceBlock:
        n = self._n_rows
        weights = self._sent["weights"][:n] if self._weighted else None
        return self._sent["rows"][:n], self._sent["labels"][:n], weights

    def _stage(self, name: str, array: FloatArray | IntArray) -> None:
        staged = self._staged.get(name)
        if staged is None or len(staged) < len(array):
            self._module.synchronize()  # nobody uses the memory that is let go
            locked = self._device.type == "cuda"
            dtype = torch.float32 if array.dtype == np.float32 else torch.int64
            staged = torch.empty(array.shape, dtype=dtype, pin_memory=locked)
            self._staged[name] = staged
            self._sent[name] = torch.empty(array.shape, dtype=dtype, device=self._device)
        np.copyto(staged.numpy()[: len(array)], array)


def _parts(block: DeviceBlock, most: int) -> Iterator[DeviceBlock]:
    X, labels, weights = block
    for start in range(0, len(X), most):
        some = slice(start, start + most)
        yield X[some], labels[some], None if weights is None else weights[some]


def _room(device: Any) -> int:
    if device.type != "cuda":
        return CACHE_BYTES
    return int(torch.cuda.mem_get_info(device)[0]) // 2
