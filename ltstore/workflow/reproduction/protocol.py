"""The whole protocol on a published data set: ingest, cut, every baseline over seeds, one table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltstore.atomic import write_bytes, write_json
from ltstore.encode import ingest
from ltstore.engine import Engine
from ltstore.errors import ConfigError, DataError, StoreNotFoundError
from ltstore.linear import load_model
from ltstore.provenance import versions
from ltstore.sources import PublishedSet, open_source, published_set, source_record
from ltstore.storage import Place
from ltstore.store import Store, open_store
from ltstore.types import Encoder, Progress, TextEncoder, no_progress
from ltstore.workflow.class_text import class_text, embed_class_names
from ltstore.workflow.evaluation.judging import compare
from ltstore.workflow.evaluation.reporting import write_evaluation_report
from ltstore.workflow.reproduction.baselines import BASELINES, REFERENCE, Baseline
from ltstore.workflow.reproduction.standings import HeadRecord, Standing, markdown, standings
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.subsets import make_subset
from ltstore.workflow.training.fitted import ZERO_SHOT
from ltstore.workflow.training.head import train

IMBALANCE = 100.0
N_SEEDS = 3
Ingesting = Callable[[str, int], AbstractContextManager[tuple[Progress, Callable[[int], None]]]]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What `reproduce` has found, of this run and of earlier ones in the same directory.

    Attributes
    ----------
    directory : Path
        Holds store.zarr, models/, records/, results.json, results.md and report.html.
    facts : mapping of str to str
        What the table is about, in words.
    deviations : tuple of str
        Where data or heads are not what the protocol asks for.
    table : tuple of Standing
    """

    directory: Path
    facts: Mapping[str, str]
    deviations: tuple[str, ...]
    table: tuple[Standing, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "directory": str(self.directory),
            "facts": dict(self.facts),
            "deviations": list(self.deviations),
            "table": [one.to_json() for one in self.table],
        }

    def to_markdown(self) -> str:
        """Return facts, table and how to read it."""
        facts = [f"- {name}: {value}" for name, value in self.facts.items() if name != "data set"]
        facts += [f"- **not as published**: {text}" for text in self.deviations]
        return f"# {self.facts['data set']}\n\n" + "\n".join(facts) + f"\n\n{markdown(self.table)}\n{_LEGEND}"


_LEGEND = f"""\
Percent of the official test rows: mean over seeds, ± half of its 95 % bootstrap interval over test rows, in brackets
the standard deviation over seeds. Many, medium and few: classes of more than 100, 20 to 100, fewer than 20 training
rows. Gains over {REFERENCE} in points, paired on the same rows; * p < 0.05 after Holm's correction over the heads.
Gap closed: share of the way from ce to all-rows in balanced accuracy. A head that neither draws nor is trained on a
cut of the seed is made once.
"""


def reproduce(
    name: str,
    out: Path | str,
    *,
    data: Path | str | None = None,
    encoder: Encoder | None = None,
    store: Place | None = None,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    engine: Engine | None = None,
    imbalance: float | None = None,
    n_seeds: int = N_SEEDS,
    heads: Sequence[str] = (),
    ingesting: Ingesting = lambda split, n_rows: nullcontext((no_progress, lambda n_failed: None)),
    announce: Callable[[str], None] = lambda text: None,
) -> Reproduction:
    """Run the protocol on a data set; the same call again goes on, and more heads or seeds are added to what is there.

    Parameters
    ----------
    name : str
        Of `ltstore.sources.PUBLISHED`.
    out : path
        Directory for everything that is made; settings that its results were not made with are refused.
    data : path
        Directory (or CIFAR's tar) with the official files; not used with `store`.
    encoder : Encoder
        Not used with `store`.
    store : path or URL, optional
        A store that holds the official splits "train" and "test" already.
    batch_size, n_workers, engine
        Of the ingest, as in `ltstore.encode.ingest`.
    imbalance : float, optional
        Of a data set whose tail is cut, 100 by default; refused for the others.
    n_seeds : int
        Seeds 0, 1, ...: of the cut, and of everything drawn.
    heads : sequence of str, optional
        Of `BASELINES`, all that the data set can have by default; the reference is made in any case.
    ingesting : callable
        Called with a split and its rows; a context that gives `progress` and `on_failed` of `ltstore.encode.ingest`.
    announce : callable
        Called with a line before each step and after each head, which says how long the rest may take.

    Raises
    ------
    ConfigError
        Unknown names, or results made with other settings, rows or encoder: names the difference.
    SourceNotFoundError
        The data is not there: names the file, and where to get it.
    EncoderMismatchError
        The store was begun with another encoder.
    DataError
        A record in the directory is damaged.

    Notes
    -----
    Each head is a model in models/seed<N>/ and then a record in records/seed<N>/, both whole or not there at all.
    """
    published, home = published_set(name), Path(out)
    if imbalance is not None and not published.cut:
        raise ConfigError(f"{name} comes with its own long tail: leave the imbalance out")
    if n_seeds < 1:
        raise ConfigError(f"at least one seed is needed, found {n_seeds}")
    if unknown := sorted(set(heads) - set(BASELINES)):
        raise ConfigError(f"no head {unknown[0]!r}; known: {', '.join(BASELINES)}")
    imbalance = (imbalance or IMBALANCE) if published.cut else None
    _hold_to(home, {"data set": name, "imbalance": imbalance})
    place: Place = home / "store.zarr" if store is None else store
    if store is None:
        how = {"batch_size": batch_size, "n_workers": n_workers, "engine": engine}
        _ingest(published, data, encoder, place, ingesting, announce, **how)
    opened = open_store(place)
    every_row, test = select(opened, "train"), select(opened, "test")
    test.check()
    rows = {"train rows": every_row.rows.digest, "test rows": test.rows.digest}
    identity = {f"encoder's {key}": value for key, value in opened.encoder.to_json().items()}
    _hold_to(home, {**identity, **rows})
    wanted = _wanted(published, heads, has_text=_has_text(opened, encoder, announce))
    cuts = [_cut(opened, imbalance, seed) for seed in range(n_seeds)]
    missing = [
        (seed, head)
        for seed in range(n_seeds)
        for head in wanted
        if (seed == 0 or _differs(published, BASELINES[head])) and not _record(home, seed, head).exists()
    ]
    started = time.perf_counter()
    for done, (seed, head) in enumerate(missing, 1):
        rows_of = every_row if BASELINES[head].all_rows else cuts[seed]
        record = _judged(home, head, seed, rows_of, cuts[seed], test)
        write_json(_record(home, seed, head), record.to_json())
        found = record.evaluation
        few = "" if found.few is None else f", few {100 * found.few.value:.1f}"
        left = (time.perf_counter() - started) / done * (len(missing) - done) / 60
        announce(
            f"{head:<25} seed {seed}: {100 * found.overall.value:.1f} %{few}; {record.seconds:.1f} s; "
            f"{done} of {len(missing)} heads, about {left:.0f} min left"
        )
    records = _read_records(home)
    counts = cuts[0].counts
    result = Reproduction(
        directory=home,
        facts={
            "data set": f"{name} ({published.reference})",
            "encoder": f"{opened.encoder.encoder} {opened.encoder.model}, {opened.encoder.n_features} features",
            "training rows": f"{counts.sum():,} in {len(counts):,} classes, {counts.max():,} to {counts.min():,} each"
            + ("" if imbalance is None else f" (imbalance {imbalance:g}, cut anew by every seed)"),
            "test rows": f"{test.rows.n_samples:,}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": ", ".join(f"{package} {number}" for package, number in versions().items()),
            "heads made": _dates(records),
        },
        deviations=tuple(_deviations(published, every_row, test)),
        table=standings(records, test.rows.labels),
    )
    write_json(home / "results.json", result.to_json())
    write_bytes(home / "results.md", result.to_markdown().encode())
    if missing or not (home / "report.html").exists():
        announce("report")
        _write_report(home, [record.head for record in records if record.seed == 0], test)
    return result


def _ingest(
    published: PublishedSet,
    data: Path | str | None,
    encoder: Encoder | None,
    place: Place,
    ingesting: Ingesting,
    announce: Callable[[str], None],
    **how: Any,
) -> None:
    if data is None or encoder is None:
        raise ConfigError(
            f"{published.name} needs its official files (--data) and an encoder (--encoder), or a store (--store)"
        )
    opened = {split: open_source(**published.source(data, split)) for split in ("test", "train")}
    for split, source in opened.items():
        announce(f"ingest {source.n_samples:,} {split} images -> {place}")
        words = {key: value for key, value in published.source(data, split).items() if key != "class_names"}
        with ingesting(split, source.n_samples) as (progress, on_failed):
            ingest(
                source,
                encoder,
                place,
                split,
                class_names=opened["train"].class_names,
                source_record=source_record(**words),
                progress=progress,
                on_failed=on_failed,
                **how,
            )


def _has_text(store: Store, encoder: Encoder | None, announce: Callable[[str], None]) -> bool:
    """Whether the store has text vectors of its classes, made here where its encoder can."""
    try:
        class_text(store)
    except StoreNotFoundError:
        if not isinstance(encoder, TextEncoder):
            return False
        announce(f"text of {len(store.class_names):,} class names")
        embed_class_names(store, device=encoder.device)
    return True


def _wanted(published: PublishedSet, heads: Sequence[str], *, has_text: bool) -> list[str]:
    """Return the names of the heads to make, in the order of `BASELINES`; ConfigError for one that cannot be."""
    possible = [
        head
        for head, one in BASELINES.items()
        if (has_text or not one.needs_text) and (published.cut or not one.all_rows)
    ]
    for head in heads:
        if head not in possible:
            why = "no text vectors: the encoder has no text tower" if BASELINES[head].needs_text else "no cut"
            raise ConfigError(f"{published.name} cannot have head {head!r} here: there is {why}, leave it out")
    return [head for head in possible if not heads or head in (REFERENCE, *heads)]


def _cut(store: Store, imbalance: float | None, seed: int) -> Selection:
    if imbalance is None:
        return select(store, "train")
    subset = f"exp{imbalance:g}-seed{seed}"
    make_subset(store, subset, rule="exp", imbalance=imbalance, seed=seed)
    return select(store, "train", subset)


def _differs(published: PublishedSet, baseline: Baseline) -> bool:
    """Whether a head of another seed is another head."""
    untouched = baseline.all_rows or baseline.head == ZERO_SHOT
    return baseline.draws or (published.cut and not untouched)


def _judged(
    home: Path, head: str, seed: int, trained_on: Selection, cut: Selection, test: Selection
) -> HeadRecord:
    """Train a head, keep its model, and judge it on the test rows, groups by the rows of the cut."""
    started = time.perf_counter()
    model = train(trained_on, **BASELINES[head].words(seed), out=_model(home, seed, head), force=True).model
    seconds = time.perf_counter() - started
    (judged,) = compare({head: replace(model, class_counts=cut.counts)}, test.rows).models
    return HeadRecord(
        head=head,
        seed=seed,
        evaluation=judged.evaluation,
        predictions=judged.predictions,
        seconds=max(seconds, judged.cost.seconds or 0.0),  # a backtest may have been made by a run before
        provenance=model.record,
    )


def _write_report(home: Path, heads: Iterable[str], test: Selection) -> None:
    """Write the report of seed 0: about `auto` if it is there, else about the last head that draws."""
    ordered = sorted(heads, key=lambda head: (BASELINES[head].draws, head == "auto"))
    models = {head: load_model(_model(home, 0, head)) for head in ordered}
    result = compare(models, test.rows, baseline=ordered.index(REFERENCE))
    write_evaluation_report(home / "report.html", result, test.store)


def _hold_to(home: Path, given: Mapping[str, Any]) -> None:
    """Write down what results in a directory are made with; ConfigError where it was something else."""
    path, given = home / "settings.json", json.loads(json.dumps(given))
    try:
        there: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as err:
        raise DataError(f"{path} is damaged ({err}): use another directory") from err
    for key, value in given.items():
        if key in there and there[key] != value:
            raise ConfigError(
                f"the results in {home} were made with {key} {there[key]}, found {value}: use another --out"
            )
    if not given.items() <= there.items():
        write_json(path, {**there, **given})


def _read_records(home: Path) -> list[HeadRecord]:
    """Return all records in a directory, by seed and in the order of `BASELINES`."""
    records = []
    for path in (home / "records").glob("seed*/*.json"):
        try:
            records.append(HeadRecord.from_json(json.loads(path.read_bytes())))
        except (ValueError, KeyError, TypeError) as err:
            raise DataError(f"{path} is no record of a head ({err}): remove it, and run again") from err
    order = list(BASELINES)
    return sorted(records, key=lambda record: (record.seed, order.index(record.head)))


def _deviations(published: PublishedSet, train_rows: Selection, test: Selection) -> Iterable[str]:
    official = {"train": published.n_train, "test": published.n_test}
    for selection in (train_rows, test):
        expected, found = official[selection.split], selection.rows.n_samples
        if found != expected:
            yield f"{found:,} usable {selection.split} rows, the official files have {expected:,}"
    if len(test.store.class_names) != published.n_classes:
        yield f"{len(test.store.class_names):,} classes, the official files have {published.n_classes:,}"


def _dates(records: Sequence[HeadRecord]) -> str:
    days = sorted({str(record.provenance["created"])[:10] for record in records})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _record(home: Path, seed: int, head: str) -> Path:
    return home / "records" / f"seed{seed}" / f"{head}.json"


def _model(home: Path, seed: int, head: str) -> Path:
    return home / "models" / f"seed{seed}" / head
