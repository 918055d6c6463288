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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.types import IntArray

RESIDENT_BYTES = 768 << 20
IN_ORDER_BYTES = 1 << 18  # a read of so many bytes has the system read ahead
_AROUND_BYTES = 1 << 16  # what the system maps around a page that is touched
_STATM = Path("/proc/self/statm")
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


def _shared_bytes() -> int | None:
    """Return how many bytes of files are resident in this process, its libraries included; None where nothing says."""
    try:
        return int(_STATM.read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return None


class _Touched:
    """Which maps have been touched, and by how much, over the whole process.

    What a touch makes resident is the system's choice (a page to two megabytes), so the bytes touched only say when
    to look, and the system says how much there is. Where it does not say, the bytes touched stand for it.
    """

    def __init__(self) -> None:
        self._bytes: OrderedDict[weakref.ref[mmap.mmap], int] = OrderedDict()
        self._total = 0
        self._unseen = 0  # touched since the last look
        self._others = 0  # resident bytes of files that are none of ours
        self._lock = threading.RLock()  # a map may die while it is held
        self.changes = 0  # how often a map has been dropped or closed

    def add(self, mapping: mmap.mmap, n_bytes: int) -> bool:
        """Count bytes, drop what is too much, and return whether all of the map is counted now."""
        with self._lock:
            if not self._bytes:
                self._others = _shared_bytes() or 0
            key = weakref.ref(mapping, self._forget)
            before = self._bytes.pop(key, 0)
            now = min(before + n_bytes, len(mapping))
            self._bytes[key] = now
            self._total += now - before
            self._unseen += n_bytes
            if self._unseen > RESIDENT_BYTES // 16:
                self._unseen = 0
                if self._resident() > RESIDENT_BYTES:
                    self._drop_some()
            return now == len(mapping)

    def _resident(self) -> int:
        shared = _shared_bytes()
        return self._total if shared is None else shared - self._others

    def _drop_some(self) -> None:
        while self._bytes and self._resident() > RESIDENT_BYTES // 2:
            self._drop(next(iter(self._bytes)))
        if not self._bytes:
            self._others = _shared_bytes() or 0

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
        self._starts: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()
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
        ids = np.sort(row_ids)
        sample = next(iter(views.values()))
        numbers, local = np.divmod(ids, rows_per_view)
        chunk, within = np.divmod(local, sample.shape[1])
        stops = chunk * sample.strides[0] + (within + 1) * sample.strides[1]
        apart = stops[1:] - stops[:-1] > sample.strides[1] + mmap.PAGESIZE
        cuts = (np.flatnonzero(apart | (numbers[1:] != numbers[:-1])) + 1).tolist()
        firsts, lasts = [0, *cuts], [*cuts, len(ids)]
        for number, first, last in zip(numbers[firsts].tolist(), firsts, lasts, strict=True):
            view = views.get(number)
            mapping = None if view is None else mapping_of(view)
            if view is None or mapping is None:
                continue
            start, stop = int(stops[first]) - view.strides[1], int(stops[last - 1])
            if self._large and _SOON is not None:
                self._advise(mapping, _AT_RANDOM)
                begin = self._start(mapping, view) + start
                begin -= (extra := begin % mmap.PAGESIZE)
                mapping.madvise(_SOON, begin, stop - start + extra)
            if _touched.add(mapping, stop - start + _AROUND_BYTES):
                self._counted.add(number)

    def _start(self, mapping: mmap.mmap, view: NDArray[Any]) -> int:
        """Return where in its map a view begins."""
        start = self._starts.get(mapping)
        if start is None:
            whole = np.frombuffer(mapping, np.uint8)
            start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            self._starts[mapping] = start
        return start
