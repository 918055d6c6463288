"""Minibatches as a PyTorch dataset: the one module of this room that imports torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ltstore.errors import ConfigError
from ltstore.stream.batch_plan import BATCH_ROWS, SEGMENT_ROWS, BatchPlan, check_at_least
from ltstore.stream.batches import read_batches
from ltstore.types import Rows

_log = logging.getLogger(__name__)


class EmbeddingDataset(IterableDataset):  # type: ignore[misc]
    """Minibatches of rows as tensors: X (n, D) float32 and labels (n,) int64 (-1 where unknown).

    Give it to ``DataLoader(dataset, batch_size=None)``, or iterate over it as it is. Each batch is made whole
    by one worker; every row comes exactly once, whatever the numbers of workers and ranks.

    Parameters
    ----------
    rows : Rows
    batch_size, shuffle, seed, segment_rows, buffer_rows : int, bool
        See `ltstore.stream.BatchPlan`.
    rank, world_size : int, optional
        Default: those of torch.distributed where it is initialised, else 0 and 1.
    drop_last, equal_batches : bool
        See `ltstore.stream.BatchPlan`. DistributedDataParallel needs `equal_batches`, or it waits for ever for
        the rank that has a batch less.

    Raises
    ------
    ConfigError
        A setting is out of range; torch.distributed was initialised after the dataset was made.

    Notes
    -----
    Without workers a thread reads ahead, and tensors share the memory of its buffers: that is the fastest way,
    since a worker copies each batch to shared memory. Workers help where X is transformed in the dataset.
    `set_epoch` reaches workers that persist. An epoch keeps its shuffle until `set_epoch` names another.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int = BATCH_ROWS,
        *,
        shuffle: bool = True,
        seed: int = 0,
        segment_rows: int = SEGMENT_ROWS,
        buffer_rows: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        equal_batches: bool = False,
    ) -> None:
        super().__init__()
        if (rank is None) != (world_size is None):
            raise ConfigError("rank and world_size must be given together, or neither")
        self._rows = rows
        self._asks_torch = rank is None
        self._rank, self._world_size = (
            _torch_rank() if rank is None or world_size is None else (rank, world_size)
        )
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "segment_rows": segment_rows,
            "buffer_rows": buffer_rows,
            "drop_last": drop_last,
            "equal_batches": equal_batches,
        }
        # Shared with workers, so that those that persist see the next epoch, and the main process sees that
        # it is they who know how far the epoch is: [epoch, whether workers read].
        self._shared = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._next_batch = 0
        self._resumed: dict[str, Any] | None = None
        self._digest = ""
        plan = self._plan(0, 1)
        if plan.n_all_batches % plan.world_size:
            _log.warning(
                "%d batches for %d ranks: some ranks get one more; DistributedDataParallel needs equal_batches",
                plan.n_all_batches,
                plan.world_size,
            )

    @property
    def epoch(self) -> int:
        """Which epoch's shuffle the next iteration gives."""
        return int(self._shared[0])

    @property
    def n_dropped(self) -> int:
        """Rows that no rank gets, because of `drop_last` or `equal_batches`."""
        return self._plan(0, 1).n_dropped

    def __len__(self) -> int:
        """Batches of this rank, all its workers together."""
        return self._plan(0, 1).n_rank_batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of the next iteration; naming the epoch of a loaded state keeps its place."""
        check_at_least(0, "epoch", epoch)
        if epoch != self.epoch:
            self._next_batch, self._resumed = 0, None
        self._shared[0] = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return where this process is, for `load_state_dict`: JSON values only.

        Raises
        ------
        ConfigError
            Workers read: they know how far they are, and torchdata's StatefulDataLoader asks them.
        """
        info = get_worker_info()
        if info is None and self._shared[1]:
            raise ConfigError(
                "state_dict of a dataset that DataLoader workers read: use torchdata's StatefulDataLoader, "
                "or num_workers=0"
            )
        plan = self._plan(0, 1) if info is None else self._plan(info.id, info.num_workers)
        return {"next_batch": self._next_batch, "rows": self._rows_digest(), "plan": asdict(plan)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on exactly after the last batch that was given out.

        A state of an epoch that had come to its end gives an iteration without batches.

        Raises
        ------
        ConfigError
            The state is of other rows. Other settings, ranks or workers are found out by the next iteration.
        """
        if state["rows"] != self._rows_digest():
            raise ConfigError(
                f"the state is of rows {state['rows']}, found {self._rows_digest()}: "
                "open the store, split and subset it was saved with"
            )
        self._shared[0] = state["plan"]["epoch"]
        self._next_batch = int(state["next_batch"])
        self._resumed = dict(state["plan"])

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = get_worker_info()
        self._check_rank()
        plan = self._plan(0, 1) if info is None else self._plan(info.id, info.num_workers)
        self._check_resumed(plan)
        if self._resumed is None:
            self._next_batch = 0
        self._resumed = None
        self._shared[1] = int(info is not None)
        # DataLoader itself reads ahead of its workers.
        prefetch = 1 if info is None else 0
        batches = read_batches(self._rows, plan, start_batch=self._next_batch, prefetch=prefetch)
        return self._tensors(batches)

    def _tensors(self, batches: Iterator[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for X, labels, _ in batches:
            self._next_batch += 1
            yield torch.from_numpy(X), torch.from_numpy(labels)

    def __getstate__(self) -> dict[str, Any]:
        self._check_rank()
        return self.__dict__

    def _plan(self, worker: int, n_workers: int) -> BatchPlan:
        return BatchPlan(
            n_samples=self._rows.n_samples,
            epoch=self.epoch,
            rank=self._rank,
            world_size=self._world_size,
            worker=worker,
            n_workers=n_workers,
            **self._settings,
        )

    def _rows_digest(self) -> str:
        if not self._digest:  # a pass over the data where rows are arrays in memory
            self._digest = self._rows.digest
        return self._digest

    def _check_rank(self) -> None:
        found = _torch_rank()
        if self._asks_torch and found not in ((0, 1), (self._rank, self._world_size)):
            raise ConfigError(
                f"the dataset was made as rank {self._rank} of {self._world_size}, and torch.distributed says "
                f"rank {found[0]} of {found[1]}: make it after init_process_group, or give rank and world_size"
            )

    def _check_resumed(self, plan: BatchPlan) -> None:
        if self._resumed is None:
            return
        saved, now = self._resumed, asdict(plan)
        different = [f"{key}: {saved.get(key)} / {now[key]}" for key in now if saved.get(key) != now[key]]
        if different:
            raise ConfigError(
                f"the state was saved with other settings ({'; '.join(different)}): make the dataset and its "
                "loader as they were"
            )


def _torch_rank() -> tuple[int, int]:
    """Return (rank, world_size) of torch.distributed; (0, 1) where it is not initialised."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
