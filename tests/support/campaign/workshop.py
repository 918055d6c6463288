"""What rounds start from, and the commands that are disturbed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from support.campaign.process import Result, call
from support.images import class_tree

T = TypeVar("T")

TEXT_ENCODER = "open_clip:ViT-S-32-alt/random"
VOLATILE = frozenset(
    {
        "created",
        "timings",
        "sha256",
        "seal",
        "seconds",
        "train_seconds",
        "train_speed",
        "milliseconds",
        "restarts",
    }
    | {"99p_search_speed_ms", "avg_search_speed_ms"}
)
"""Keys of JSON records that differ between two runs that nothing disturbed, and the seal over them."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that takes a while.

    Attributes
    ----------
    name : str
    words : tuple of str
        After `ltstore`, to be run in the workshop's directory.
    writes : tuple of str
        What it makes: absent when it begins.
    prepare : callable, optional
        What is done to the directory before it begins.
    weight : float
        How often it is drawn.
    """

    name: str
    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    weight: float = 1.0


def _command(name: str, line: str, *writes: str, **more: Any) -> Command:
    return Command(name=name, words=tuple(line.split()), writes=writes, **more)


def spoil(directory: Path) -> None:
    """Damage two shards of embeddings, a shard of labels and a table of keys, always the same way."""
    train = directory / "digits.zarr" / "train"
    for name in ("embeddings/c/2/0", "embeddings/c/5/0", "labels/c/3", "rows/part-00004.parquet"):
        data = bytearray((train / name).read_bytes())
        data[len(data) // 2] ^= 4
        (train / name).write_bytes(data)


LT = "digits.zarr --subset lt"
COMMANDS = (
    _command("ingest", "ingest digits new.zarr", "new.zarr", weight=2),
    _command("import", "import vectors.npy new.zarr --labels labels.npy --model made", "new.zarr", weight=2),
    _command("append", "import more.npy made.zarr --append --labels more-labels.npy --model made"),
    _command("index", "index digits.zarr --kind hnsw", "digits.zarr/indexes/train/all"),
    _command("graph", "index digits.zarr --graph 5", "digits.zarr/indexes/train/all"),
    _command("sample", f"sample {LT} --name more --per-class 200", "digits.zarr/synthetic/more"),
    _command(
        "backtest",
        f"backtest {LT} --samplers duplicate --trials 2 --rows-per-class 20",
        "digits.zarr/stats/train",
    ),
    _command("train", f"train {LT} --out new"),
    _command("closed form", f"train {LT} --head gda --out new"),
    _command("synthetic", f"train {LT} --synthetic ng --out new"),
    _command("checkpoints", f"train {LT} --checkpoint run --checkpoint-every 1 --out new", "run", weight=2),
    _command(
        "minibatches",
        f"train {LT} --solver sgd --epochs 8 --checkpoint run --checkpoint-every 1 --out new",
        "run",
    ),
    _command(
        "grid",
        f"train {LT} --holdout 0.2 --grid l2=1e-3,1e-2 --grid tau=0.5,1 --refit --checkpoint run "
        "--checkpoint-every 1 --out new",
        "run",
        weight=2,
    ),
    _command("subset", "subset digits.zarr third --rule holdout --of lt"),
    _command("export npz", "export digits.zarr new.npz --format npz"),
    _command("export parts", "export digits.zarr new --format clip-retrieval --part-rows 200"),
    _command("repair", "verify digits.zarr --repair", prepare=spoil, weight=2),
    _command("text", "text photos.zarr --device cpu", "photos.zarr/stats", weight=0.1),
    _command("evaluate", "evaluate models/la models/grid --store digits.zarr --report new.html"),
    _command("predict", "predict models/la digits --json"),
)  # fmt: skip

MAKING = (
    "ingest digits digits.zarr",
    "import vectors.npy made.zarr --labels labels.npy --model made",
    "ingest digits digits.zarr --split test",
    "subset digits.zarr lt --imbalance 20",
    "subset digits.zarr val --rule holdout --of lt",
    "index digits.zarr --graph 5",
    "index digits.zarr --subset lt",
    f"sample {LT} --name ng --per-class 20",
    f"train {LT} --out models/la",
    f"train {LT} --holdout 0.2 --grid l2=1e-3,1e-2 --refit --out models/grid",
    f"backtest {LT} --samplers neighbor-gauss,duplicate --trials 2 --rows-per-class 20",
    f"ingest photos photos.zarr --encoder {TEXT_ENCODER} --device cpu",
    "text photos.zarr --device cpu",
)


def normal(data: bytes, name: str) -> Any:
    """A file as it is compared: bytes, but JSON without what two equal runs disagree about."""
    if name.endswith(".json"):
        try:
            return _without_volatile(json.loads(data))
        except ValueError:
            return data
    return data


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_volatile(one) for key, one in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_without_volatile(one) for one in value]
    return value


def files_of(directory: Path) -> dict[str, Any]:
    """Every file below a directory, in the form in which it is compared."""
    return {
        str(file.relative_to(directory)): normal(file.read_bytes(), file.name)
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run leaves."""

    files: dict[str, Any]
    result: Result
    seconds: float
    calls: int


class Workshop:
    """The directory in which every command runs, made anew from a copy for each round."""

    def __init__(self, scratch: Path, *, text: bool = True) -> None:
        self.text = text
        self.scratch, self.base, self.directory = scratch, scratch / "base", scratch / "shop"
        self._wholes: dict[str, Whole] = {}
        self._made: dict[Hashable, Any] = {}

    def make(self) -> None:
        """Make the stores and models that rounds start from."""
        self.directory.mkdir()
        class_tree(self.directory / "photos", {"aquarium_fish": 6, "bear": 4, "crane": 1})
        rng = np.random.default_rng(0)
        for vectors, labels, n_rows in (("vectors", "labels", 900), ("more", "more-labels", 700)):
            np.save(self.directory / f"{vectors}.npy", rng.standard_normal((n_rows, 12)).astype(np.float32))
            np.save(self.directory / f"{labels}.npy", rng.integers(0, 4, n_rows))
        for line in MAKING:
            if "photos" in line and not self.text:
                continue
            result = call(line.split(), self.directory, self.scratch / "making")
            assert result.code == 0, result
        self.directory.rename(self.base)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what all rounds share under this name: made by the first that asks for it."""
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found

    def renew(self, command: Command | None = None) -> Path:
        """Put everything back to how a command finds it; return the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.base, self.directory, symlinks=True)
        if command is not None:
            for name in command.writes:
                shutil.rmtree(self.directory / name, ignore_errors=True)
            if command.prepare is not None:
                command.prepare(self.directory)
        return self.directory

    def whole(self, command: Command) -> Whole:
        """What the command leaves when nothing disturbs it; the directory is left renewed."""
        from support.campaign.process import KILL, NAME, OPEN, SYNC, WRITE, arm, has_faults

        if command.name not in self._wholes:
            self.renew(command)
            began = time.perf_counter()
            count = (
                (lambda: arm(self.directory, OPEN | WRITE | SYNC | NAME, KILL, 1 << 40))
                if has_faults()
                else None
            )
            result = call(command.words, self.directory, self.scratch / "whole", *filter(None, [count]))
            seconds = time.perf_counter() - began
            assert result.code == 0, result
            calls = self.scratch / "whole.calls"
            self._wholes[command.name] = Whole(
                files_of(self.directory), result, seconds, int(calls.read_text()) if calls.exists() else 0
            )
        self.renew(command)
        return self._wholes[command.name]
