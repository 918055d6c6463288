"""Standard normals by counter, compiled: Philox words, then Box and Muller with polynomials.

Nothing but IEEE additions, multiplications and square roots, in the order that is written (no fast-math flag), so the
same key gives the same bits on every machine and in every block. Every loop over the features vectorises: four
words of a counter step go to four quarters of the row, not side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ltstore.kernels.bits import as_float32, as_int32
from ltstore.types import FloatArray

_MASK, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

# Minimax on the ranges below, by iterated weighted least squares; the errors are those in exact arithmetic.
# sin(pi y) = y S(y^2) and cos(pi y) = K(y^2), |y| <= 1/2, whose doubles are the angles: 1.4e-8
_S0, _S1, _S2, _S3, _S4 = map(np.float32, (3.14159264, -5.16771009, 2.55007766, -0.598292159, 0.0776594045))
_K1, _K2, _K3, _K4, _K5 = map(np.float32, (-4.93480214, 4.05870916, -1.33521206, 0.234937559, -0.0243967157))
# log(1 + f) = f - f^2 / 2 + f^3 L(f), 1 + f in [sqrt(1/2), sqrt(2)): relative 6e-9
_L0, _L1, _L2, _L3 = map(np.float32, (0.333333316, -0.250008197, 0.200012303, -0.166233984))
_L4, _L5, _L6, _L7 = map(np.float32, (0.142017334, -0.131598149, 0.127615242, -0.0763527064))
_LOG_2 = np.float32(0.693147181)
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
_MANTISSA = np.int32(23)
_ZERO, _HALF_ONE, _ONE, _TWO = map(np.float32, (0.0, 0.5, 1.0, 2.0))
_TOGETHER = 4  # rows
_TO_OPEN, _TO_TURN = np.float32(2.0**-31), np.float32(2.0**-32)


@njit(cache=True, nogil=True, inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return four words of Philox4x32-10; all of them uint64 below 2**32, which spares Numba's promotions."""
    for _ in range(10):
        p0 = c0 * _MULTIPLIER_0
        p1 = c2 * _MULTIPLIER_1
        c0 = (p1 >> _HALF) ^ c1 ^ k0
        c2 = (p0 >> _HALF) ^ c3 ^ k1
        c1 = p1 & _MASK
        c3 = p0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@njit(cache=True, nogil=True, inline="always")
def _two_normals(a: Any, b: Any) -> Any:
    """Return two normals of two words: radius of one, angle of the other."""
    u = (np.float32(np.int32(a >> np.uint64(1))) + _HALF_ONE) * _TO_OPEN
    bits = as_int32(u)
    exponent = np.int32(np.int32(bits - _ROOT_HALF) >> _MANTISSA)
    f = as_float32(np.int32(bits - np.int32(exponent << _MANTISSA))) - _ONE
    tail = _L0 + f * (_L1 + f * (_L2 + f * (_L3 + f * (_L4 + f * (_L5 + f * (_L6 + f * _L7))))))
    log = np.float32(exponent) * _LOG_2 + (f + f * f * (f * tail - _HALF_ONE))
    radius = np.sqrt(max(-_TWO * log, _ZERO))
    y = np.float32(np.int32(b)) * _TO_TURN
    z = y * y
    sine = y * (_S0 + z * (_S1 + z * (_S2 + z * (_S3 + z * _S4))))
    cosine = _ONE + z * (_K1 + z * (_K2 + z * (_K3 + z * (_K4 + z * _K5))))
    return radius * (_TWO * sine * cosine), radius * (_ONE - _TWO * sine * sine)


@njit(cache=True, nogil=True)
def _fill(number: Any, k0: Any, k1: Any, word: Any, out: FloatArray) -> None:
    """Overwrite `out`, of a multiple of four, with the normals of a row."""
    quarter = out.shape[0] // 4
    low, high = number & _MASK, number >> _HALF
    for j in range(quarter):
        a, b, c, d = _philox(np.uint64(j), low, high, word, k0, k1)
        z0, z1 = _two_normals(a, b)
        z2, z3 = _two_normals(c, d)
        out[j] = z0
        out[quarter + j] = z1
        out[2 * quarter + j] = z2
        out[3 * quarter + j] = z3


@njit(cache=True, nogil=True)
def fill_rows(start: int, k0: int, k1: int, word: int, out: FloatArray) -> None:
    """Overwrite (n, n_draws) with rows start .. start + n - 1."""
    n, n_draws = out.shape
    row = np.empty(-(-n_draws // 4) * 4, np.float32)
    for i in range(n):
        _fill(np.uint64(start + i), np.uint64(k0), np.uint64(k1), np.uint64(word), row)
        for j in range(n_draws):
            out[i, j] = row[j]


@njit(cache=True, nogil=True)
def gauss_rows(
    start: int,
    k0: int,
    k1: int,
    word: int,
    scale: float,
    shift: FloatArray,
    factor: FloatArray,
    deviation: FloatArray,
    out: FloatArray,
) -> None:
    """Put scale * x + shift + factor' e[:r] + deviation * e[r:] for each row x of (n, D), e its r + D normals."""
    rank, n_features = factor.shape
    n = out.shape[0]
    width = -(-(rank + n_features) // 4) * 4
    e = np.empty((_TOGETHER, width), np.float32)
    for first in range(0, n, _TOGETHER):
        together = min(_TOGETHER, n - first)
        for i in range(together):
            _fill(np.uint64(start + first + i), np.uint64(k0), np.uint64(k1), np.uint64(word), e[i])
            row, noise = out[first + i], e[i, rank:]
            for j in range(n_features):
                row[j] = scale * row[j] + shift[j] + deviation[j] * noise[j]
        if together == _TOGETHER:
            _add_products(e, factor, out[first], out[first + 1], out[first + 2], out[first + 3])
        else:
            for i in range(together):
                _add_product(e[i], factor, out[first + i])


@njit(cache=True, nogil=True)
def _add_product(e: FloatArray, factor: FloatArray, row: FloatArray) -> None:
    """Add factor' e[:r] to a row: four terms at a time, then one by one."""
    rank, n_features = factor.shape
    whole = rank - rank % 4
    for k in range(0, whole, 4):
        e0, e1, e2, e3 = e[k], e[k + 1], e[k + 2], e[k + 3]
        f0, f1, f2, f3 = factor[k], factor[k + 1], factor[k + 2], factor[k + 3]
        for j in range(n_features):
            row[j] += ((e0 * f0[j] + e1 * f1[j]) + e2 * f2[j]) + e3 * f3[j]
    for k in range(whole, rank):
        f = factor[k]
        for j in range(n_features):
            row[j] += e[k] * f[j]


@njit(cache=True, nogil=True)
def _add_products(
    e: FloatArray, factor: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray
) -> None:
    """Do what `_add_product` does, to the bit, for four rows: a factor is read once for all of them."""
    rank, n_features = factor.shape
    whole = rank - rank % 4
    for k in range(0, whole, 4):
        f0, f1, f2, f3 = factor[k], factor[k + 1], factor[k + 2], factor[k + 3]
        a0, a1, a2, a3 = e[0, k], e[0, k + 1], e[0, k + 2], e[0, k + 3]
        b0, b1, b2, b3 = e[1, k], e[1, k + 1], e[1, k + 2], e[1, k + 3]
        c0, c1, c2, c3 = e[2, k], e[2, k + 1], e[2, k + 2], e[2, k + 3]
        d0, d1, d2, d3 = e[3, k], e[3, k + 1], e[3, k + 2], e[3, k + 3]
        for j in range(n_features):
            g0, g1, g2, g3 = f0[j], f1[j], f2[j], f3[j]
            a[j] += ((a0 * g0 + a1 * g1) + a2 * g2) + a3 * g3
            b[j] += ((b0 * g0 + b1 * g1) + b2 * g2) + b3 * g3
            c[j] += ((c0 * g0 + c1 * g1) + c2 * g2) + c3 * g3
            d[j] += ((d0 * g0 + d1 * g1) + d2 * g2) + d3 * g3
    for k in range(whole, rank):
        f = factor[k]
        for j in range(n_features):
            a[j] += e[0, k] * f[j]
            b[j] += e[1, k] * f[j]
            c[j] += e[2, k] * f[j]
            d[j] += e[3, k] * f[j]
