"""The PyTorch dataset: workers, ranks, epochs, and going on where it stopped."""

from __future__ import annotations

import json
import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ltstore import EmbeddingDataset
from ltstore.errors import ConfigError
from ltstore.rows import ArrayRows
from ltstore.store import open_store
from support.stores import made_store

SMALL = {"batch_size": 8, "segment_rows": 4, "buffer_rows": 16}
N = 100

# These tests take more workers than a small machine has cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def made_rows(n: int = N) -> ArrayRows:
    """Rows whose first feature is their position."""
    X = np.column_stack([np.arange(n), np.arange(n) % 7]).astype(np.float32)
    return ArrayRows(X, np.arange(n) % 3)


def dataset(**settings: Any) -> EmbeddingDataset:
    return EmbeddingDataset(made_rows(), **{**SMALL, **settings})


def loader(data: EmbeddingDataset, n_workers: int = 0, **settings: Any) -> Any:
    if n_workers:
        settings.setdefault("multiprocessing_context", "fork")
    return DataLoader(data, batch_size=None, num_workers=n_workers, **settings)


def positions(batches: Any) -> list[list[int]]:
    found = []
    for X, y in batches:
        assert X.dtype == torch.float32
        assert y.dtype == torch.int64
        assert torch.equal(X[:, 0].long() % 3, y)
        found.append(X[:, 0].long().tolist())
    return found


def flat(batches: list[list[int]]) -> list[int]:
    return sorted(chain(*batches))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_workers", [0, 2, 3])
def test_every_row_once_in_a_loader(shuffle: bool, n_workers: int) -> None:
    data = dataset(shuffle=shuffle)
    found = positions(loader(data, n_workers))
    assert flat(found) == list(range(N))
    assert len(found) == len(data) == 13
    assert sorted(found) == sorted(positions(data))
    if not shuffle:
        assert list(chain(*found)) == list(range(N))


@pytest.mark.slow
def test_spawned_workers_read_a_store(tmp_path: Path) -> None:
    made_store(tmp_path / "store", 60)
    rows = open_store(tmp_path / "store").split("train").rows()
    data = EmbeddingDataset(rows, 8, segment_rows=4, buffer_rows=16)
    found = list(loader(data, 2, multiprocessing_context="spawn"))
    assert sum(len(X) for X, _ in found) == rows.n_samples
    alone = {tuple(X.flatten().tolist()) for X, _ in data}
    assert {tuple(X.flatten().tolist()) for X, _ in found} == alone


def test_ranks_and_workers_share_all_rows() -> None:
    ranks = [positions(loader(dataset(rank=rank, world_size=3), 2)) for rank in range(3)]
    assert flat(list(chain(*ranks))) == list(range(N))
    assert sorted(map(len, ranks)) == [4, 4, 5]


def test_equal_batches_for_ranks(caplog: pytest.LogCaptureFixture) -> None:
    dataset(rank=0, world_size=3)
    assert "DistributedDataParallel needs equal_batches" in caplog.text
    caplog.clear()
    parts = [dataset(rank=rank, world_size=3, equal_batches=True) for rank in range(3)]
    found = [positions(part) for part in parts]
    assert [len(batches) for batches in found] == [len(part) for part in parts] == [4, 4, 4]
    assert len(set(flat(list(chain(*found))))) == N - parts[0].n_dropped == 96
    assert "DistributedDataParallel" not in caplog.text


def test_initialised_torch_distributed_gives_the_rank(tmp_path: Path) -> None:
    early = dataset()
    pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=torch.distributed.HashStore())
    try:
        assert len(dataset()) == 7
        assert not set(flat(positions(dataset()))) & set(flat(positions(dataset(rank=0, world_size=2))))
        for use in (iter, pickle.dumps):
            with pytest.raises(ConfigError, match="after init_process_group"):
                use(early)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_epochs_differ_and_repeat(n_workers: int) -> None:
    data = dataset()
    batches = loader(data, n_workers, persistent_workers=n_workers > 0)
    first = positions(batches)
    assert positions(batches) == first
    data.set_epoch(1)
    second = positions(batches)
    assert second != first
    assert flat(second) == list(range(N))
    data.set_epoch(0)
    assert positions(batches) == first


@pytest.mark.parametrize("taken", [0, 1, 5, 13])
def test_goes_on_where_it_stopped(taken: int) -> None:
    data = dataset(seed=4)
    data.set_epoch(3)
    whole = positions(data)
    batches = iter(data)
    for _ in range(taken):
        next(batches)
    state = json.loads(json.dumps(data.state_dict()))
    other = dataset(seed=4)
    other.load_state_dict(state)
    assert other.state_dict() == state
    other.set_epoch(3)
    assert positions(other) == whole[taken:]
    assert positions(other) == whole
    other.load_state_dict(state)
    other.set_epoch(4)
    assert len(positions(other)) == 13


def test_goes_on_after_the_end_of_an_epoch() -> None:
    data = dataset()
    positions(data)
    other = dataset()
    other.load_state_dict(data.state_dict())
    assert positions(other) == []
    other.set_epoch(1)
    assert len(positions(other)) == 13


class Worker:
    """What get_worker_info gives in worker `id` of `num_workers`."""

    def __init__(self, worker: int, n_workers: int) -> None:
        self.id, self.num_workers = worker, n_workers


def test_each_worker_goes_on_with_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchdata's StatefulDataLoader does: state_dict and load_state_dict in every worker."""
    rest = []
    for worker in range(2):
        monkeypatch.setattr("ltstore.stream.torch_dataset.get_worker_info", lambda w=worker: Worker(w, 2))
        data = dataset()
        whole = positions(data)
        batches = iter(data)
        next(batches)
        other = dataset()
        other.load_state_dict(data.state_dict())
        rest += positions(other)
        assert rest[-len(whole) + 1 :] == whole[1:]
    assert len(rest) == 13 - 2


def test_a_state_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    next(iter(data))
    state = data.state_dict()
    other = EmbeddingDataset(made_rows(90), **SMALL)
    with pytest.raises(ConfigError, match="the state is of rows"):
        other.load_state_dict(state)
    other = dataset(seed=1, batch_size=16)
    other.load_state_dict(state)
    with pytest.raises(ConfigError, match=r"batch_size: 8 / 16; seed: 0 / 1"):
        iter(other)
    data.load_state_dict(state)
    monkeypatch.setattr("ltstore.stream.torch_dataset.get_worker_info", lambda: Worker(0, 2))
    with pytest.raises(ConfigError, match="n_workers: 1 / 2"):
        iter(data)


def test_the_main_process_does_not_know_how_far_workers_are() -> None:
    data = dataset()
    list(loader(data, 2))
    with pytest.raises(ConfigError, match="StatefulDataLoader"):
        data.state_dict()
    next(iter(data))
    assert data.state_dict()["next_batch"] == 1


def test_pickles_with_its_place(tmp_path: Path) -> None:
    made_store(tmp_path / "store", 60)
    data = EmbeddingDataset(open_store(tmp_path / "store").split("train").rows(), 8)
    data.set_epoch(2)
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert copy.epoch == 2
    assert [X.tolist() for X, _ in copy] == [X.tolist() for X, _ in data]


def test_rank_without_world_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="together"):
        dataset(rank=1)
    with pytest.raises(ConfigError, match="epoch"):
        dataset().set_epoch(-1)
