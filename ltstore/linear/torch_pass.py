"""A pass in torch: the twin of `ltstore.linear.objective.PassSums` for a GPU, and for bfloat16 on the CPU.

The same sums in the same steps: logits and gradient as matrix products, softmax in place between them. On a GPU the
softmax and the sums of rows are Triton's (`ltstore.kernels.triton_gpu`), on the CPU those of the objective's backend on
the memory of the tensors. Products of a block are float32, sums over blocks float64; nothing waits for the device
before the end of the pass. Every step has one order, so a pass has the same bits every time.

Precision is that of the factors of the products: float32, tf32 (10 bits of mantissa, on a GPU), or bf16 (7 bits: copies
of the rows, of the weights, and of the gradient of the logits). A GPU gives products of bf16 in float32, the CPU rounds
them to bf16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from ltstore.errors import DataError
from ltstore.kernels.combine import combine_rows, scatter_rows
from ltstore.linear.device_rows import DeviceRows
from ltstore.linear.objective import HeadSums, HeadTotals, PassSums, Totals, non_finite
from ltstore.stream import Block, CombinedRows, TrainingStream
from ltstore.types import FloatArray, IntArray

_LOGITS_BYTES = {"cuda": 32 << 20, "cpu": 6 << 20}
"""Of a part of a block: a cache, the second of a GPU or the last of a CPU, holds them and the rows."""
_LEAST_ROWS, _MOST_ROWS = 256, 16384  # of a part
_SYNTHETIC_ROWS = 8192  # whose sums are formed at once


class TorchEvaluator:
    """Makes passes on a device, and keeps there what is the same in every pass.

    Parameters
    ----------
    device : str
        "cpu" or "cuda:0", ...
    precision : {"float32", "tf32", "bf16"}
    triton : bool, optional
        Whether kernels are Triton's. Default: on a GPU.
    limit_bytes : int, optional
        Of `ltstore.linear.device_rows.DeviceRows`.
    """

    def __init__(
        self,
        device: str,
        precision: str = "float32",
        *,
        triton: bool | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.triton = self.device.type == "cuda" if triton is None else triton
        self._products = "high" if precision == "tf32" else "highest"
        self._limit_bytes = limit_bytes
        self._rows: DeviceRows | None = None
        self._synthetic: tuple[CombinedRows, list[_Synthetic]] | None = None

    @property
    def rows_are(self) -> str:
        """What becomes of the rows, in words for the record."""
        if self._rows is None:
            return "not read yet"
        return "kept on the device" if self._rows.kept else "copied to the device every pass"

    def __call__(self, stream: TrainingStream, sums: PassSums) -> float:
        """Do what `ltstore.linear.objective.PassSums.add_stream` says."""
        with self._setting():
            here = _TorchSums(sums.heads, sums.weights, self)
            combined = stream.combined(sums.n_columns)
            rows = self._rows_of(stream, real_only=combined is not None)
            waited = -rows.waited
            own = combined is not None and stream.real_cached  # then the real rows are the first atoms
            if not own:
                for block in rows.blocks(here.part):
                    here.add(*block)
            if combined is not None:
                here.add_combined(combined, rows, self._synthetic_of(combined), own=own)
            sums.add_totals(here.totals(stream))
        return waited + rows.waited

    def product(self, a: Any, b: Any) -> Any:
        """Return the float32 matrix product; both factors are first rounded to the dtype of the rows."""
        a, b = a.to(self.dtype), b.to(self.dtype)
        if self.dtype == torch.float32:
            return torch.mm(a, b)
        if self.device.type == "cuda":
            return torch.mm(a, b, out_dtype=torch.float32)
        return torch.mm(a, b).float()

    def tensor(self, array: FloatArray | IntArray) -> Any:
        """Return a copy of an array on the device."""
        return torch.tensor(array, device=self.device)

    @contextmanager
    def _setting(self) -> Iterator[None]:
        """Make this device the current one, and products as exact as asked for."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self._products)
        try:
            with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _rows_of(self, stream: TrainingStream, *, real_only: bool) -> DeviceRows:
        rows = self._rows
        if rows is None or rows.stream is not stream or rows.real_only != real_only:
            self._rows = rows = None  # let go first: both need not fit
            self._rows = rows = DeviceRows(
                stream, self.device, self.dtype, real_only=real_only, limit_bytes=self._limit_bytes
            )
        return rows

    def _synthetic_of(self, combined: CombinedRows) -> list[_Synthetic]:
        if self._synthetic is None or self._synthetic[0] is not combined:
            self._synthetic = (
                combined,
                [
                    _Synthetic(combined, slice(start, start + _SYNTHETIC_ROWS), self)
                    for start in range(0, len(combined.labels), _SYNTHETIC_ROWS)
                ],
            )
        return self._synthetic[1]


class _TorchSums:
    """What a pass adds up on the device.

    Parameters
    ----------
    heads, weights
        Of the `ltstore.linear.objective.PassSums` that gets the totals.
    place : TorchEvaluator

    Notes
    -----
    Memory on the device: 16 K C D bytes, and the logits of a part, at most 32 MiB, on a CPU 6 (or those of 256 rows).
    """

    def __init__(self, heads: Sequence[HeadSums], weights: FloatArray, place: TorchEvaluator) -> None:
        starts = np.cumsum([0, *(head.n_classes for head in heads)]).tolist()
        self._place = place
        self._heads = [_TorchHead(head, start, place) for head, start in zip(heads, starts, strict=False)]
        self._weights = place.tensor(weights).to(place.dtype)
        self._grad_weight = torch.zeros(weights.shape, dtype=torch.float64, device=place.device)
        self._grad_bias = torch.zeros(len(weights), dtype=torch.float64, device=place.device)
        self.n_columns = len(weights)
        self.part = min(max(_LEAST_ROWS, _LOGITS_BYTES[place.device.type] // (4 * self.n_columns)), _MOST_ROWS)

    def add(self, X: Any, labels: Any, weights: Any) -> None:
        """Add rows."""
        logits = self._place.product(X, self._weights.T)
        self._softmax(logits, labels, weights)
        self._grad_weight += self._place.product(logits.T, X)

    def add_combined(
        self, combined: CombinedRows, rows: DeviceRows, synthetic: list[_Synthetic], *, own: bool
    ) -> None:
        """Add synthetic rows that are sums of atoms, and, where they are the `own` rows, the real rows among the atoms.

        Notes
        -----
        The atoms are gone through twice. Memory on the device: their logits and the gradient, 8 bytes each.
        """
        vectors = self._place.tensor(combined.vectors).to(self._place.dtype)
        shape = (combined.n_atoms, self.n_columns)
        logits = torch.empty(shape, dtype=torch.float32, device=self._place.device)
        gradient = torch.zeros_like(logits)
        at = 0
        for X, labels, weights in self._atoms(combined, rows, own):
            some = slice(at, at + len(X))
            logits[some] = self._place.product(X, self._weights.T)
            if own:
                gradient[some] = logits[some]
                self._softmax(gradient[some], labels, weights)
            at += len(X)
        logits[at:] = self._place.product(vectors, self._weights.T)
        for one in synthetic:
            sums = torch.empty((len(one.labels), self.n_columns), dtype=torch.float32, device=logits.device)
            one.sums.combine(logits, sums)
            self._softmax(sums, one.labels, None)
            one.sums.scatter(sums, gradient)
        at = 0
        for X, _, _ in self._atoms(combined, rows, own):
            self._grad_weight += self._place.product(gradient[at : at + len(X)].T, X)
            at += len(X)
        self._grad_weight += self._place.product(gradient[at:].T, vectors)

    def totals(self, stream: TrainingStream) -> Totals:
        """Return the sums on the host.

        Raises
        ------
        DataError
            A loss is not finite.
        """
        heads = tuple(head.totals(stream) for head in self._heads)
        return Totals(self._grad_weight.cpu().numpy(), self._grad_bias.cpu().numpy(), heads)

    def _softmax(self, logits: Any, labels: Any, weights: Any) -> None:
        """Add each head's loss; the logits become the gradient with respect to them."""
        for head in self._heads:
            head.softmax(logits, labels, weights)
        # a product: on a CPU a sum in float64 takes a third of the time of the other two
        self._grad_bias += torch.mv(logits.T, torch.ones(len(logits), device=logits.device))

    def _atoms(self, combined: CombinedRows, rows: DeviceRows, own: bool) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the real rows that are the first atoms."""
        if own:
            yield from rows.blocks(self.part)
        else:
            yield from rows.feed(_blocks(combined.real_rows(), self.part))


class _TorchHead:
    """What one objective adds up at its point, in its columns of the logits from `first` on."""

    def __init__(self, sums: HeadSums, first: int, place: TorchEvaluator) -> None:
        self.sums, self._first, self._place = sums, first, place
        self._loss: Any = 0.0
        self._total: Any = 0.0
        weights = sums.objective.class_weights
        self._class_weights = None if weights is None else place.tensor(weights)
        self._terms = sums.terms
        if place.triton:
            from ltstore.kernels.triton_gpu import terms_on

            self._terms = terms_on(place.device, sums.terms)
        self._between = self._upstream = None
        if sums.between is not None:
            self._between = place.tensor(sums.between)
            self._upstream = torch.zeros(sums.between.shape, dtype=torch.float64, device=place.device)
            self._class_mass = torch.zeros(sums.n_classes, dtype=torch.float64, device=place.device)

    def softmax(self, logits: Any, labels: Any, weights: Any) -> None:
        """Add the loss of the rows; this head's columns of the logits become its gradient."""
        own = logits[:, self._first : self._first + self.sums.n_classes]
        if self._class_weights is not None:
            of_class = self._class_weights[labels]
            weights = of_class if weights is None else of_class * weights
        if self._between is not None:
            own += self._between[labels]
        self._loss += self._losses(logits, labels, weights)
        self._total += len(labels) if weights is None else weights.sum(dtype=torch.float64)
        if self._upstream is not None:
            # A sum by class as a product: unlike additions in the order of arrival it has the same bits every time.
            of_class = torch.nn.functional.one_hot(labels, self.sums.n_classes).T.float()
            self._upstream += torch.mm(of_class, own)
            self._class_mass += (of_class if weights is None else of_class * weights).sum(
                1, dtype=torch.float64
            )

    def totals(self, stream: TrainingStream) -> HeadTotals:
        """Return the sums on the host; DataError where the loss is not finite."""
        loss, total = float(self._loss), float(self._total)
        if not np.isfinite(loss):
            raise DataError(_reason(stream, self.sums))
        if self._upstream is None:
            return HeadTotals(loss, total, None, None)
        return HeadTotals(loss, total, self._upstream.cpu().numpy(), self._class_mass.cpu().numpy())

    def _losses(self, logits: Any, labels: Any, weights: Any) -> Any:
        """Return the summed loss, a number or a tensor of one float64."""
        if self._place.triton:
            from ltstore.kernels.triton_gpu import softmax_losses

            return softmax_losses(logits, labels, self._terms, weights, self._first).sum(dtype=torch.float64)
        weight = None if weights is None else weights.numpy()
        return self.sums.objective.kernel(logits.numpy(), labels.numpy(), self._terms, weight, self._first)


class _Synthetic:
    """Some of the synthetic rows of a pass: their sums, and (n,) labels on the device."""

    def __init__(self, combined: CombinedRows, some: slice, place: TorchEvaluator) -> None:
        terms = combined.indices[some], combined.factors[some]
        self.labels = place.tensor(combined.labels[some])
        if place.triton:
            from ltstore.kernels.triton_gpu import RowSums

            self.sums: Any = RowSums(*terms, combined.n_atoms, place.device)
        else:
            self.sums = _HostSums(*terms)


class _HostSums:
    """`ltstore.kernels.triton_gpu.RowSums` on the CPU."""

    def __init__(self, indices: IntArray, factors: FloatArray) -> None:
        self._terms = indices, factors

    def combine(self, atoms: Any, out: Any) -> None:
        combine_rows(*self._terms, atoms.numpy(), out.numpy())

    def scatter(self, rows: Any, atoms: Any) -> None:
        scatter_rows(*self._terms, rows.numpy(), atoms.numpy())


def _blocks(X: FloatArray, most: int) -> Iterator[Block]:
    """Yield rows without labels."""
    for start in range(0, len(X), most):
        part = X[start : start + most]
        yield part, np.zeros(len(part), np.int64), None


def _reason(stream: TrainingStream, sums: HeadSums) -> str:
    """Say why the loss is not finite, by the first block that has such rows or else the largest ones."""
    largest, where = -1.0, np.zeros((1, 1), np.float32)
    for X, _, _ in stream:
        size = float(np.abs(X).max())
        if not np.isfinite(size):
            return non_finite(X, sums.weight)
        if size > largest:
            largest, where = size, X.copy()
    return non_finite(where, sums.weight)
