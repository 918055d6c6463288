"""Rows on their way out of storage: converted to float32, gathered, and scaled to unit norm, in one pass.

Two implementations give the same bits. NumPy's needs nothing; the compiled one (`rows_numba`) is up to ten times
faster but takes half a second to load, so it is loaded only by who has it loaded already (training has), or has
moved `LOAD_AFTER_BYTES` without it.

The unit norm of a row x is x * float32(1 / sqrt(s)) with s the sum of its squares in float64: 32 running sums over the
features, then halves added up, then the features beyond the last multiple of 32 one by one. Squares of float32 are
exact there and the order is fixed, so a row has the same bits wherever, and among whichever rows, it is read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.rows import normalize_rows
from ltstore.types import FloatArray, IntArray

LOAD_AFTER_BYTES = 1 << 28
_FLOATS = (np.dtype("<f2"), np.dtype("<f4"))


class _Loops:
    """Whether the compiled loops are there: settled once, at the first large work."""

    def __init__(self) -> None:
        self._module: Any = None
        self._possible = True
        self._n_bytes = 0  # moved without them; threads may lose a count

    def get(self, n_bytes: int) -> Any:
        """Return the compiled loops, or None where this work of `n_bytes` is to go without."""
        if self._module is not None or not self._possible:
            return self._module
        self._n_bytes += n_bytes
        if "numba" not in sys.modules and self._n_bytes < LOAD_AFTER_BYTES:
            return None
        self._possible = find_spec("numba") is not None and _converts_halves()
        if self._possible:
            self._module = import_module("ltstore.kernels.rows_numba")
        return self._module


_loops = _Loops()


def _converts_halves() -> bool:
    """Whether compiled code may convert float16 by an instruction; without one LLVM calls what is not linked."""
    from llvmlite import binding  # type: ignore[import-untyped]
    from numba.core import config

    if sys.byteorder != "little" or config.CPU_NAME or config.CPU_FEATURES or config.DISABLE_JIT:
        return False
    features = binding.get_host_cpu_features()
    return bool(features.get("f16c") or binding.get_default_triple().startswith(("aarch64", "arm64")))


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _ends_on_end(array: NDArray[Any]) -> bool:
    """Whether the rows of an (n, D) array lie end to end."""
    return bool(array.flags.c_contiguous)


def widen_half(source: NDArray[np.float16], out: FloatArray) -> None:
    """Convert float16 to float32 in NumPy: ``out[...] = source``, about ten times faster.

    Shifts exponent and mantissa into place and multiplies by 2**112, the difference of the exponent biases,
    which is exact, subnormals included. Infinity and NaN are not representable this way; stored rows have
    neither.

    Parameters
    ----------
    source : (n, D) float16, last axis contiguous
        Finite.
    out : (n, D) float32, C-contiguous
        Overwritten.
    """
    bits = out.view(np.int32)
    np.copyto(bits, source.view(np.int16))  # sign-extends: the sign arrives at bit 31
    np.left_shift(bits, 13, out=bits)
    words = out.view(np.uint32)
    np.bitwise_and(words, np.uint32(0x8FFFE000), out=words)
    np.multiply(out, np.float32(2.0**112), out=out)


def copy_rows(source: NDArray[Any], out: NDArray[Any], *, unit: bool = False) -> None:
    """Copy rows, converting the dtype: ``out[...] = source``, then `normalize_rows` where `unit`.

    What does not fit float16 becomes infinite.

    Parameters
    ----------
    source : (n, ...) array
        Finite, but for float32 that become float16.
    out : array of the same shape
        Overwritten; fast where it is C-contiguous float32, or float16 of such. With `unit`, (n, D) of float32.
    unit : bool
        Scale rows to unit norm; zeros stay.

    Notes
    -----
    Compiled, a row of 768 float16 takes about 0.1 us, and 0.15 us scaled; float32 to float16 0.1 us.
    """
    if (source.dtype, out.dtype) == _FLOATS[::-1] and _ends_on_end(source) and _ends_on_end(out) and out.size:
        loops = _loops.get(source.nbytes)
        if loops is not None:
            loops.narrow_values(_address(source), _address(out), out.size)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(out, source, casting="same_kind")
        return
    fast = out.dtype == np.float32 and out.flags.c_contiguous and source.dtype == _FLOATS[0]
    if fast and out.ndim == 2 and out.size:
        loops = _loops.get(out.nbytes) if _ends_on_end(source) else None
        if loops is not None:
            loops.widen_rows(_address(source), out, _address(out), unit)
            return
    if fast:
        widen_half(source, out)
    else:
        np.copyto(out, source)
    if unit:
        scale_rows(out)


def scale_rows(X: FloatArray) -> FloatArray:
    """Scale each row to unit norm in place and return it: `ltstore.rows.normalize_rows`, the same bits, faster.

    Parameters
    ----------
    X : (n, D) float32, C-contiguous
        Modified; finite.
    """
    loops = _loops.get(X.nbytes)
    if loops is None:
        return normalize_rows(X)
    loops.scale_rows(X, _address(X))
    return X


class RowTable:
    """Rows of many arrays by number: with v, q = divmod(r, rows_per_view), row r is ``views[v].reshape(-1, D)[q]``.

    Parameters
    ----------
    views : mapping of int to (n_chunks, chunk_rows, D) array
        At least one; all of one dtype, chunk_rows and strides; rows within a chunk end to end, chunks anywhere. They
        are kept alive.
    rows_per_view : int
    """

    def __init__(self, views: Mapping[int, NDArray[Any]], rows_per_view: int) -> None:
        self.views = dict(views)
        self._rows_per_view = rows_per_view
        self._first = min(views)
        self._sample = sample = self.views[self._first]
        bases, limits = np.zeros((2, max(views) - self._first + 1), np.int64)
        for number, view in self.views.items():
            bases[number - self._first] = _address(view)
            limits[number - self._first] = view.shape[0] * view.shape[1]
        self._places = bases, limits, self._first, rows_per_view, sample.shape[1], *sample.strides[:2]

    def gather(self, row_ids: IntArray, out: NDArray[Any], *, unit: bool = False) -> bool:
        """Copy row row_ids[i] to out[i]; return False, with `out` in any state, where a row is in none of the views.

        Parameters
        ----------
        row_ids : (n,) int64
            In any order, with repeats.
        out : (n, D) array
            Overwritten; converts the dtype.
        unit : bool
            Scale rows to unit norm, `out` then being float32 and C-contiguous; zeros stay.

        Notes
        -----
        Compiled, a row of 768 float16 in random order takes about 0.25 us: the time of its fetch from memory, two
        rows of which are under way while one is converted.
        """
        stored = self._sample.dtype
        loops = None
        if stored in _FLOATS and out.dtype in (stored, _FLOATS[1]) and out.flags.c_contiguous and out.size:
            loops = _loops.get(out.nbytes)
        if loops is None:
            there = _gather_numpy(self.views, self._rows_per_view, row_ids, out)
            if unit and there:
                scale_rows(out)
            return there
        ids = np.array(row_ids, np.int64)  # a copy: the compiled loops know writable arrays only
        addresses = np.empty(len(ids), np.int64)
        if loops.locate_rows(ids, *self._places, addresses) >= 0:
            return False
        if out.dtype != np.float32:
            loops.gather_bytes(addresses, self._sample.strides[1], _address(out))
        elif stored == np.float32:
            loops.gather_singles(addresses, out, _address(out), unit)
        else:
            loops.gather_halves(addresses, out, _address(out), unit)
        return True


def _gather_numpy(
    views: Mapping[int, NDArray[Any]], rows_per_view: int, row_ids: IntArray, out: NDArray[Any]
) -> bool:
    numbers, local = np.divmod(row_ids, rows_per_view)
    for number in np.unique(numbers).tolist():
        view = views.get(number)
        where = np.flatnonzero(numbers == number)
        if view is None:
            return False
        chunk, within = np.divmod(local[where], view.shape[1])
        if chunk.max() >= len(view):
            return False
        block = np.empty((len(where), *out.shape[1:]), out.dtype)
        copy_rows(view[chunk, within], block)
        out[where] = block
    return True
