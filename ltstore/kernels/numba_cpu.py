"""The softmax kernel on a CPU core: one compiled pass over the logits, in place.

What makes it fast is that every loop over the classes vectorises: the maximum is LLVM's `maxnum` (Numba's own
`max` branches for NaN), the exponential is a polynomial (there is no vector `exp` in LLVM), and only the sum
may be reassociated. Only that: the exponential rounds with a "magic" constant that reassociation would
delete, and flags that assume "no NaN" would hide NaN from the solver.

It runs without the GIL on the calling thread. At C = 100, D = 768 it is one to two percent of the two matrix
products around it, so a thread pool of its own would buy nothing.
"""

# ruff: noqa: ARG001  (the arguments of an intrinsic are fixed by Numba)

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from ltstore.kernels.bits import as_float32, as_int32
from ltstore.kernels.contract import SoftmaxTerms
from ltstore.types import FloatArray, IntArray

_LOG2_E = np.float32(1.4426950408889634)
_ROUND = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to the nearest integer, kept in the low bits
_LOWEST = np.float32(-126.0)  # the smallest exponent of a normal float32
_BIAS = np.int32(127)
_SHIFT = np.int32(23)
# 2**f on [-1/2, 1/2]: minimax, relative error 1e-7
_C1 = np.float32(0.693147182)
_C2 = np.float32(0.240226462)
_C3 = np.float32(0.0555032872)
_C4 = np.float32(0.00961806923)
_C5 = np.float32(0.00134004477)
_C6 = np.float32(0.000154697)


@intrinsic
def _maxnum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two float32; of a NaN and a number, the number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        single = ir.FloatType()
        function = builder.module.declare_intrinsic(
            "llvm.maxnum", [single], ir.FunctionType(single, [single, single])
        )
        return builder.call(function, arguments, fastmath=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@njit(fastmath={"contract"}, cache=True, nogil=True)
def _exp(x: Any) -> Any:
    """Return exp(x) for x <= 0 in float32: 2**k * 2**f; under exp(-87) it stays at 1e-38, and NaN stays NaN."""
    t = x * _LOG2_E
    t = _LOWEST if t < _LOWEST else t
    shifted = t + _ROUND
    f = t - (shifted - _ROUND)
    power = np.int32(np.int32(as_int32(shifted) + _BIAS) << _SHIFT)
    p = np.float32(1.0) + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    return p * as_float32(power)


@njit(fastmath={"contract", "reassoc"}, cache=True, nogil=True)
def _one_row(row: FloatArray, offsets: FloatArray, label: int, weight: float) -> Any:
    """Overwrite one row of logits with its gradient and return its weighted loss."""
    n_classes = row.shape[0]
    top = np.float32(-np.inf)
    for c in range(n_classes):
        z = row[c] + offsets[c]
        row[c] = z
        top = _maxnum(top, z)
    own = row[label]
    total = np.float32(0.0)
    for c in range(n_classes):
        e = _exp(row[c] - top)
        row[c] = e
        total += e
    scale = np.float32(weight / total)
    for c in range(n_classes):
        row[c] *= scale
    row[label] -= weight
    return weight * (np.log(np.float64(total)) + (np.float64(top) - np.float64(own)))


@njit(fastmath={"contract", "reassoc"}, cache=True, nogil=True)
def _one_smooth_row(
    row: FloatArray, offsets: FloatArray, smoothing: FloatArray, label: int, weight: float
) -> Any:
    """Do the same against a smoothed target: its loss is larger by sum_c smoothing[c] (z[label] - z[c])."""
    own = row[label] + offsets[label]
    more = np.float32(0.0)
    for c in range(row.shape[0]):
        more += smoothing[c] * (own - (row[c] + offsets[c]))
    loss = _one_row(row, offsets, label, weight)
    mass = np.float32(0.0)
    for c in range(row.shape[0]):
        row[c] -= weight * smoothing[c]
        mass += smoothing[c]
    row[label] += weight * mass
    return loss + weight * np.float64(more)


@njit(cache=True, nogil=True)
def _all_rows(
    logits: FloatArray,
    labels: IntArray,
    offsets: FloatArray,
    margins: FloatArray,
    smoothing: FloatArray,
    weights: FloatArray,
    first: int,
) -> float:
    loss = 0.0
    weighted, smooth = weights.shape[0] > 0, smoothing.shape[0] > 0
    last = first + offsets.shape[0]
    if margins.shape[0] > 0:
        for i in range(logits.shape[0]):
            logits[i, first + labels[i]] -= margins[labels[i]]
    for i in range(logits.shape[0]):
        row = logits[i, first:last]
        weight = weights[i] if weighted else np.float32(1.0)
        if smooth:
            loss += _one_smooth_row(row, offsets, smoothing, labels[i], weight)
        else:
            loss += _one_row(row, offsets, labels[i], weight)
    return loss


_NONE = np.empty(0, np.float32)


def softmax_gradient(
    logits: FloatArray,
    labels: IntArray,
    terms: SoftmaxTerms,
    weights: FloatArray | None,
    first: int = 0,
) -> float:
    """Overwrite C columns of `logits` with the gradient and return the summed loss (see `ltstore.kernels.contract`).

    Notes
    -----
    No memory beyond its arguments. The sum over classes is float32 in the order of the vector lanes, the sum
    over rows float64. The first call in an environment compiles for about two seconds, then it is cached.
    """
    margins, smoothing = (_NONE if array is None else array for array in (terms.margins, terms.smoothing))
    return float(
        _all_rows(
            logits,
            labels,
            terms.offsets,
            margins,
            smoothing,
            _NONE if weights is None else weights,
            first,
        )
    )
