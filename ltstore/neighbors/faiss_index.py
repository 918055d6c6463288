"""Nearest rows by FAISS, on a CPU or a GPU: the one module that imports it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ltstore.errors import BackendUnavailableError, ConfigError, StoreReadError
from ltstore.neighbors.exact import ExactIndex
from ltstore.neighbors.kinds import IndexPlan
from ltstore.neighbors.metric import has_unit_norm, ready_queries, resolve_positions, unit_rows
from ltstore.neighbors.recall import RecallReport
from ltstore.rows import normalize_rows
from ltstore.types import BoolArray, EncoderIdentity, FloatArray, IntArray, Rows

NARROW_ROWS = 32_768
TRAINING_ROWS = 64
_TRAINING_ROUNDS = 10
_LEAST_TRAINING_ROWS = 512  # more than the 256 centroids of a product quantiser
_LINK_EFFORT = 100
_RESTRICTED_EFFORT = 4  # classes that are left out were in the nearest lists
_GPU_MAX = 2048  # neighbours, and lists probed
_REFINED_BYTES = 1 << 19  # stays in the cache of one core
_FOUND_AT_ONCE = 1 << 22  # candidates of all queries: some 120 MB
_JUDGED_ROWS = 1000
_FAISS: Any = faiss  # its stubs know neither keyword arguments nor return types
_own = threading.local()

Part = tuple[int, IntArray]
"""Rows that were added together: where they end, and which of them came last, having been held out."""


class FaissIndex:
    """A FAISS index over a fixed set of rows, as `ltstore.types.NeighborIndex`. Made by `build_index`.

    Threads may search it at once on the CPU, not on a GPU.

    Attributes
    ----------
    plan : IndexPlan
    kind : str
        Resolved: never "auto".
    device : str
        "cpu" or "cuda:0".
    parameters : dict of str to int
        How hard it looks: "nprobe" (lists), "ef_search" (queue in the graph), "refine" (candidates for each neighbour
        asked for, whose exact distances decide).
    reasons : dict of str to str
        Why each "auto" was resolved as it was.
    report : RecallReport or None
        What it finds, where that was measured.
    parts : list of (stop, held_out)
        In which order rows were added, see `Part`.
    n_features : int
    rows_digest : str
        Digest of the rows it was built from.
    """

    def __init__(
        self,
        index: Any,
        rows: Rows,
        *,
        plan: IndexPlan,
        metric: str,
        device: str,
        parameters: Mapping[str, int],
        parts: Sequence[Part],
        rows_digest: str,
        reasons: Mapping[str, str] | None = None,
        report: RecallReport | None = None,
        k: int = 10,
    ) -> None:
        self._index = index
        self._rows = rows
        self.plan = plan
        self.kind = plan.kind
        self._metric = metric
        self.device = device
        self.parameters = dict(parameters)
        self.reasons = dict(reasons or {})
        self.report = report
        self.k = k
        self.parts = list(parts)
        self.rows_digest = rows_digest
        self.n_features = int(index.d)
        self._on_cpu = index if device == "cpu" else None
        self._n_added = int(index.ntotal)
        self._order = _order(parts)

    @property
    def metric(self) -> str:
        """ "cosine", "inner_product" or "l2"."""
        return self._metric

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 ids of the indexed rows."""
        return self._rows.row_ids

    @property
    def n_samples(self) -> int:
        """N."""
        return self._rows.n_samples

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity of the rows."""
        return self._rows.encoder

    @property
    def n_added(self) -> int:
        """Rows in it so far: fewer than N only while it is built."""
        return self._n_added

    def search(
        self,
        X: FloatArray,
        k: int,
        *,
        exclude: IntArray | None = None,
        among: BoolArray | IntArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Nearest k of each of (n, D) queries, see `ltstore.types.NeighborIndex.search`.

        Parameters
        ----------
        X : (n, D) float32
            Not modified; need not have unit norm.
        k : int
            At least 1.
        exclude : (n,) int64, optional
            One row id per query that is not an answer to it.
        among : (N,) bool or (m,) int64, optional
            Search only these rows: a mask in the order of `row_ids`, or row ids.

        Returns
        -------
        neighbor_ids : (n, k) int64
        distances : (n, k) float32
            Never those of a quantiser: exact for the rows that are returned.

        Raises
        ------
        DataError, ConfigError
            Queries, k or `among` do not fit.

        Notes
        -----
        One more neighbour than asked for is fetched where `exclude` is given. Rows whose float32 distances are
        equal come in order of row id, but which of several equal rows make the k-th place is FAISS's choice.

        Among at most `NARROW_ROWS` rows search is exact, by reading these rows: few of them lie in the lists that a
        query visits. For hnsw it is so among any rows: links lead to the classes near a query, and where these are left
        out they end. Among more rows FAISS leaves the others out on its way, on the CPU (a GPU index takes no notice
        of that), in four times as many lists over the share that is left, with twice the candidates. For more
        neighbours than it was tuned for effort rises by the root of the ratio. A query that finds fewer rows than there
        are is asked again exactly.
        """
        queries = ready_queries(X, k, exclude, self.n_features, self._metric)
        positions = None if among is None else resolve_positions(among, self.row_ids)
        n_rows = self._n_added if positions is None else len(positions)
        if positions is not None and (n_rows <= NARROW_ROWS or self.kind == "hnsw"):
            return self._exact(queries, k, exclude, positions)
        fetch = min(k + (exclude is not None), n_rows)
        if not fetch or not len(queries):
            return _none(len(queries), k)
        near, found = self._find(queries, fetch, positions)
        found_ids = self.row_ids.take(found)
        whole = fetch == k and exclude is None and min(found[:, -1].tolist()) >= 0
        # Plain Python: quicker than NumPy for one query, and nothing beside the search of thousands.
        if whole and all(len(set(row)) == k for row in near.tolist()):
            return found_ids, near
        worse = np.where(found < 0, np.inf, near if self._metric == "l2" else -near)
        if exclude is not None:
            worse[found_ids == np.asarray(exclude)[:, None]] = np.inf
        order = np.lexsort((found_ids, worse), axis=1)[:, :k]
        missing = np.isinf(np.take_along_axis(worse, order, axis=1))
        ids, distances = _none(len(queries), k)
        width = order.shape[1]
        ids[:, :width] = np.where(missing, -1, np.take_along_axis(found_ids, order, axis=1))
        distances[:, :width] = np.where(missing, np.nan, np.take_along_axis(near, order, axis=1))
        (short,) = np.nonzero(found[:, -1] < 0)
        if len(short):
            left_out = None if exclude is None else np.asarray(exclude)[short]
            ids[short], distances[short] = self._exact(queries[short], k, left_out, positions)
        return ids, distances

    def _exact(
        self, queries: FloatArray, k: int, exclude: IntArray | None, positions: IntArray | None
    ) -> tuple[IntArray, FloatArray]:
        if positions is None and self.n_added < self.n_samples:
            positions = np.arange(self.n_added) if self._order is None else self._order[: self.n_added]
        among = None if positions is None else self.row_ids[positions]
        return ExactIndex(self._rows, self._metric).search(queries, k, exclude=exclude, among=among)

    def _find(self, queries: FloatArray, fetch: int, positions: IntArray | None) -> tuple[FloatArray, IntArray]:
        """Return distances and positions in the rows of the nearest `fetch`, -1 at the end where there are fewer."""
        refine = self.parameters.get("refine", 1)
        wanted = min(fetch * (refine if positions is None or refine == 1 else 2 * refine), self.n_added)
        if len(queries) * wanted > _FOUND_AT_ONCE and len(queries) > 1:
            half = len(queries) // 2
            halves = (self._find(some, fetch, positions) for some in (queries[:half], queries[half:]))
            near, places = map(np.concatenate, zip(*halves, strict=True))
            return near, places
        effort = math.sqrt(max(fetch / self.k, 1))
        selector = None
        if positions is not None:
            effort *= _RESTRICTED_EFFORT * self.n_added / len(positions)
            selector = _FAISS.IDSelectorBitmap(self._bitmap(positions))
        width = 0
        if "nprobe" in self.parameters:
            width = min(math.ceil(effort * self.parameters["nprobe"]), self.plan.n_lists)
        elif "ef_search" in self.parameters:
            width = max(math.ceil(effort * self.parameters["ef_search"]), wanted)
        fits_gpu = selector is None and max(wanted, width) <= _GPU_MAX
        if selector is None:
            params = _search_parameters(self.kind, width)
        else:
            params = _search_parameters.__wrapped__(self.kind, width, selector)
        distances, found = _asked(self._index if fits_gpu else self._cpu(), queries, wanted, params)
        if self._order is not None:
            found = self._order[found]
        return (distances, found) if "refine" not in self.parameters else self._refined(queries, found, fetch)

    def _refined(self, queries: FloatArray, found: IntArray, fetch: int) -> tuple[FloatArray, IntArray]:
        """Return the nearest `fetch` of the candidates by the rows themselves."""
        n, width = found.shape
        near = np.empty((n, width), np.float32)
        short = min(found[:, -1].tolist()) < 0
        positions = np.maximum(found, 0) if short else found
        step = max(1, _REFINED_BYTES // (4 * self.n_features * width))
        for start in range(0, n, step):
            some = slice(start, start + step)
            candidates = self._rows.take(positions[some].ravel())
            if not self._rows_are_unit:
                candidates = unit_rows(candidates, self._metric)
            candidates = candidates.reshape(-1, width, self.n_features)
            if self._metric == "l2":
                candidates -= queries[some, None]
                np.vecdot(candidates, candidates, out=near[some])
            else:
                np.vecdot(candidates, queries[some, None], out=near[some])
        worse = near if self._metric == "l2" else -near
        if short:
            worse[found < 0] = np.inf
        best = worse.argsort(axis=1)[:, :fetch]
        if n > 1:
            best += width * np.arange(n)[:, None]
        return near.take(best), found.take(best)

    @cached_property
    def _rows_are_unit(self) -> bool:
        """Whether the rows come scaled to float32, going by some of them: where they were stored so it is coarser."""
        return self._rows.normalized and has_unit_norm(
            np.square(self._some_rows(), dtype=np.float64).sum(axis=1)
        )

    def _some_rows(self) -> FloatArray:
        some = np.linspace(0, self.n_samples - 1, min(_JUDGED_ROWS, self.n_samples)).astype(np.int64)
        return self._rows.take(some)

    def _bitmap(self, positions: IntArray) -> Any:
        allowed = np.zeros(self.n_samples, np.bool_)
        allowed[positions] = True
        return np.packbits(allowed if self._order is None else allowed[self._order[:-1]], bitorder="little")

    def _cpu(self) -> Any:
        if self._on_cpu is None:
            self._on_cpu = _FAISS.index_gpu_to_cpu(self._index)
        return self._on_cpu

    def add(self, X: FloatArray) -> None:
        """Put the next rows in; `X` is modified where the metric is "cosine"."""
        self._index.add(normalize_rows(X) if self._metric == "cosine" else X)
        self._on_cpu = self._index if self.device == "cpu" else None
        self._n_added = int(self._index.ntotal)

    def train(self, X: FloatArray) -> None:
        """Learn lists and codes from a sample of rows; a no-op where there is nothing to learn."""
        if not self._index.is_trained and len(X):
            unit = unit_rows(X, self._metric)
            self._index.train(np.resize(unit, (max(len(unit), _LEAST_TRAINING_ROWS), unit.shape[1])))

    def write(self, file: Path) -> None:
        """Write FAISS's file of it; OSError where the disk is full or fails (its own writer may say nothing)."""
        with file.open("wb") as handle:
            failed: list[OSError] = []

            def write(data: bytes) -> None:
                try:
                    handle.write(data)
                except OSError as err:
                    failed.append(err)
                    raise

            try:
                _FAISS.write_index(self._cpu(), _FAISS.PyCallbackIOWriter(write))
            except RuntimeError as err:  # all that FAISS makes of it
                raise failed.pop() if failed else err from None

    def coding_error(self) -> float:
        """Return |row - its code| as a share of |row|, means over some rows; 0 where rows are kept as they are."""
        if "refine" not in self.plan.effort or not self.n_added:
            return 0.0
        unit = unit_rows(self._some_rows(), self._metric)
        coded = self._cpu().sa_decode(self._cpu().sa_encode(unit))
        lengths = np.linalg.norm(unit, axis=1).mean()
        return float(np.linalg.norm(unit - coded, axis=1).mean() / lengths) if lengths else 0.0

    def take_over(self, index: Any) -> None:
        """Go on with another FAISS index of the same plan, which has the first of the rows."""
        self._index = index
        self._on_cpu = index if self.device == "cpu" else None
        self._n_added = int(index.ntotal)

    def over(self, rows: Rows, held: IntArray) -> FaissIndex:
        """Return the same index for more rows, which begin with these; they are still to be added, `held` last."""
        return FaissIndex(
            self._index,
            rows,
            plan=self.plan,
            metric=self._metric,
            device=self.device,
            parameters=self.parameters,
            parts=[*self.parts, (rows.n_samples, held)],
            rows_digest=rows.digest,
            reasons=self.reasons,
            report=self.report,
            k=self.k,
        )


@lru_cache(maxsize=64)
def _search_parameters(kind: str, width: int, selector: Any = None) -> Any:
    """Return FAISS's search parameters; made once for each width, for that takes longer than some searches."""
    only = {} if selector is None else {"sel": selector}
    if kind == "flat":
        return _FAISS.SearchParameters(**only) if only else None
    if kind == "hnsw":
        return _FAISS.SearchParametersHNSW(efSearch=width)
    return _FAISS.SearchParametersIVF(nprobe=width, **only)


def _asked(index: Any, queries: FloatArray, k: int, params: Any) -> tuple[FloatArray, IntArray]:
    """Return what `index.search` does, less its checks and its look at the dimension: some microseconds a query."""
    distances, found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    pointer = _FAISS.swig_ptr
    index.search_c(len(queries), pointer(queries), k, pointer(distances), pointer(found), params)
    return distances, found


def _none(n: int, k: int) -> tuple[IntArray, FloatArray]:
    return np.full((n, k), -1, np.int64), np.full((n, k), np.nan, np.float32)


def _order(parts: Sequence[Part]) -> IntArray | None:
    """Return the position in the rows of each number of FAISS's, which are in the order of adding, and -1 of its -1.

    None where they are the same.
    """
    if not any(len(held) for _, held in parts):
        return None
    order, start = [], 0
    for stop, held in parts:
        order += [np.delete(np.arange(start, stop), held - start), held]
        start = stop
    return np.concatenate([*order, [-1]]).astype(np.int64)


def new_index(plan: IndexPlan, n_features: int, metric: str) -> Any:
    """Return an empty FAISS index of a plan, on the CPU."""
    space = _FAISS.METRIC_L2 if metric == "l2" else _FAISS.METRIC_INNER_PRODUCT
    index = _FAISS.index_factory(n_features, plan.factory, space)
    if plan.kind == "hnsw":
        index.hnsw.efConstruction = _LINK_EFFORT
    for clustering in [owner.cp for owner in (index, getattr(index, "pq", index)) if hasattr(owner, "cp")]:
        clustering.niter = _TRAINING_ROUNDS
        clustering.min_points_per_centroid = 1  # or FAISS prints a warning
        clustering.max_points_per_centroid = TRAINING_ROWS
    return index


def read_index(file: Path) -> Any:
    """Return the FAISS index in a file, whose bytes the caller has checked, on the CPU."""
    try:
        return _FAISS.read_index(str(file))
    except RuntimeError as err:
        cause = (
            str(err).strip().splitlines()[-1].rpartition("failed: ")[2]
        )  # without the place in FAISS's sources
        raise StoreReadError(f"cannot read {file}: {cause}") from err


def resolve_device(device: str, reasons: dict[str, str]) -> str:
    """Return "cpu" or "cuda:N"; why "auto" is what it is goes into `reasons`."""
    n_gpus = int(_FAISS.get_num_gpus())
    if device == "auto":
        reasons["device"] = f"FAISS sees {n_gpus} GPUs"
        return "cuda:0" if n_gpus else "cpu"
    if device == "cpu":
        return device
    name, _, number = device.partition(":")
    if name != "cuda" or not (number or "0").isdigit():
        raise ConfigError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= n_gpus:
        raise BackendUnavailableError(
            f"device {device} was asked for, FAISS sees {n_gpus} GPUs: use device auto"
        )
    return f"cuda:{int(number or 0)}"


def place_index(index: Any, asked: str, resolved: str, reasons: dict[str, str]) -> tuple[Any, str]:
    """Return an index on the resolved device and the device; on the CPU where "auto" was asked and FAISS cannot."""
    try:
        return to_device(index, resolved), resolved
    except BackendUnavailableError as err:
        if asked != "auto":
            raise
        reasons["device"] = str(err)
        return index, "cpu"


def to_device(index: Any, device: str) -> Any:
    """Move an index to a device; a thread has one set of resources on each GPU.

    Raises
    ------
    BackendUnavailableError
        FAISS has no such index on GPUs (not every length of product codes), or it does not fit there.
    """
    if device == "cpu":
        return index
    resources = _own.__dict__.setdefault("resources", {})
    if device not in resources:
        resources[device] = _FAISS.StandardGpuResources()
    try:
        return _FAISS.index_cpu_to_gpu(resources[device], int(device.partition(":")[2]), index)
    except RuntimeError as err:
        why = str(err).strip().splitlines()[-1]
        raise BackendUnavailableError(
            f"FAISS cannot hold the index on {device}: {why}; use device cpu"
        ) from err
