"""Pages of mapped files: read ahead as they are used, and given back, so that a store may be larger than memory.

A mapped page stays with the process until something takes it away. Here the maps of all arrays of a process keep about
`RESIDENT_BYTES` together: the least recently used are told that their pages are not needed (the page cache keeps them
as long as it likes, and a page that is touched again is simply there again, at no cost that could be measured for reads
in order). Reads in order of an array that is larger than that give back each shard as they leave it.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.types import IntArray

RESIDENT_BYTES = 768 << 20
IN_ORDER_BYTES = 1 << 18  # a read of so many bytes has the system read ahead
_AROUND_BYTES = 1 << 16  # what the system maps around a page that is touched
_NORMAL = getattr(mmap, "MADV_NORMAL", None)  # None of these on Windows: pages are then left to the system
_IN_ORDER = getattr(mmap, "MADV_SEQUENTIAL", None)
_AT_RANDOM = getattr(mmap, "MADV_RANDOM", None)
_SOON = getattr(mmap, "MADV_WILLNEED", None)
_DONE = getattr(mmap, "MADV_DONTNEED", None)


def most_maps() -> int:
    """Return how many maps an array may hold: each holds a file open, and a quarter of what may be is left to it."""
    try:
        import resource
    except ImportError:  # Windows
        return 64
    return max(16, min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


def mapping_of(view: NDArray[Any]) -> mmap.mmap | None:
    """Return the map that a view lies in, None where it lies in ordinary memory."""
    owner: Any = view
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


class _Touched:
    """How many bytes of each map have been touched: an upper bound of what is resident, over the whole process."""

    def __init__(self) -> None:
        self._bytes: OrderedDict[weakref.ref[mmap.mmap], int] = OrderedDict()
        self._total = 0
        self.changes = 0  # how often a map has been dropped or closed
        self._lock = threading.RLock()  # a map may die while it is held

    def add(self, mapping: mmap.mmap, n_bytes: int) -> bool:
        """Count bytes, drop what is too much, and return whether all of the map is counted now."""
        with self._lock:
            key = weakref.ref(mapping, self._forget)
            before = self._bytes.pop(key, 0)
            now = min(before + n_bytes, len(mapping))
            self._bytes[key] = now
            self._total += now - before
            while self._total > RESIDENT_BYTES and self._bytes:
                self._drop(next(iter(self._bytes)))
            return now == len(mapping)

    def drop(self, mapping: mmap.mmap) -> None:
        with self._lock:
            self._drop(weakref.ref(mapping))

    def _drop(self, key: weakref.ref[mmap.mmap]) -> None:
        self.changes += 1
        self._total -= self._bytes.pop(key, 0)
        mapping = key()
        if mapping is not None and _DONE is not None and len(mapping):
            mapping.madvise(_DONE)

    def _forget(self, key: weakref.ref[mmap.mmap]) -> None:
        with self._lock:
            self.changes += 1
            self._total -= self._bytes.pop(key, 0)


_touched = _Touched()


class Pages:
    """The pages of one array's maps.

    Parameters
    ----------
    n_bytes : int
        Of the whole array. One that is larger than `RESIDENT_BYTES` is taken to be larger than the page cache too.
    """

    def __init__(self, n_bytes: int) -> None:
        self._large = n_bytes > RESIDENT_BYTES
        self._advice: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()
        self._counted: set[int] = set()  # views that are counted whole: nothing more to say of them
        self._changes = 0

    def _advise(self, mapping: mmap.mmap, advice: int | None) -> None:
        if advice is not None and self._advice.get(mapping, _NORMAL) != advice:
            mapping.madvise(advice)
            self._advice[mapping] = advice

    def read(self, view: NDArray[Any], n_bytes: int, *, in_order: bool) -> None:
        """Say that `n_bytes` of a view's map are read now, as part of a longer read in order or not."""
        mapping = mapping_of(view)
        if mapping is not None:
            if in_order:
                self._advise(mapping, _IN_ORDER)
            _touched.add(mapping, n_bytes)

    def passed(self, view: NDArray[Any]) -> None:
        """Say that a read in order has come to the end of a view."""
        mapping = mapping_of(view)
        if mapping is not None and self._large:
            _touched.drop(mapping)

    def take(self, views: Mapping[int, NDArray[Any]], rows_per_view: int, row_ids: IntArray) -> None:
        """Say that single rows are read now; those of a large array are asked for all at once.

        Parameters
        ----------
        views, rows_per_view, row_ids
            As in `ltstore.kernels.rows.RowTable`; rows of other views are passed over.
        """
        if self._changes != _touched.changes:
            self._changes = _touched.changes
            self._counted = set()
        if not self._large and self._counted.issuperset(views):
            return
        numbers = row_ids // rows_per_view
        first, last = min(views), max(views)
        inside = numbers[(numbers >= first) & (numbers <= last)]
        counts = np.bincount(inside - first, minlength=last - first + 1).tolist()
        for number, view in views.items():
            mapping = mapping_of(view)
            if mapping is None:
                continue
            if self._large:
                self._advise(mapping, _AT_RANDOM)
                _ask(mapping, view, row_ids[numbers == number] - number * rows_per_view)
            if _touched.add(mapping, counts[number - first] * (_AROUND_BYTES + view.strides[1])):
                self._counted.add(number)


def _ask(mapping: mmap.mmap, view: NDArray[Any], rows: IntArray) -> None:
    """Have the system begin to read the pages of some rows of a view, without waiting for any."""
    if _SOON is None:
        return
    start = (
        view.__array_interface__["data"][0] - np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    )
    chunk, within = np.divmod(np.unique(rows), view.shape[1])
    starts = start + chunk * view.strides[0] + within * view.strides[1]
    stops = starts + view.strides[1]
    starts -= starts % mmap.PAGESIZE
    cuts = np.flatnonzero(starts[1:] > stops[:-1])
    firsts, lasts = starts[np.r_[0, cuts + 1]], stops[np.r_[cuts, len(stops) - 1]]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        mapping.madvise(_SOON, first, last - first)
