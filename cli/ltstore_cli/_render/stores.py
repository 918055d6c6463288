"""What a store holds, and what was read into it, copied out of it, checked and mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ltstore_cli._render.terminal import crew, line, note, pairs, size, table, warning

if TYPE_CHECKING:
    from ltstore.encode import IngestReport, Usage
    from ltstore.store import Problem, Repair, VerifyReport
    from ltstore.transfer import ExportReport, ImportReport
    from ltstore.types import Encoder


def left_out(n_ignored: Mapping[str, int]) -> None:
    """Say which files of a folder, or members of tars, are no rows."""
    words = {
        "top_level": "images beside the class directories",
        "suffix": "files that are no images",
        "hidden": "hidden names",
        "not_a_file": "broken links",
        "linked_twice": "directories reached twice",
        "second_image": "second images of a sample",
        "lone_table": "Parquet files without their tar",
    }
    found = [f"{count:,} {words.get(name, name)}" for name, count in n_ignored.items() if count]
    if found:
        note(f"left out: {', '.join(found)}")


def ingest_summary(report: IngestReport, store: str, split: str, encoder: Encoder) -> None:
    """Print what an ingest did and what limited it."""
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    kept = report.n_rows - report.n_encoded
    items: list[tuple[str, Any]] = [
        ("store", f"{store}, split {split}"),
        *(("beside it", f"{each.store}, failed {_failures(each.failures)}") for each in report.beside),
        ("encoder", f"{encoder.spec} on {encoder.device}, {encoder.identity.n_features} features"),
        (
            "rows",
            f"{report.n_rows:,}"
            + (f" ({kept:,} were there already)" if kept else "")
            + _after(report.first_row),
        ),
        ("preprocessing", ", ".join(f"{k} {v}" for k, v in encoder.identity.preprocessing.items())),
        ("failed", _failures(report.failures)),
    ]
    if report.engine:
        items.append(("workers", crew(report.engine)))
    if report.n_encoded:
        items.append(("time", f"{report.seconds:.1f} s, {report.images_per_second:,.0f} images/s ({shares})"))
        reasons = report.reasons
        items.append(
            (
                "run with",
                f"batches of {report.batch_size} ({reasons['batch_size']}), two of them decoded ahead by "
                f"{report.n_workers} threads ({reasons['n_workers']})",
            )
        )
    if report.usage is not None:
        items.append(("limited by", _limit(report.usage)))
    pairs(items)
    if report.n_failed:
        lost = "1 image has no embedding; its row is"
        if report.n_failed > 1:
            lost = f"{report.n_failed:,} images have no embedding; their rows are"
        warning(f"{lost} kept with the reason (`ltstore info`)")


def limits(splits: Mapping[str, Usage]) -> None:
    """Print what limited the ingest of each split."""
    pairs([(f"{name} was limited by", _limit(found)) for name, found in splits.items()])


def _limit(found: Usage) -> str:
    words = {"read": "reading", "decode": "decoding", "encode": "the encoder", "write": "writing"}
    gpu = "" if found.gpu is None else f" (GPU {found.gpu:.0%})"
    return (
        f"{words[found.limit]}: workers {found.workers:.0%} busy, encoder {found.encoder:.0%}{gpu}, "
        f"writer {found.writer:.0%}; what helps: {found.advice}"
    )


def _after(first_row: int) -> str:
    return f", appended after {first_row:,} rows" if first_row else ""


def _failures(failures: Mapping[str, int]) -> str:
    found = {name: count for name, count in failures.items() if count}
    return ", ".join(f"{count:,} {name.lower()}" for name, count in found.items()) or "none"


def store_facts(facts: Mapping[str, Any]) -> None:
    """Print what `store_info` found."""
    encoder = facts["encoder"]
    weights = f"/{encoder['weights']}" if encoder["weights"] else ""
    pairs(
        [
            ("store", facts["path"]),
            ("format", f"version {facts['format_version']}"),
            ("encoder", f"{encoder['encoder']}:{encoder['model']}{weights}, {encoder['n_features']} features"),
            ("preprocessing", ", ".join(f"{k} {v}" for k, v in encoder["preprocessing"].items())),
            ("classes", facts["n_classes"]),
            ("size", size(facts["n_bytes"])),
        ]
    )
    rows = [
        (
            "split" if kind == "splits" else kind,
            name,
            split["n_rows"],
            split["dtype"],
            _failures(split["failures"]),
            split["classes"]["largest"],
            split["classes"]["smallest"],
            _state(split),
        )
        for kind in ("splits", "synthetic")
        for name, split in facts[kind].items()
        if "damaged" not in split
    ]
    if rows:
        columns = ("kind", "name", "rows", "dtype", "failed", "largest class", "smallest class", "state")
        table(columns, rows, left=("kind", "name", "state", "failed"))
    subsets = [
        (name, subset, entry["n_rows"], entry["classes"]["largest"], entry["classes"]["smallest"], _rule(entry))
        for name, split in facts["splits"].items()
        for subset, entry in split.get("subsets", {}).items()
    ]
    if subsets:
        table(
            ("split", "subset", "rows", "largest class", "smallest class", "rule"),
            subsets,
            left=("split", "subset", "rule"),
        )
    for kind in ("splits", "synthetic"):
        for name, split in facts[kind].items():
            if "damaged" in split:
                warning(f"{name} is damaged: {split['damaged']}")
            if order := split.get("settings", {}).get("order"):
                note(f"{name} has its rows {order}, seed {split['settings'].get('seed')}")
            if kept := split.get("quarantine"):
                note(f"{name} keeps {len(kept)} damaged things aside in quarantine: {', '.join(kept)}")
            for row in split.get("failed_rows", ()):
                note(f"{name} row {row['row']:,} failed: {row['error']}")
    for kind in ("indexes", "stats"):
        if facts[kind]:
            pairs([(kind, ", ".join(facts[kind]))])
    for name, found in facts["index_reports"].items():
        if "damaged" in found:
            warning(f"the index of {name} is damaged: {found['damaged']}")
        elif found["reached"] is False:
            recall = ", ".join(f"{group} {value:.3f}" for group, value in found["recall"].items())
            warning(
                f"the {found['kind']} index of {name} finds {recall} of the neighbours: {found['wanted']:g} was wanted"
            )


def _rule(subset: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in subset["settings"].items() if value is not None)


def _state(split: Mapping[str, Any]) -> str:
    if appending := split["appending"]:
        done = f"{appending['rows_written']:,} of {appending['n_rows']:,}"
        return f"complete; {done} more rows are being appended"
    if split["complete"]:
        times = len(split["generations"]) - 1
        return (
            f"complete, appended to {times} times"
            if times > 1
            else "complete, appended to"
            if times
            else "complete"
        )
    return f"{split['rows_written']:,} of {split['n_rows']:,} rows written; the same command again resumes"


def verify_summary(report: VerifyReport, store: str, *, repair: bool = False) -> None:
    """Print what `verify` found, and what a repair did before."""
    for step in report.repaired:
        line(f"{step.action:<11} {_where(step, store)}: {step.message}")
    for problem in report.problems:
        line(f"{_where(problem, store)}: {problem.message}")
    for text in report.notes:
        note(f"note: {text}")
    if repair:
        counts = Counter(step.action for step in report.repaired)
        line(f"repair: {', '.join(f'{count} {action}' for action, count in counts.items()) or 'nothing to do'}")
    state = "whole" if report.ok else f"damaged: {len(report.problems)} problems"
    line(f"{store}: {state}; {report.n_shards:,} shards, {size(report.n_bytes)}, {report.seconds:.1f} s")
    if not report.ok and not repair:
        note(f"`ltstore verify {store} --repair` re-makes or quarantines these")
    elif not report.ok:
        note(
            "these remain: put the named files back from a copy, or write the split again, and run this once more"
        )


def _where(found: Problem | Repair, store: str) -> str:
    chunk = getattr(found, "chunk", None)
    parts = [found.split or str(store), found.array]
    parts += [f"shard {found.shard}"] if found.shard is not None else []
    parts += [f"chunk {chunk}"] if chunk is not None else []
    parts += [f"rows {found.rows[0]:,}..{found.rows[1] - 1:,}"] if found.rows is not None else []
    return ", ".join(part for part in parts if part)


def import_summary(report: ImportReport) -> None:
    """Print what an import found and wrote."""
    kept = report.n_rows - report.n_written
    encoder = report.encoder
    norm = ", unit norm" if encoder["normalized"] else ""
    items: list[tuple[str, Any]] = [
        ("store", f"{report.store}, split {report.split}"),
        (
            "source",
            f"{report.source}: {report.format} {report.array}".rstrip() + f", {report.n_parts:,} part(s)",
        ),
        ("encoder", f"import:{encoder['model']} {encoder['weights']}".rstrip() + norm),
        (
            "rows",
            f"{report.n_rows:,}"
            + (f" ({kept:,} were there already)" if kept else "")
            + _after(report.first_row),
        ),
        ("embeddings", f"{report.n_features} features, {report.dtype} ({report.dtype_reason})"),
        ("labels", f"{report.n_labelled:,} from {report.labels_from}" if report.labels_from else "none"),
        ("classes", report.n_classes),
        ("keys", report.keys_from or "none found: FILE#ROW"),
        ("failed", _failures(report.failures)),
    ]
    if report.ignored:
        items.append(("not taken", ", ".join(report.ignored)))
    if report.engine:
        items.append(("workers", crew(report.engine)))
    items.append(("time", f"{report.seconds:.1f} s, {size(report.bytes_per_second)}/s"))
    pairs(items)
    if report.n_failed:
        warning(f"{report.n_failed:,} rows have no embedding; they are kept with the reason (`ltstore info`)")


def export_summary(report: ExportReport) -> None:
    """Print what an export wrote."""
    rows = f"{report.n_rows:,}" + (f" ({report.n_skipped:,} failed rows left out)" if report.n_skipped else "")
    shown = report.files[:6] + ([f"and {len(report.files) - 6:,} more"] if len(report.files) > 6 else [])
    pairs(
        [
            ("out", f"{report.out}: {report.format}, {report.n_parts:,} part(s)"),
            ("files", ", ".join(shown)),
            ("rows", rows),
            ("embeddings", f"{report.n_features} features, {report.dtype}"),
            ("time", f"{report.seconds:.1f} s, {size(report.bytes_per_second)}/s"),
        ]
    )
