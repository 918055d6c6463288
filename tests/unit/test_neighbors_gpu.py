"""What goes to a GPU and what does not, with FAISS's calls replaced: no GPU is needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import BackendUnavailableError, ConfigError
from ltstore.neighbors import build_index, faiss_index, load_index, save_index
from ltstore.rows import ArrayRows

ROWS = ArrayRows(np.random.default_rng(0).normal(size=(900, 8)))


class Gpus:
    """Two GPUs; an index "on" one is the index itself."""

    def __init__(self) -> None:
        self.n_resources = 0
        self.moves: list[tuple[int, int]] = []
        self.fails = False

    def resources(self) -> int:
        self.n_resources += 1
        return self.n_resources

    def to_gpu(self, resources: int, device: int, index: Any) -> Any:
        if self.fails:
            raise RuntimeError(
                "Error in verifyPQSettings_\nNumber of bytes per encoded vector 160 is not supported"
            )
        self.moves.append((resources, device))
        return index


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus()
    monkeypatch.setattr(faiss_index._own, "resources", {}, raising=False)
    monkeypatch.setattr(faiss_index._FAISS, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss_index._FAISS, "StandardGpuResources", made.resources, raising=False)
    monkeypatch.setattr(faiss_index._FAISS, "index_cpu_to_gpu", made.to_gpu, raising=False)
    monkeypatch.setattr(faiss_index._FAISS, "index_gpu_to_cpu", lambda index: index, raising=False)
    return made


def test_resources_are_made_once_for_a_thread_and_a_device(gpus: Gpus) -> None:
    index = object()
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        assert faiss_index.to_device(index, device) is index
    with ThreadPoolExecutor(1) as another:
        another.submit(faiss_index.to_device, index, "cuda:0").result()
        another.submit(faiss_index.to_device, index, "cuda:0").result()
    assert gpus.moves == [(1, 0), (2, 1), (1, 0), (3, 0), (3, 0)]


def test_auto_takes_the_first_gpu_and_hnsw_stays_on_the_cpu(gpus: Gpus) -> None:
    assert build_index(ROWS, kind="ivf").device == "cuda:0"
    assert build_index(ROWS, kind="ivf", device="cuda:1").device == "cuda:1"
    graph = build_index(ROWS, kind="hnsw")
    assert (graph.device, graph.reasons["device"]) == ("cpu", "FAISS has no hnsw index on GPUs")
    with pytest.raises(ConfigError, match="no hnsw"):
        build_index(ROWS, kind="hnsw", device="cuda:0")
    assert [device for _, device in gpus.moves] == [0, 1]


def test_what_faiss_cannot_hold_on_a_gpu_stays_on_the_cpu_unless_a_gpu_was_asked_for(
    gpus: Gpus, tmp_path: Path
) -> None:
    gpus.fails = True
    built = build_index(ROWS, kind="ivfpq")
    assert built.device == "cpu"
    assert "160 is not supported" in built.reasons["device"]
    with pytest.raises(BackendUnavailableError, match=r"cuda:1: .*160 is not supported; use device cpu"):
        build_index(ROWS, kind="ivfpq", device="cuda:1")
    save_index(built, tmp_path / "index", {})
    loaded = load_index(tmp_path / "index", rows=ROWS)
    assert (loaded.device, loaded.reasons["device"]) == ("cpu", built.reasons["device"])
    with pytest.raises(BackendUnavailableError, match="use device cpu"):
        load_index(tmp_path / "index", rows=ROWS, device="cuda:0")


def test_large_searches_and_restricted_ones_go_to_the_cpu(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU finds at most 2,048 neighbours, in at most as many lists, and takes no notice of selectors."""
    monkeypatch.setattr(faiss_index, "NARROW_ROWS", 0)
    monkeypatch.setattr(faiss_index, "_GPU_MAX", 20)
    index = build_index(ROWS, kind="ivf")
    index.parameters["nprobe"] = 4
    on_cpu, copies = index._index, []

    class OnGpu:
        def search_c(self, n: int, X: Any, k: int, *words: Any) -> None:
            assert k <= 20
            assert words[-1].sel is None
            copies.append("gpu")
            on_cpu.search_c(n, X, k, *words)

    index._index = OnGpu()
    monkeypatch.setattr(
        faiss_index._FAISS, "index_gpu_to_cpu", lambda index: copies.append("copy") or on_cpu, raising=False
    )
    X, half = ROWS.read(0, 5), np.arange(900) % 2 == 0
    index.search(X, 20)
    index.search(X, 21)
    ids, _ = index.search(X, 3, among=half)
    assert (ids % 2 == 0).all()
    assert copies == ["gpu", "copy"]
