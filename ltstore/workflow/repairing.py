"""Repair a store with what its splits were made from: sources, embeddings of others, samplers, rules of subsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ltstore.encode import ingest
from ltstore.errors import ConfigError, DataError, SourceNotFoundError
from ltstore.sources import check_present, moved_record, open_recorded, ordered
from ltstore.storage import Location, Place
from ltstore.store import Store, VerifyReport, open_store
from ltstore.store import repair as repair_store
from ltstore.store.format import SplitRecord
from ltstore.transfer import import_digest, import_embeddings
from ltstore.types import IntArray, Progress, no_progress
from ltstore.workflow.encoders import reopen_encoder
from ltstore.workflow.sampling import sample
from ltstore.workflow.selection import select
from ltstore.workflow.subsets import choose_rows

_SYNTHETIC = "synthetic/"
_IMPORTED = ("format", "array", "labels", "keys", "label_array", "key_array")


def repair(
    place: Place,
    *,
    sources: Mapping[str, str | Path] | None = None,
    use_source: bool = True,
    encoder: str | None = None,
    device: str = "auto",
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> VerifyReport:
    """Make a store whole: see `ltstore.store.repair`.

    Damaged rows are made again by what their split recorded: images go through the encoder once more, imported
    embeddings are read again, synthetic rows are drawn again with their seed, cuts are chosen again by their rule.

    Parameters
    ----------
    place : path, URL or Location
    sources : mapping of split name to path, optional
        Where sources lie now; "" is for every split that needs one. A source that is named here is used or the split
        stays as it is: its rows are not given up.
    use_source : bool
        Whether sources are looked for at all.
    encoder : str, optional
        Where the encoder lies now, as after --encoder.
    device, batch_size, n_workers
        As in `ltstore.encode.open_encoder` and `ltstore.encode.ingest`.

    Returns
    -------
    VerifyReport
        Of the store afterwards; `repaired` says what was done.

    Raises
    ------
    ConfigError
        A source is named for a split that there is not, or named and not to be used.
    StoreNotFoundError, StoreFormatError
        There is no store that could be looked at.
    """
    named = dict(sources or {})
    if named and not use_source:
        raise ConfigError("a source was named, and sources are not to be used: leave one of them out")
    store = open_store(place)
    if unknown := sorted(set(named) - {"", *store.splits}):
        raise ConfigError(
            f"there is no split {unknown[0]!r} to name a source for; there are: {', '.join(store.splits) or 'none'}"
        )
    maker = _Maker(named, use_source, encoder, device, batch_size, n_workers)
    return repair_store(store.location, maker=maker, progress=progress)


class _Maker:
    """A `ltstore.store.Maker` over everything that writes splits."""

    def __init__(
        self,
        sources: Mapping[str, str | Path],
        use_source: bool,
        encoder: str | None,
        device: str,
        batch_size: int | str,
        n_workers: int | str,
    ) -> None:
        self._sources = sources
        self._use_source = use_source
        self._encoder = encoder
        self._device = device
        self._batch_size = batch_size
        self._n_workers = n_workers

    def _named(self, label: str) -> str | Path | None:
        return self._sources.get(label, self._sources.get(""))

    def insists(self, label: str) -> bool:
        return "/" not in label and self._named(label) is not None

    def prepare(
        self, store: Store, label: str, location: Location, record: SplitRecord
    ) -> Callable[[], object]:
        if label.startswith(_SYNTHETIC):
            return self._sampled(store, label.removeprefix(_SYNTHETIC), record)
        if not self._use_source:
            raise ConfigError("its source was not to be used")
        name, _, appended = label.partition("/")  # "train", or "train/generations/00001"
        known = record.settings.get("source")
        found = dict(known) if isinstance(known, Mapping) else {}
        spec = None if appended else self._named(name)
        if spec is not None:
            found = moved_record({"split": name, **found}, spec)
        if not found:
            raise ConfigError("where its source lies was not recorded: say where by --source")
        if "import" in record.settings:
            return self._imported(store, name, record, found)
        return self._ingested(store, name, record, found)

    def _ingested(
        self, store: Store, label: str, record: SplitRecord, found: Mapping[str, Any]
    ) -> Callable[[], object]:
        source = open_recorded(found, class_names=store.class_names)
        order, seed = record.settings.get("order", "source"), record.settings.get("seed", 0)
        if ordered(source, order, seed).digest != record.source_digest:
            raise DataError(
                f"the images at {found['spec']} are not those that {label} was made from "
                f"({source.n_samples} rows there, {record.n_rows} in the split): names, labels or contents differ"
            )
        check_present(source)
        spec = self._encoder or str(record.settings.get("encoder_spec", ""))
        encoder = reopen_encoder(store.encoder, spec, device=self._device)

        def make() -> None:
            ingest(
                source,
                encoder,
                store.location,
                label,
                dtype=record.dtype,
                rows_per_shard=record.rows_per_shard,
                append=bool(record.follows),
                order=order,
                seed=seed,
                batch_size=self._batch_size,
                n_workers=self._n_workers,
            )

        return make

    def _imported(
        self, store: Store, label: str, record: SplitRecord, found: Mapping[str, Any]
    ) -> Callable[[], object]:
        path = Path(str(found.get("spec", "")))
        if not path.exists():
            raise SourceNotFoundError(
                f"the embeddings that {label} was imported from are not at {path} any more"
            )
        how = {name: found[name] for name in _IMPORTED if isinstance(found.get(name), str)}
        if import_digest(path, store.class_names, **how) != record.source_digest:
            raise DataError(
                f"the embeddings at {path} are not those that {label} was imported from: names, sizes, labels or "
                "contents differ"
            )
        identity = store.encoder

        def make() -> None:
            import_embeddings(
                path,
                store.location,
                label,
                class_names=store.class_names,
                model=identity.model,
                weights=identity.weights,
                normalized=identity.normalized,
                dtype=record.dtype,
                rows_per_shard=record.rows_per_shard,
                append=bool(record.follows),
                **how,
            )

        return make

    def _sampled(self, store: Store, name: str, record: SplitRecord) -> Callable[[], object]:
        settings: dict[str, Any] = dict(record.settings)
        made_from = settings.get("made_from")
        if not isinstance(made_from, Mapping) or not isinstance(settings.get("sampler_settings"), Mapping):
            raise ConfigError("how these rows were sampled was not recorded")
        split, subset = str(made_from.get("split")), made_from.get("subset")
        if select(store, split, subset).rows.digest != record.source_digest:
            raise DataError(f"the rows of {subset or split} that they were sampled from have changed")
        how = {key: settings[key] for key in ("sampler", "per_class", "max_ratio", "donors_by", "seed")}
        settings_of = settings["sampler_settings"]
        return partial(
            sample,
            store,
            name=name,
            settings=settings_of,
            split=split,
            subset=subset,
            dtype=record.dtype,
            **how,
        )

    def subset_ids(
        self, store: Store, label: str, name: str, settings: Mapping[str, Any]
    ) -> Sequence[IntArray]:
        if label.startswith(_SYNTHETIC) or label not in store.splits:
            raise ConfigError("only subsets of splits are chosen by a rule")
        how = {key: settings[key] for key in ("imbalance", "fraction", "of", "seed") if key in settings}
        rule = str(settings.get("rule", ""))
        if rule == "file":
            raise ConfigError("its rows were given by a file, which is not kept")
        return list(choose_rows(store.split(label), name, rule=rule, **how).values())
