"""The whole chain on scikit-learn's handwritten digits: real images, no download, under a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.encode import ingest, open_encoder
from ltstore.linear import TrainSettings
from ltstore.sources import open_source, source_record
from ltstore.types import Donors
from ltstore.workflow.evaluation.judging import EvaluateResult, evaluate
from ltstore.workflow.neighborhood import build_store_index, store_donors
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.subsets import make_subset
from ltstore.workflow.training.head import train

CEILING = "all-rows"
# name: what `train` is called with
HEADS: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    CEILING: {"loss": "ce", "subset": None},
    "nearest-mean": {"head": "ncm"},
    "gda": {"head": "gda"},
    "logit-adjusted": {"loss": "la"},
    "neighbor-gauss": {"loss": "la", "sampler": "neighbor-gauss", "donors_by": "index"},
}


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """What `quickstart` made and found."""

    directory: str
    store: str
    subset: str
    example_row: int
    report: str
    n_train: int
    n_test: int
    donors: Donors
    evaluation: EvaluateResult
    train_seconds: dict[str, float]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "directory": self.directory,
            "store": self.store,
            "subset": self.subset,
            "example_row": self.example_row,
            "report": self.report,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "train_seconds": self.train_seconds,
            "seconds": self.seconds,
            "evaluation": self.evaluation.to_json(),
        }


def quickstart(
    directory: Path | str = "quickstart",
    *,
    imbalance: float = 50.0,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> QuickstartResult:
    """Ingest, cut a long tail, index, find donors, train, compare, report.

    Parameters
    ----------
    directory : path
        Gets digits.zarr, models/ and report.html. What an earlier quickstart left there is used or replaced.
    imbalance : float
        Largest over smallest class of the cut.
    seed : int
        Of the cut, the synthetic rows and the bootstrap.
    announce : callable
        Called with one line before each step.
    """
    started = time.perf_counter()
    home = Path(directory)
    store_path = home / "digits.zarr"
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        announce(f"ingest     {source.n_samples:,} {split} images of handwritten digits -> {store_path}")
        ingest(
            source,
            open_encoder("pixels", source=source),
            store_path,
            split,
            source_record=source_record("digits", split=split),
        )
    subset = f"lt{imbalance:g}" if seed == 0 else f"lt{imbalance:g}-seed{seed}"
    make_subset(store_path, subset, rule="exp", imbalance=imbalance, seed=seed)
    selection = select(store_path, "train", subset)
    sizes = ", ".join(map(str, selection.counts))
    announce(f"subset     {subset}: {selection.rows.n_samples:,} rows, class sizes {sizes}")
    index = build_store_index(store_path, subset=subset)
    announce(f"index      {index.n_rows:,} rows, {index.kind}")
    _, donors = store_donors(store_path, subset=subset, by="index")
    announce(f"donors     {_first_donor(selection, donors)}")
    seconds = {}
    for name, how in HEADS.items():
        chosen = select(store_path, "train", how.get("subset", subset))
        arguments = {key: value for key, value in how.items() if key not in ("subset", "loss")}
        if "loss" in how:
            arguments["settings"] = TrainSettings(loss=how["loss"], seed=seed)
        outcome = train(chosen, force=True, out=home / "models" / name, **arguments)
        seconds[name] = outcome.seconds
        passes = f"{outcome.n_passes} passes" if outcome.n_passes else "closed form"
        rows = f"{chosen.rows.n_samples:,} real + {outcome.targets.sum():,} synthetic rows"
        announce(f"train      {name:<15} {rows}, {passes}, {outcome.seconds:.2f} s")
    report = home / "report.html"
    announce(f"evaluate   {len(HEADS)} models on the test split -> {report}")
    evaluation = evaluate(
        [home / "models" / name for name in HEADS],
        store_path,
        ceiling=home / "models" / CEILING,
        report=report,
        seed=seed,
    )
    return QuickstartResult(
        directory=str(home),
        store=str(store_path),
        subset=subset,
        example_row=int(selection.rows.row_ids[0]),
        report=str(report),
        n_train=selection.rows.n_samples,
        n_test=len(evaluation.labels),
        donors=donors,
        evaluation=evaluation,
        train_seconds=seconds,
        seconds=time.perf_counter() - started,
    )


def _first_donor(selection: Selection, donors: Donors) -> str:
    """Say which class lends most to the smallest class that borrows."""
    names = selection.store.class_names
    borrowers = [c for c in selection.counts.argsort(kind="stable") if donors.class_ids[c, 0] >= 0]
    if not borrowers:
        return "no class needs one"
    c = borrowers[0]
    lenders = [
        f"{names[donor]!r} {weight:.0%}"
        for donor, weight in zip(donors.class_ids[c], donors.weights[c], strict=True)
        if donor >= 0
    ]
    return f"{names[c]!r} ({selection.counts[c]} rows) borrows from {', '.join(lenders[:3])}"
