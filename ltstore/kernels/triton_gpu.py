"""The kernels of a pass on a GPU: softmax in place, sums of rows, and their transpose, on torch tensors.

Triton compiles them for CUDA. With TRITON_INTERPRET=1 set before Triton is imported they run, slowly, on the CPU: so
they are tested where there is no GPU.

Softmax: a program takes a few rows, in tiles of at most 1,024 classes, and goes over them twice: maximum and sum
together (each tile rescales what is before it), then gradient and loss. All in float32, whatever the logits are. The
loss of every row is written and summed in float64 outside.

Sums of rows: one program adds up one row of the result, term after term. The way back is the same kernel on the
transposed terms, sorted once: it needs no atomic additions, so a pass has the same bits every time.

References
----------
Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from ltstore.kernels.contract import SoftmaxTerms
from ltstore.types import FloatArray, IntArray

_MOST_COLUMNS = 1024  # of a tile
_TILE = 2048  # logits of a tile: several rows where classes are few


@triton.jit
def _read(starts, offsets, columns, inside, n_classes, is_own, handicap):  # type: ignore[no-untyped-def]
    """Return a tile of z in float32, -inf outside."""
    x = tl.load(starts + columns[None, :], mask=inside, other=float("-inf")).to(tl.float32)
    more = tl.load(offsets + columns, mask=columns < n_classes, other=0.0)
    return x + more[None, :] - tl.where(is_own, handicap[:, None], 0.0)


@triton.jit
def _softmax_rows(  # type: ignore[no-untyped-def]
    logits,
    labels,
    offsets,
    margins,
    smoothing,
    weights,
    losses,
    n_rows,
    n_classes,
    stride,
    HAS_MARGINS: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = rows < n_rows
    label = tl.load(labels + rows, mask=real, other=0)
    weight = tl.full((ROWS,), 1.0, tl.float32)
    handicap = tl.zeros((ROWS,), tl.float32)
    if HAS_WEIGHTS:
        weight = tl.load(weights + rows, mask=real, other=0.0)
    if HAS_MARGINS:
        handicap = tl.load(margins + label, mask=real, other=0.0)
    starts = logits + rows.to(tl.int64)[:, None] * stride

    top = tl.full((ROWS,), float("-inf"), tl.float32)
    base = tl.zeros((ROWS,), tl.float32)  # top, or 0 where nothing was above -inf yet: -inf less -inf is NaN
    total = tl.zeros((ROWS,), tl.float32)
    own = tl.zeros((ROWS,), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    for first in range(0, n_classes, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = real[:, None] & (columns < n_classes)[None, :]
        is_own = columns[None, :] == label[:, None]
        z = _read(starts, offsets, columns, inside, n_classes, is_own, handicap)
        new_top = tl.maximum(top, tl.max(z, axis=1))  # of a NaN and a number the number: the sum keeps the NaN
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(z - base[:, None]), axis=1)
        own += tl.sum(tl.where(is_own, z, 0.0), axis=1)
        if HAS_SMOOTHING:
            mass += tl.sum(tl.load(smoothing + columns, mask=columns < n_classes, other=0.0), axis=0)
        top = new_top

    scale = weight / total
    loss = tl.log(total) + (top - own)
    for first in range(0, n_classes, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = real[:, None] & (columns < n_classes)[None, :]
        is_own = columns[None, :] == label[:, None]
        z = _read(starts, offsets, columns, inside, n_classes, is_own, handicap)
        target = tl.where(is_own, (1.0 - mass)[:, None], 0.0)
        if HAS_SMOOTHING:
            share = tl.load(smoothing + columns, mask=columns < n_classes, other=0.0)[None, :]
            target += share
            loss += tl.sum(tl.where(share > 0, share * (own[:, None] - z), 0.0), axis=1)
        gradient = tl.exp(z - base[:, None]) * scale[:, None] - weight[:, None] * target
        tl.store(starts + columns[None, :], gradient.to(logits.dtype.element_ty), mask=inside)
    tl.store(losses + rows, weight * loss, mask=real)


@triton.jit
def _sum_rows(  # type: ignore[no-untyped-def]
    starts,
    sources,
    factors,
    rows,
    targets,
    out,
    n_columns,
    rows_stride,
    out_stride,
    ADD: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    which = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < n_columns
    end = tl.load(starts + which + 1)
    at = out + tl.load(targets + which) * out_stride + columns
    total = tl.zeros((COLUMNS,), tl.float32)
    k = tl.load(starts + which)
    while k < end:
        row = tl.load(rows + tl.load(sources + k) * rows_stride + columns, mask=inside, other=0.0)
        total += tl.load(factors + k) * row
        k += 1
    if ADD:
        total += tl.load(at, mask=inside, other=0.0)
    tl.store(at, total, mask=inside)


def softmax_losses(
    logits: Any, labels: Any, terms: SoftmaxTerms, weights: Any | None = None, first: int = 0
) -> Any:
    """Overwrite C columns of `logits` with the gradient and return the (n,) float32 losses of the rows.

    The definition is that of `ltstore.kernels.contract`, on tensors of one device.

    Parameters
    ----------
    logits : (n, L) tensor, float32 or bfloat16, columns side by side
    labels : (n,) int64 tensor, in [0, C): not checked
    terms : SoftmaxTerms
        Of (C,) float32 tensors (`terms_on`).
    weights : (n,) float32 tensor, optional
    first : int

    Notes
    -----
    Nothing waits for the device. A logit is read twice and written once; 4 n bytes of memory.
    """
    n_rows, n_classes = len(logits), len(terms.offsets)
    losses = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    if n_rows == 0 or n_classes == 0:
        return losses.zero_()
    own = logits[:, first : first + n_classes]
    columns = min(_MOST_COLUMNS, triton.next_power_of_2(n_classes))
    rows = min(max(1, _TILE // columns), 32)
    missing = terms.offsets  # never read: whatever is not there needs some pointer
    _softmax_rows[(triton.cdiv(n_rows, rows),)](
        own,
        labels,
        terms.offsets,
        missing if terms.margins is None else terms.margins,
        missing if terms.smoothing is None else terms.smoothing,
        missing if weights is None else weights,
        losses,
        n_rows,
        n_classes,
        own.stride(0),
        HAS_MARGINS=terms.margins is not None,
        HAS_SMOOTHING=terms.smoothing is not None,
        HAS_WEIGHTS=weights is not None,
        ROWS=rows,
        COLUMNS=columns,
    )
    return losses


def terms_on(device: Any, terms: SoftmaxTerms) -> SoftmaxTerms:
    """Return a copy of the terms whose arrays are tensors of a device."""

    def sent(array: FloatArray | None) -> Any:
        return None if array is None else torch.tensor(array, device=device)

    return SoftmaxTerms(sent(terms.offsets), sent(terms.margins), sent(terms.smoothing))


class RowSums:
    """Rows that are sums of a few atoms, on a device: `ltstore.kernels.combine` on tensors.

    Parameters
    ----------
    indices : (n, t) int64
        In [0, n_atoms).
    factors : (n, t) float32
        A term of factor 0 is none.
    n_atoms : int
    device : torch device

    Notes
    -----
    24 bytes a term on the device, and 16 a row and an atom that has any. The terms are sorted by atom once.
    """

    def __init__(self, indices: IntArray, factors: FloatArray, n_atoms: int, device: Any) -> None:
        from scipy.sparse import csr_array

        n, n_terms = indices.shape
        starts = np.arange(0, n * n_terms + 1, max(n_terms, 1))[: n + 1] if n_terms else np.zeros(n + 1, int)
        matrix = csr_array((factors.ravel(), indices.ravel(), starts), shape=(n, n_atoms), copy=True)
        matrix.eliminate_zeros()
        back = matrix.T.tocsr()  # within an atom by row: the order in which they are added
        used = np.flatnonzero(np.diff(back.indptr))
        self._sums = _Terms.on(device, matrix.indptr, matrix.indices, matrix.data, np.arange(n))
        self._back = _Terms.on(
            device, np.append(back.indptr[used], back.indptr[-1]), back.indices, back.data, used
        )

    def combine(self, atoms: Any, out: Any) -> None:
        """Overwrite (n, d) `out` with the sums of the rows of (n_atoms, d) `atoms`, float32."""
        self._sums.add_up(atoms, out, add=False)

    def scatter(self, rows: Any, atoms: Any) -> None:
        """Add to `atoms`, in place, factors[i, t] rows[i] at indices[i, t]; the same bits every time."""
        self._back.add_up(rows, atoms, add=True)


@dataclass(frozen=True)
class _Terms:
    """out[targets[i]] is, or grows by, the sum of factors[k] rows[sources[k]] over starts[i] <= k < starts[i + 1]."""

    starts: Any
    sources: Any
    factors: Any
    targets: Any

    @classmethod
    def on(cls, device: Any, starts: Any, sources: Any, factors: FloatArray, targets: IntArray) -> _Terms:
        whole = (torch.tensor(np.asarray(one, np.int64), device=device) for one in (starts, sources, targets))
        first, second, third = whole
        return cls(first, second, torch.tensor(factors, device=device), third)

    def add_up(self, rows: Any, out: Any, *, add: bool) -> None:
        n, n_columns = len(self.targets), out.shape[1]
        if n == 0 or n_columns == 0:
            return
        columns = min(_MOST_COLUMNS, triton.next_power_of_2(n_columns))
        _sum_rows[(n, triton.cdiv(n_columns, columns))](
            self.starts,
            self.sources,
            self.factors,
            rows,
            self.targets,
            out,
            n_columns,
            rows.stride(0),
            out.stride(0),
            ADD=add,
            COLUMNS=columns,
        )


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def softmax_gradient(
    logits: FloatArray,
    labels: IntArray,
    terms: SoftmaxTerms,
    weights: FloatArray | None,
    first: int = 0,
) -> float:
    """Do what `ltstore.kernels.contract` says for arrays of the host, which travel to the device and back.

    Notes
    -----
    For comparisons and tests: the way there and back takes longer than the Numba backend.
    """
    device = "cpu" if interpreted() else "cuda"
    own = torch.tensor(logits[:, first : first + len(terms.offsets)], device=device)
    losses = softmax_losses(
        own,
        torch.tensor(labels, device=device),
        terms_on(device, terms),
        None if weights is None else torch.tensor(weights, device=device),
    )
    logits[:, first : first + len(terms.offsets)] = own.cpu().numpy()
    return float(losses.sum(dtype=torch.float64))
