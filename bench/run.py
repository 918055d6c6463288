"""Run cases and turn what they measure into records, one JSON object per candidate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from bench import machine
from bench.case import CLOCKS, Case, Size
from bench.timing import LEAST_ROUNDS, Measurement, Workload, measure

Record = dict[str, Any]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_case(case: Case, size: Size, against: Sequence[str] = ()) -> Iterator[Record]:
    """Run a case in this process and yield its records.

    Parameters
    ----------
    case : Case
    size : {"toy", "full"}
    against : sequence of str
        Peers to run; all of them if empty. Candidates that are no peers always run.

    Raises
    ------
    WrongResultError
        The subject of a workload gives a wrong answer.
    """
    for workload in case.build(size):
        chosen = _against(workload, against)
        if len(chosen.candidates) < 2:
            for name, why in chosen.skipped.items():
                yield _record(case, size, chosen, name) | {"skipped": why}
            continue
        rounds = LEAST_ROUNDS if size == "toy" else case.rounds
        for measured in measure(chosen, rounds=rounds, clock=CLOCKS[case.clock]):
            yield _measured(case, size, chosen, measured)
        for name, why in chosen.skipped.items():
            yield _record(case, size, chosen, name) | {"skipped": why}


def run_apart(cases: Iterable[Case], size: Size, against: Sequence[str] = ()) -> Iterator[Record]:
    """Run each case in a process of its own, with the cores and threads its definition says; yield the records.

    Raises
    ------
    RuntimeError
        Cases failed, said after all others have run: the message is the last line of each one's process.
    """
    failed = []
    for case in cases:
        words = [sys.executable, "-m", "bench", "run", case.name, "--here", "--json", "--size", size]
        if against:
            words += ["--against", ",".join(against)]
        environment = dict(os.environ)
        n_cores = case.cores or machine.available_cores()
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(n_cores)))
        done = subprocess.run(
            words,
            cwd=machine.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            failed.append(f"{case.name} failed: {last}")
        yield from map(json.loads, done.stdout.splitlines())
    if failed:
        raise RuntimeError("; ".join(failed))


def pin(n_cores: int | None) -> None:
    """Keep this process to its last `n_cores` cores, where the system can do that."""
    if n_cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-n_cores:])


def _against(workload: Workload, against: Sequence[str]) -> Workload:
    if not against:
        return workload
    kept = tuple(each for each in workload.candidates if not each.peer or each.peer in against)
    return replace(workload, candidates=kept)


def _record(case: Case, size: Size, workload: Workload, candidate: str) -> Record:
    return {
        "case": case.name,
        "variant": workload.variant,
        "size": size,
        "candidate": candidate,
        "subject": workload.candidates[0].name if workload.candidates else "",
        "kind": workload.kind,
        "unit": workload.unit,
        "unit_bytes": workload.unit_bytes,
        "clock": case.clock,
        "settings": {**workload.settings, "cores": case.cores},
        "machine": machine.machine(),
        "load": machine.load(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "date": machine.today(),
    }


def _measured(case: Case, size: Size, workload: Workload, measured: Measurement) -> Record:
    candidate = next(each for each in workload.candidates if each.name == measured.candidate)
    record = _record(case, size, workload, candidate.name)
    if measured.refused:
        return record | {"refused": measured.refused}
    assert measured.seconds is not None
    return (
        record
        | {
            "ratio": None if measured.ratio is None else asdict(measured.ratio),
            "aim": candidate.aim,
            "stretch": candidate.stretch,
            "seconds": asdict(measured.seconds),
            "work": candidate.work,
            "peak_bytes": measured.peak_bytes,
            "rounds": measured.rounds,
        }
        | ({} if measured.said is None else {"said": measured.said})
    )


def met(record: Record) -> bool | None:
    """Return whether a record's median ratio meets its aim; None where there is no aim."""
    ratio, aim = record.get("ratio"), record.get("aim")
    if ratio is None or aim is None:
        return None
    return bool(ratio["p50"] <= aim if record["kind"] != "speed" else ratio["p50"] >= aim)


def loses(record: Record) -> bool:
    """Return whether the candidate of a record is faster than the subject."""
    ratio = record.get("ratio")
    if ratio is None or record["kind"] == "estimate":
        return False
    return bool(ratio["p50"] > 1 if record["kind"] != "speed" else ratio["p50"] < 1)
