"""Compiled loops over rows that lie in memory as they are stored: gather, widen, scale (see `ltstore.kernels.rows`).

One pass a row: it is fetched, converted and scaled while it is in the first cache. The hardware converts half
precision (F16C, or any ARM), so this module must only be imported where `ltstore.kernels.rows` has looked for that.
Loops take addresses, because Numba compiles anew for every kind of array (read-only, strided, mapped), and because rows
of many mapped files are gathered in one call. They run without the GIL on the calling thread: one thread moves 30 to
50 GB/s here, and the callers' own threads overlap.
"""

# ruff: noqa: ARG001  (the arguments of an intrinsic are fixed by Numba)

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ltstore.types import FloatArray, IntArray

LANES = 32  # of the sum of squares: as many chains of additions as hide their latency
_AHEAD = 2  # rows that are fetched before they are needed
_LINE = 64
_FETCHED = 4096  # bytes of a row that are fetched ahead: the hardware sees the rest coming
_LOW, _HIGH = 1e-70, 1e70  # squared norms whose root and its inverse are normal float32


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def _fetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; never faults."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, second_cache, data = (ir.Constant(word, value) for value in (0, 2, 1))
        builder.call(function, [_pointer(builder, arguments[0], ir.IntType(8)), read, second_cache, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _half_at(typing_context: Any, address: Any, position: Any) -> Any:
    """Return the float16 at a position behind an address, as float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.gep(_pointer(builder, arguments[0], ir.HalfType()), [arguments[1]])
        return builder.fpext(builder.load(pointer, align=2), ir.FloatType())

    return types.float32(types.int64, types.int64), generate


@intrinsic
def _put_half(typing_context: Any, address: Any, position: Any, value: Any) -> Any:
    """Put a float32 as float16 at a position behind an address: the nearest one, even among equals."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.gep(_pointer(builder, arguments[0], ir.HalfType()), [arguments[1]])
        builder.store(builder.fptrunc(arguments[2], ir.HalfType()), pointer, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), generate


@intrinsic
def _single_at(typing_context: Any, address: Any, position: Any) -> Any:
    """Return the float32 at a position behind an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.gep(_pointer(builder, arguments[0], ir.FloatType()), [arguments[1]])
        return builder.load(pointer, align=4)

    return types.float32(types.int64, types.int64), generate


@intrinsic
def _copy(typing_context: Any, target: Any, source: Any, n_bytes: Any) -> Any:
    """Copy bytes from one address to another; the two do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (_pointer(builder, each, ir.IntType(8)) for each in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _sum_of_squares(typing_context: Any, address: Any, n: Any) -> Any:
    """Return the sum of squares of n float32, n a multiple of LANES: lane by lane, then halves added up.

    Squares of float32 are exact in float64, and the order of additions is written out, so the sum is the same
    on every machine and for NumPy.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        single, double = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.DoubleType(), LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(double, [0.0] * LANES))
        start, step = arguments[1].type(0), arguments[1].type(LANES)
        base = _pointer(builder, arguments[0], ir.FloatType())
        with cgutils.for_range_slice(builder, start, arguments[1], step, arguments[1].type) as (at, _):
            pointer = builder.bitcast(builder.gep(base, [at]), single.as_pointer())
            values = builder.fpext(builder.load(pointer, align=4), double)
            builder.store(builder.fadd(builder.load(total), builder.fmul(values, values)), total)
        sums, width = builder.load(total), LANES
        while width > 1:
            width //= 2
            low, high = (
                builder.shuffle_vector(
                    sums,
                    sums,
                    ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width))),
                )
                for start in (0, width)
            )
            sums = builder.fadd(low, high)
        return builder.extract_element(sums, ir.IntType(32)(0))

    return types.float64(types.int64, types.int64), generate


@njit(cache=True, nogil=True)
def _scale(row: FloatArray, address: int) -> None:
    """Scale a row to unit norm; zeros stay. `address` is that of the row."""
    n = row.shape[0]
    whole = n - n % LANES
    squares = _sum_of_squares(address, whole)
    for j in range(whole, n):
        x = np.float64(row[j])
        squares += x * x
    if _LOW < squares < _HIGH:
        factor = np.float32(1.0 / np.sqrt(squares))
        for j in range(n):
            row[j] *= factor
    elif squares != 0.0:
        norm = np.sqrt(squares)
        for j in range(n):
            row[j] = np.float32(np.float64(row[j]) / norm)


@njit(cache=True, nogil=True)
def scale_rows(X: FloatArray, address: int) -> None:
    """Scale each row of a C-contiguous (n, D) float32 array at `address` to unit norm."""
    for i in range(X.shape[0]):
        _scale(X[i], address + 4 * i * X.shape[1])


@njit(cache=True, nogil=True)
def widen_rows(source: int, out: FloatArray, address: int, unit: bool) -> None:
    """Convert float16 rows that lie end to end at `source` to float32, and scale them where `unit`."""
    n, n_features = out.shape
    for i in range(n):
        row, start = out[i], source + 2 * i * n_features
        for j in range(n_features):
            row[j] = _half_at(start, j)
        if unit:
            _scale(row, address + 4 * i * n_features)


@njit(cache=True, nogil=True)
def narrow_values(source: int, target: int, n: int) -> None:
    """Convert n float32 that lie end to end to float16."""
    for j in range(n):
        _put_half(target, j, _single_at(source, j))


@njit(cache=True, nogil=True)
def locate_rows(
    row_ids: IntArray,
    bases: IntArray,
    limits: IntArray,
    first_view: int,
    rows_per_view: int,
    chunk_rows: int,
    chunk_bytes: int,
    row_bytes: int,
    addresses: IntArray,
) -> int:
    """Fill in the address of each row; return -1, or the position of the first row that lies in no view."""
    last, room = -2, 0  # the row before, and how many of its chunk are still to come
    for i in range(row_ids.shape[0]):
        if room > 0 and row_ids[i] == last + 1:
            addresses[i] = addresses[i - 1] + row_bytes
            last += 1
            room -= 1
            continue
        view = row_ids[i] // rows_per_view
        local = row_ids[i] - view * rows_per_view
        view -= first_view
        if view < 0 or view >= bases.shape[0] or local >= limits[view]:
            return i
        chunk = local // chunk_rows
        within = local - chunk * chunk_rows
        addresses[i] = bases[view] + chunk * chunk_bytes + within * row_bytes
        last, room = row_ids[i], chunk_rows - within - 1
    return -1


@njit(cache=True, nogil=True)
def _fetch_row(address: int, n_bytes: int) -> None:
    for at in range(0, min(n_bytes, _FETCHED), _LINE):
        _fetch(address + at)


@njit(cache=True, nogil=True)
def gather_halves(addresses: IntArray, out: FloatArray, address: int, unit: bool) -> None:
    """Copy float16 rows from anywhere into float32 rows, scaled where `unit`."""
    n, n_features = out.shape
    for i in range(n):
        if i + _AHEAD < n:
            _fetch_row(addresses[i + _AHEAD], 2 * n_features)
        row, source = out[i], addresses[i]
        for j in range(n_features):
            row[j] = _half_at(source, j)
        if unit:
            _scale(row, address + 4 * i * n_features)


@njit(cache=True, nogil=True)
def gather_singles(addresses: IntArray, out: FloatArray, address: int, unit: bool) -> None:
    """Copy float32 rows from anywhere into float32 rows, scaled where `unit`."""
    n, n_features = out.shape
    for i in range(n):
        if i + _AHEAD < n:
            _fetch_row(addresses[i + _AHEAD], 4 * n_features)
        row, source = out[i], addresses[i]
        for j in range(n_features):
            row[j] = _single_at(source, j)
        if unit:
            _scale(row, address + 4 * i * n_features)


@njit(cache=True, nogil=True)
def gather_bytes(addresses: IntArray, n_bytes: int, address: int) -> None:
    """Copy rows of `n_bytes` from anywhere to `address`, end to end."""
    n = addresses.shape[0]
    for i in range(n):
        if i + _AHEAD < n:
            _fetch_row(addresses[i + _AHEAD], n_bytes)
        _copy(address + i * n_bytes, addresses[i], n_bytes)
