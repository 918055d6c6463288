"""Mutate small stores and read them: a named error, the right rows, or a report of verify; nothing else.

    PYTHONPATH=tests python -m support.store_fuzz --rounds 5000 --seed 1

Each round copies one of a few small stores (raw, recompressed, without rows, not complete, with a synthetic split),
damages one to three of its files (bits, cuts, growth, splices, swaps, nasty JSON values under a new seal, new
shard indexes under a new checksum, removal, doubles, links, directories, pipes) and reads everything in a process of
its own, under a limit of memory and of time. The answer must be a named error, or that of the store before the
damage, or one that verify reports; embeddings may differ only in shards that verify names.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import zarr

from ltstore.errors import LtstoreError
from ltstore.store import Split, Store, open_store, store_info, verify
from ltstore.store import zarr_arrays as _zarr_arrays  # noqa: F401
from ltstore.store.format import seal
from support.stores import begin, columns, made_store, new_store, write_pending

SECONDS = 20.0
MEMORY_BYTES = 1 << 30  # beyond what the process has when it starts

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 19, 21, 1 << 31, 1 << 36, (1 << 36) + 1, 1 << 62, 1 << 64, 10**300, 0.5, -0.0,
    1e308, 20.0, "", "x", "\0", "a\nb", "../x", "/", "é", "\u202e", "NaN", "Infinity", "float64", "float32", "int8",
    "complete", "writing", "sha256:" + "0" * 64, "x" * 5000, [], {}, [[]], [0], [-1], [1 << 40], [20], [20, 5],
    [1 << 40, 5], [4, 5], [2], {"name": "zstd"}, {"name": "regular"}, {"a": {"a": {"a": 1}}}, [None], list(range(300)),
]  # fmt: skip
WORDS = [0, 1, 4, 20, 84, 100, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 84]


def make_stores(path: Path) -> list[Path]:
    """The stores that are damaged, each of a few kilobytes."""
    raw = made_store(path / "raw")
    raw.split("train").add_subset("cut", [0, 2, 19], settings={"rule": "exp", "imbalance": 3.5})
    raw.split("train").add_subset("none", [], settings={})
    with raw.begin_split("more", n_rows=9, source_digest="", rows_per_shard=4, synthetic=True) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            ids = np.arange(2 * start, 2 * stop).reshape(-1, 2)
            writer.write_shard(shard, **columns(9, start, stop), extra={"parent_ids": ids})
        writer.finish()
    with raw.begin_split("test", n_rows=0, source_digest="") as writer:
        writer.finish()
    made_store(path / "wide", 2500, 2048, dtype="float32").split("train")
    half = new_store(path / "half")
    with begin(half, 20) as writer:
        writer.write_shard(1, **columns(20, 8, 16))
    for name, codec in (
        ("zstd", zarr.codecs.ZstdCodec()),
        ("gzip", zarr.codecs.GzipCodec()),
        ("blosc", zarr.codecs.BloscCodec()),
    ):
        store = made_store(path / name)
        for array, sizes in (("embeddings", (4, 5)), ("labels", (4,)), ("status", (20,))):
            values = np.asarray(zarr.open_array(store.path / "train" / array, mode="r")[...])
            shutil.rmtree(store.path / "train" / array)
            shards = (8, *sizes[1:]) if name == "zstd" and array != "status" else None
            zarr.create_array(
                store.path / "train" / array,
                shape=values.shape,
                dtype=values.dtype,
                chunks=sizes,
                shards=shards,
                compressors=codec,
                config={"write_empty_chunks": True},
            )[...] = values
    with begin(new_store(path / "one"), 1, 1) as writer:
        write_pending(writer)
        writer.finish()
    return sorted(entry for entry in path.iterdir())


# what can be done to a file


def _bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 2, 8])):
        if data:
            data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.choice([0, rng.randint(0, len(data)), max(len(data) - rng.randint(1, 40), 0)]) :]


def _grow(data: bytearray, rng: random.Random) -> None:
    data += rng.choice([b"\0", rng.randbytes(rng.randint(1, 100)), bytes(data), bytes(5000)])


def _splice(data: bytearray, rng: random.Random) -> None:
    if data:
        start, stop = sorted(rng.randint(0, len(data)) for _ in range(2))
        piece = data[start:stop]
        where = rng.randint(0, len(data))
        data[where : where + rng.choice([0, len(piece)])] = piece


def _number(data: bytearray, rng: random.Random) -> None:
    """A hostile integer somewhere, of one to eight bytes."""
    size = rng.choice([1, 2, 4, 8])
    if len(data) > size:
        where = rng.randrange(len(data) - size)
        data[where : where + size] = rng.choice(WORDS).to_bytes(8, rng.choice(["little", "big"]))[:size]


def _index(data: bytearray, rng: random.Random) -> None:
    """Another entry of the index of a shard, with a checksum that holds."""
    n_chunks = rng.choice([1, 1, 2])
    size = 16 * n_chunks
    if len(data) < size + 4:
        return
    index = bytearray(data[-size - 4 : -4])
    for _ in range(rng.choice([1, 1, 2])):
        where = 8 * rng.randrange(2 * n_chunks)
        index[where : where + 8] = struct.pack("<Q", rng.choice([*WORDS, rng.randint(0, len(data))]))
    if n_chunks == 2 and rng.random() < 0.3:  # two chunks change places
        index = index[16:] + index[:16]
    data[-size - 4 :] = bytes(index) + struct.pack("<I", google_crc32c.value(bytes(index)))


def _checksummed(data: bytearray, rng: random.Random) -> None:
    """Other values in the first chunk, with a checksum that holds: the rows are wrong and look right."""
    for size in (84, 68, 12, 4100, 8196, 28):
        if len(data) > size and google_crc32c.value(bytes(data[: size - 4])) == int.from_bytes(
            data[size - 4 : size], "little"
        ):
            data[rng.randrange(size - 4)] ^= 1 << rng.randrange(8)
            data[size - 4 : size] = struct.pack("<I", google_crc32c.value(bytes(data[: size - 4])))
            return


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for child in value.values():
            found += nodes(child)
    elif isinstance(value, list):
        found += [(value, key) for key in range(len(value))]
        for child in value:
            found += nodes(child)
    return found


def _json(data: bytearray, rng: random.Random) -> None:
    """A nasty value somewhere in a document, whose seal is made anew or not."""
    try:
        document = json.loads(bytes(data))
        places = nodes(document)
    except ValueError:
        return
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        container, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.75:
            container[key] = copy.deepcopy(rng.choice(NASTY))
        elif kind < 0.85 and isinstance(container, dict):
            container.pop(key, None)
        elif isinstance(container, dict):
            container[rng.choice(["x", "é", "sha256", "name", "attributes"])] = copy.deepcopy(rng.choice(NASTY))
        else:
            container.append(copy.deepcopy(rng.choice(NASTY)))
        places = nodes(document)
        if not places:
            break
    if rng.random() < 0.6:
        with suppress(TypeError, ValueError, AttributeError):
            document = seal(document)
    data[:] = json.dumps(document).encode()
    if rng.random() < 0.05:
        data[:] = data.replace(b"{", b'{"zarr_format": 3, "zarr_format": 3, ', 1)
    if rng.random() < 0.05:
        data[:] = data.replace(b"1", rng.choice([b"1e999", b"NaN", b"1" * 5000, b"-0", b"01"]), 1)


KINDS = (
    *(
        "bits",
        "bytes",
        "cut",
        "grow",
        "splice",
        "number",
        "index",
        "checksummed",
        "json",
        "json",
        "json",
        "json",
    ),
    *("swap", "delete", "copy", "link", "directory", "remove tree", "pipe", "link out"),
)


def damage(path: Path, rng: random.Random) -> list[str]:
    """Damage a store; return what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        if not files:
            break
        documents = [file for file in files if file.suffix == ".json"]
        kind = rng.choice(KINDS)
        file = rng.choice(documents if kind == "json" and documents else files)
        if kind in ("index", "checksummed"):
            shards = [entry for entry in files if "c" in entry.parts]
            file = rng.choice(shards or files)
        what = str(file.relative_to(path))
        change = _CHANGES.get(kind)
        if change is not None:
            data = bytearray(file.read_bytes())
            change(data, rng)
            file.write_bytes(data)
        elif kind in ("swap", "copy", "link"):
            other = rng.choice(files)
            what += f" and {other.relative_to(path)}"
            data_, more = file.read_bytes(), other.read_bytes()
            if kind == "swap":
                file.write_bytes(more)
                other.write_bytes(data_)
            elif kind == "copy":
                file.write_bytes(more)
            elif file != other:
                file.unlink()
                file.symlink_to(other)
        elif kind == "remove tree":
            shutil.rmtree(file.parent)
        else:
            file.unlink()
            if kind == "directory":
                file.mkdir()
            elif kind == "pipe":
                os.mkfifo(file)
            elif kind == "link out":
                file.symlink_to(rng.choice(["/dev/zero", "/nowhere", ".", "..", file.name, "/proc/self/mem"]))
        done.append(f"{kind} {what}")
    return done


_CHANGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bits": _bits,
    "bytes": _bytes,
    "cut": _cut,
    "grow": _grow,
    "splice": _splice,
    "number": _number,
    "index": _index,
    "checksummed": _checksummed,
    "json": _json,
}


# what is asked of a store, and what may be answered


def questions(store: Store, errors: list[str]) -> dict[str, Any]:
    """Ask a store everything; a question that ends in a named error is left out."""
    answers: dict[str, Any] = {}

    def ask(name: str, work: Callable[[], Any]) -> Any:
        try:
            answers[name] = work()
        except LtstoreError as err:
            text = str(err)
            if "\n" in text or len(text) > 2000:
                raise AssertionError(
                    f"a message of {len(text)} characters on {text.count(chr(10)) + 1} lines"
                ) from err
            errors.append(type(err).__name__)
            return None
        return answers[name]

    ask("root", lambda: (store.class_names, store.encoder.digest))
    opened: list[tuple[str, Split]] = []
    for prefix, names, get in (
        ("", store.splits, store.split),
        ("synthetic/", store.synthetic_names, store.synthetic),
    ):
        for name in names:
            split = ask(prefix + name, lambda get=get, name=name: get(name, allow_incomplete=True))
            if split is not None:
                opened.append((prefix + name, split))
                answers[prefix + name] = (
                    split.n_rows,
                    split.dtype,
                    split.complete,
                    split.settings,
                    split.source_digest,
                )
    for label, split in opened:
        answers[f"{label} commits"] = [commit.shard for commit in split.commits]
        ask(f"{label} digest", lambda split=split: split.digest)
        ask(f"{label} failures", split.failures)
        ask(f"{label} labels", lambda split=split: split.labels.tolist())
        ask(f"{label} status", lambda split=split: split.status.tolist())
        subsets = ask(f"{label} subsets", lambda split=split: list(split.subsets)) or []
        for subset in subsets:
            ask(f"{label} subset {subset}", lambda split=split, subset=subset: split.subset(subset).tolist())
            ask(f"{label} why {subset}", lambda split=split, subset=subset: split.subset_settings(subset))
        for commit in split.commits:
            ids = range(commit.start, commit.stop)
            ask(f"{label} keys {commit.shard}", lambda split=split, ids=ids: split.keys(ids))
            ask(f"{label} errors {commit.shard}", lambda split=split, ids=ids: split.errors(ids))
            ask(
                f"{label} table {commit.shard}",
                lambda split=split, ids=ids: split.table(ids, ["label", "status"]).to_pylist(),
            )
            ask(
                f"{label} parents {commit.shard}",
                lambda split=split, ids=ids: split.table(ids, ["parent_ids"]).to_pylist(),
            )
        for subset in (None, *subsets):
            rows = ask(
                f"{label} rows {subset}", lambda split=split, subset=subset: split.rows(subset, normalize=False)
            )
            if rows is None:
                continue
            answers[f"{label} rows {subset}"] = (rows.row_ids.tolist(), rows.labels.tolist())
            blocks = {}
            for commit in split.commits:
                inside = (rows.row_ids >= commit.start) & (rows.row_ids < commit.stop)
                where = np.flatnonzero(inside)
                if not len(where):
                    continue
                key = f"{label} X {commit.shard} {subset}"
                ask(key, lambda rows=rows, where=where: rows.read(int(where[0]), int(where[-1]) + 1).tobytes())
                taken = ask(
                    f"{key} taken", lambda rows=rows, where=where: rows.take(where[::-1])[::-1].tobytes()
                )
                blocks[commit.shard] = taken
                answers.pop(f"{key} taken", None)
                if taken is not None and key in answers and taken != answers[key]:
                    raise AssertionError(f"{key}: read and take differ")
    return answers


def _is_statement(name: str, there: set[str]) -> bool:
    """Whether an answer is what a document says of the rows (names, settings): a new seal makes another of it.

    Seals find accidents. Against a forger only a digest that is kept elsewhere helps, and it covers the rows.
    """
    return name == "root" or name in there or " why " in name


def _only_fewer(name: str, answers: dict[str, Any], truth: dict[str, Any]) -> bool:
    """Whether subsets are gone, whole: like splits they are listed nowhere, so nothing can tell."""
    return name.endswith(" subsets") and set(answers[name]) <= set(truth.get(name, []))


def _went(name: str, there: set[str], answers: dict[str, Any]) -> bool:
    """Whether an answer is of a split or subset that is gone, whole."""
    label, _, question = name.partition(" ")
    if label != "root" and label not in there:
        return True
    subset = question.split()[-1] if question else ""
    return subset in ("cut", "none") and subset not in answers.get(f"{label} subsets", [subset])


def examine(path: Path, truth: dict[str, Any]) -> str:
    """Read a damaged store; return what kind of answer it gave. AssertionError where it is not allowed."""
    errors: list[str] = []
    try:
        store = open_store(path)
    except LtstoreError as err:
        refused = str(err)
    else:
        refused = ""
    if refused:
        if "\n" in refused:
            raise AssertionError("a message of several lines")
        for work in (store_info, verify):
            try:
                work(path)
            except LtstoreError:
                continue
            raise AssertionError(f"{work.__name__} opens what open_store refuses")
        return "the store is refused"
    json.dumps(store_info(path), allow_nan=False)
    report = verify(path)
    json.dumps(report.to_json(), allow_nan=False)
    assert all("\n" not in problem.message for problem in report.problems), "a message of several lines"
    answers = questions(store, errors)
    there = {*store.splits, *(f"synthetic/{name}" for name in store.synthetic_names)}
    wrong = [name for name, answer in answers.items() if name not in truth or answer != truth[name]]
    wrong = [name for name in wrong if not _only_fewer(name, answers, truth)]
    missing = [name for name in truth if name not in answers and not _went(name, there, answers)]
    for label in there:  # the shards of a split in writing are those that have a record, so one may go
        complete = answers.get(label, (None,) * 3)[2]
        if complete is False and answers.get(f"{label} commits") != truth.get(f"{label} commits"):
            wrong = [name for name in wrong if name.partition(" ")[0] != label]
            missing = [name for name in missing if name.partition(" ")[0] != label]
    if not wrong and not missing:
        return "all as it was" if report.ok else "all as it was, and verify reports"
    rows_wrong = [name for name in wrong if not _is_statement(name, there)]
    if report.ok and rows_wrong:
        raise AssertionError(f"silently wrong: {rows_wrong[:5]}")
    if report.ok and not errors:
        raise AssertionError(f"silently missing: {missing[:5]}")
    for (
        name
    ) in wrong:  # precisely: rows of a shard differ only where that shard, or what says where it lies, is named
        label, x, rest = name.partition(" X ")
        named = {(problem.split, problem.array, problem.shard) for problem in report.problems}
        if x and not any(
            split in (label, "") and (shard in (None, int(rest.split()[0])) or array in ("", "commits"))
            for split, array, shard in named
        ):
            raise AssertionError(f"rows of {name} differ, and verify names only {sorted(map(str, named))}")
    if not wrong:
        return "a named error"
    return "wrong, and verify reports" if not report.ok else "another name or setting, under a seal that holds"


def in_fork(work: Callable[[], str], seconds: float) -> tuple[str, str]:
    """Run `work` in a fork under limits; return (kind of failure or "", its answer)."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + MEMORY_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            os.write(writer, work().encode())
            code = 0
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writer, traceback.format_exc()[-3000:].encode())
        os._exit(code)
    os.close(writer)
    data, deadline = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        if not (piece := os.read(reader, 65536)):
            break
        data += piece
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL and time.monotonic() >= deadline:
        return "it hangs", data.decode()
    if code < 0:
        return f"it dies of signal {-code}", data.decode()
    return ("", data.decode()) if code == 0 else ("it fails", data.decode())


def truth_of(path: Path, scratch: Path) -> dict[str, Any]:
    """The answers of an undamaged store, worked out in a fork."""
    file = scratch / "truth"

    def work() -> str:
        import pickle

        file.write_bytes(pickle.dumps(questions(open_store(path), [])))
        return ""

    failure, detail = in_fork(work, SECONDS)
    assert not failure, detail
    import pickle

    return dict(pickle.loads(file.read_bytes()))  # noqa: S301 - our own bytes


def one_round(seed: int, number: int, stores: list[Path], truths: list[dict[str, Any]], scratch: Path) -> str:
    rng = random.Random(f"{seed}/{number}")
    which = rng.choices(range(len(stores)), [4 if store.name == "raw" else 1 for store in stores])[0]
    path = scratch / "damaged"
    shutil.copytree(stores[which], path)
    done = damage(path, rng)
    failure, answer = in_fork(lambda: examine(path, truths[which]), SECONDS)
    if failure:
        raise AssertionError(f"round {number}, {stores[which].name}: {'; '.join(done)}: {failure}\n{answer}")
    shutil.rmtree(path, ignore_errors=True)
    return answer


def fuzz(rounds: int, seed: int, first: int = 0, *, stop: bool = True) -> Counter[str]:
    """Run rounds; AssertionError tells the first that fails (with `stop`; else they are printed and counted)."""
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        scratch = Path(directory)
        (scratch / "stores").mkdir()
        failure, detail = in_fork(lambda: str(len(make_stores(scratch / "stores"))), 60)
        assert not failure, detail
        stores = sorted((scratch / "stores").iterdir())
        truths = [truth_of(store, scratch) for store in stores]
        gc.freeze()  # or every fork copies the memory when it collects
        for number in range(first, first + rounds):
            try:
                counts[one_round(seed, number, stores, truths, scratch)] += 1
            except AssertionError as err:
                if stop:
                    raise
                print(f"FAILED: {err}", file=sys.stderr, flush=True)
                counts["FAILED"] += 1
                shutil.rmtree(scratch / "damaged", ignore_errors=True)
            if (number + 1) % 500 == 0:
                print(f"after round {number}: {dict(sorted(counts.items()))}", file=sys.stderr, flush=True)
    return counts


def main() -> int:
    """Print the counts; exit 1 where a round fails."""
    parser = argparse.ArgumentParser(description="Damage stores and read them.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first round, to repeat one")
    arguments = parser.parse_args()
    began = time.perf_counter()
    counts = fuzz(arguments.rounds, arguments.seed, arguments.first, stop=False)
    for name, count in sorted(counts.items()):
        print(f"{count:>8}  {name}")
    print(f"{sum(counts.values()):>8}  rounds in {time.perf_counter() - began:.0f} seconds")
    print(f"{counts['FAILED']:>8}  crashes, hangs, other exceptions, or wrong rows that nothing reports")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
